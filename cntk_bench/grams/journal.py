"""The journal of a writer; each writer has its own: a flushed JSON line (`lines`) per finished tile.

Each line is written with a line feed before it, too, which ends any line that an interruption left
incomplete. Incomplete or damaged lines are ignored: their tiles are not done.
"""

import json
import os
import re
import socket
import stat
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.grams.lines import Line
from cntk_bench.system.files import open_own, require_no_link, same_file, try_lock, writing
from cntk_bench.text import short

FOLDER, FIRST = "journals", "tiles.jsonl"  # FIRST: the only journal in stores of format 1
BATCH = 20_000  # lines parsed at once
PIECE = 1 << 24  # bytes read at once
WRITER = re.compile(r"[A-Za-z0-9-]+-\d+-[0-9a-f]{8}")  # the form of `writer_name`


def writer_name() -> str:
    """Return a unique name for a writer: HOST-PROCESS-..."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()[:40])
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def decoded(text: bytes) -> Iterator[list]:
    """Decode the JSON lines in a part of a journal, in batches, skipping damaged lines."""
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
    """Yield a journal's complete lines from byte `first` on, piece by piece, each with its end offset.

    Raises
    ------
    UserError
        If the journal cannot be read.
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
                return  # an incomplete line: being written, or interrupted
            first += end
            yield text[:end], first
    except OSError as error:
        raise unreadable(file, error) from None
    finally:
        os.close(handle)


class Journal:
    """The journal of the writer `name`; the file is made with its first line, or by `show`.

    The file is locked while it is open, which tells others that its writer is alive. If no line was written,
    `close` removes it. Appending is thread-safe.
    """

    def __init__(self, store: Path, name: str):
        require_no_link(store)
        self._store, self.process = store, os.getpid()
        self.name, self._path = name, store / FOLDER / f"{name}.jsonl"
        self._handle: int | None = None
        self._place = os.open(store, os.O_RDONLY)
        self._empty = True
        self._appending = threading.Lock()

    def show(self) -> None:
        """Make the file now, so that others see that this writer works.

        Raises
        ------
        UserError
            If the file cannot be made.
        """
        with writing(self._path):
            self._opened()

    def append(self, line: Line) -> None:
        """Append a line; it is on disk once this returns.

        Raises
        ------
        UserError
            If the disk is full or fails, or the store was moved, removed or replaced.
        """
        data = f"\n{line}\n".encode()
        with self._appending, writing(self._path):
            self.require_place()
            handle, self._empty = self._opened(), False
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)

    def _opened(self) -> int:
        if self._handle is None:
            folder = self._path.parent
            require_no_link(folder)
            folder.mkdir(exist_ok=True)
            self._handle = open_own(self._path, os.O_WRONLY | os.O_APPEND)
            try_lock(self._handle)  # without locks, nobody can tell whether we are alive
        return self._handle

    def require_place(self) -> None:
        """Refuse to go on if the store was moved, removed or replaced, as chunks would end up elsewhere."""
        moved = not same_file(self._place, self._store)
        if moved or self._handle is not None and not same_file(self._handle, self._path):
            raise UserError(
                f"{short(str(self._store))} was moved, removed or replaced while it was written: "
                "run the same command again; what was finished in it is kept"
            )

    def close(self) -> None:
        """Close the journal, and remove it if it is empty."""
        os.close(self._place)
        if self._handle is not None:
            if self._empty and same_file(self._handle, self._path):
                with suppress(OSError):
                    self._path.unlink()
            os.close(self._handle)


def writers(path: Path) -> list[str]:
    """Names of a store's writers that are alive, as their locks tell, and have written a line.

    Empty if the file system has no locks.
    """
    return [name for name, locked, size in _writers(path) if locked and size]


def among(path: Path, journal: Journal) -> tuple[int, int]:
    """Index of a journal among those of writers that may be alive, and the number of these.

    If the file system has no locks, these are all writers that ever wrote.
    """
    names = [name for name, locked, _ in _writers(path) if locked is not False or name == journal.name]
    return (names.index(journal.name), len(names)) if journal.name in names else (0, 1)


def _writers(path: Path) -> Iterator[tuple[str, bool | None, int]]:
    """Yield each journal's name, whether it is locked (None if there are no locks), and size in bytes."""
    for file in sorted((path / FOLDER).glob("*.jsonl")):
        try:
            handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            continue
        free = try_lock(handle, shared=True)
        yield file.stem, None if free is None else not free, os.fstat(handle).st_size
        os.close(handle)


def unreadable(file: Path, error: OSError) -> UserError:
    """The error for a journal that cannot be read."""
    return UserError(
        f"cannot read {short(str(file))} ({error.strerror}): make it readable and run the command again"
    )
