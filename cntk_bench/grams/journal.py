"""The log of a writer: one JSON line per finished tile, appended and flushed. Each writer has its own.

A line is

    {"tile": "train-3-1", "readouts": [0, 1], "digests": ["90ab...", ...], "seconds": 1.2, "time": ...}

`readouts` are places in the store's list, which only grows; a line without them is of the first ones.
`shape` is that of the numbers where it is less than a whole tile: the last tiles of a row or column, which
a store that grows computes again.
Digests are the first 16 hexadecimal digits of SHA-256 of the numbers (lines of format 1 have all 64).
`"digests": null` takes a tile back: it is not done after all. `round` counts how often a tile was taken
back, so that lines of different writers need no clock to be put in order.

The first thing on every line is the line feed before it, which ends a line that an interruption left
torn. A torn or damaged line is passed over: its tile is not done.
"""

import json
import os
import socket
import stat
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.grams.tiles import Tile
from cntk_bench.system import lock
from cntk_bench.system.files import open_own, same_file, writing
from cntk_bench.text import short

FOLDER, FIRST = "journals", "tiles.jsonl"  # FIRST: of stores of format 1, which had one writer
DIGITS = 16  # hexadecimal, of a digest
LONGEST = 1e9  # seconds that a tile may have taken
BATCH = 20_000  # lines parsed at once
PIECE = 1 << 24  # bytes read at once


@dataclass(frozen=True)
class Entry:
    """A line: a tile that is done, or with `digests` None one that is not done after all.

    readouts : places in the store's list; empty where digests is None.
    digests : the first 64 bits of each readout's digest, as an integer above 0.
    shape : (h, w) of the numbers where it is less than a whole tile; None for a whole one.
    seconds : from the end of the writer's tile before it to its own.
    time : of writing, Unix.
    round : how often the tile was taken back before, or by this line.
    taken : whether the numbers were taken from another store.
    """

    tile: Tile
    readouts: tuple[int, ...]
    digests: tuple[int, ...] | None
    shape: tuple[int, int] | None = None
    seconds: float = 0.0
    time: float = 0.0
    round: int = 0
    taken: bool = False

    def line(self) -> str:
        """As JSON."""
        entry = {
            "tile": str(self.tile),
            "readouts": self.readouts,
            "digests": self.digests and [f"{digest:0{DIGITS}x}" for digest in self.digests],
            "shape": self.shape,
            "seconds": round(self.seconds, 6),
            "time": round(self.time, 3),
            "round": self.round,
            "taken": self.taken,
        }
        return json.dumps({key: value for key, value in entry.items() if value or key == "digests"})


def entry(found: dict) -> Entry | None:
    """The entry that a line's JSON stands for; None for what is none."""
    try:
        tile, turn = Tile.parse(found["tile"]), found.get("round", 0)
        if type(turn) is not int or not 0 <= turn < 2**31:
            return None
        if found["digests"] is None:
            return Entry(tile, (), None, round=turn)
        digests = tuple(digest_of(text) for text in found["digests"])
        readouts = tuple(found.get("readouts", range(len(digests))))
        if len(readouts) != len(digests) or not all(type(r) is int and r >= 0 for r in readouts):
            return None
        shape = found.get("shape")
        if shape is not None:
            h, w = shape
            shape = int(h), int(w)
        return Entry(
            tile,
            readouts,
            digests,
            shape,
            duration(found),
            float(found.get("time", 0)),
            turn,
            found.get("taken") is True,
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def duration(found: dict) -> float:
    """A line's seconds; 0 for what no clock can have said."""
    seconds = float(found.get("seconds", 0))
    return seconds if 0 <= seconds < LONGEST else 0.0


def digest_of(text: str) -> int:
    """A digest's first 64 bits, as an integer above 0, which stands for none."""
    return int(text[:DIGITS], 16) or 1


def batches(text: bytes) -> Iterator[list]:
    """What the JSON lines of a part of a journal hold, damaged ones left out."""
    lines = [line for line in text.split(b"\n") if line]
    for first in range(0, len(lines), BATCH):
        some = lines[first : first + BATCH]
        try:  # all at once, which is faster
            found = json.loads(b"[" + b",".join(some) + b"]")
        except (ValueError, RecursionError):
            found = []
        yield found if len(found) == len(some) else list(_one_by_one(some))


def _one_by_one(lines: Sequence[bytes]) -> Iterator[Any]:
    for line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            pass


def tail(file: Path, first: int) -> Iterator[tuple[bytes, int]]:
    """What a journal has from byte `first` on, in whole lines, a piece at a time, each with its end.

    Raises
    ------
    UserError
        If it cannot be read.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreadable(file, error) from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "not a plain file")
        while first < found.st_size:
            text = os.pread(handle, PIECE, first)
            end = text.rfind(b"\n") + 1
            if not end:
                return  # a line that is being written, or was torn
            first += end
            yield text[:end], first
    except OSError as error:
        raise unreadable(file, error) from None
    finally:
        os.close(handle)


class Journal:
    """A writer's log; it is made with its first line. Threads may append at once.

    While it is open it is locked, which tells others that its writer is alive.
    """

    def __init__(self, store: Path):
        self._store = store
        self._path = (
            store / FOLDER / f"{socket.gethostname()[:40]}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
        )
        self._handle: int | None = None
        self._place = os.open(store, os.O_RDONLY)
        self._appending = threading.Lock()

    def append(self, entry: Entry) -> None:
        """Log an entry; it is on the disk once this returns.

        Raises
        ------
        UserError
            If the disk is full or fails, or the store is not where it was any more.
        """
        data = f"\n{entry.line()}\n".encode()
        with self._appending, writing(self._path):
            self.require_place()
            handle = self._opened()
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)

    def _opened(self) -> int:
        if self._handle is None:
            folder = self._path.parent
            if folder.is_symlink():  # others may have put it there, to make us write elsewhere
                raise UserError(f"{short(str(folder))} is a link: put the folder itself there")
            folder.mkdir(exist_ok=True)
            self._handle = open_own(self._path, os.O_WRONLY | os.O_APPEND)
            lock.attempt(self._handle)  # without locks, nobody can tell whether we are alive
        return self._handle

    def require_place(self) -> None:
        """Refuse to go on where the store was moved, removed or replaced: its chunks would go astray."""
        moved = not same_file(self._place, self._store)
        if moved or self._handle is not None and not same_file(self._handle, self._path):
            raise UserError(
                f"{short(str(self._store))} was moved, removed or replaced while it was written: "
                "run the same command again; what was finished in it is kept"
            )

    def close(self) -> None:
        """Let go of it."""
        os.close(self._place)
        if self._handle is not None:
            os.close(self._handle)


def writers(path: Path) -> int:
    """Writers of a store that are alive now, by their locked journals; 0 where there are no locks."""
    alive = 0
    for file in sorted((path / FOLDER).glob("*.jsonl")):
        try:
            handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            continue
        alive += lock.attempt(handle, shared=True) is False
        os.close(handle)
    return alive


def unreadable(file: Path, error: OSError) -> UserError:
    """What is said of a journal that cannot be read."""
    return UserError(
        f"cannot read {short(str(file))} ({error.strerror}): make it readable and run the command again"
    )
