"""The log of finished tiles: one JSON line each, appended and flushed; a later line supersedes.

The first thing on every line is the line feed before it, which ends a line that an interruption left
torn. A torn or damaged line is passed over: its tile is not done.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.grams.tiles import Plan, Tile
from cntk_bench.system.files import open_own, read_plain, same_file, writing
from cntk_bench.text import short


@dataclass(frozen=True)
class Done:
    """A finished tile: one digest per readout, seconds since the tile before it, time of writing (Unix)."""

    digests: tuple[str, ...]
    seconds: float
    time: float


def read(path: Path, plan: Plan) -> dict[Tile, Done]:
    """The tiles of a plan that a log says are done; none where there is no log.

    Raises
    ------
    UserError
        If the log is there and cannot be read.
    """
    tiles = {str(tile): tile for tile in plan.tiles()}
    done: dict[Tile, Done] = {}
    try:
        text = read_plain(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return done
    except OSError as error:
        raise UserError(
            f"cannot read {short(str(path))} ({error.strerror}): make it readable and run the command again"
        ) from None
    for line in filter(None, text.split("\n")):
        try:
            entry = json.loads(line)
            tile = tiles[entry["tile"]]
            if entry["digests"] is None:
                done.pop(tile, None)
            else:
                digests = tuple(map(str, entry["digests"]))
                done[tile] = Done(digests, float(entry["seconds"]), float(entry["time"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
    return done


class Journal:
    """A log that is open for appending; threads may append at once."""

    def __init__(self, path: Path, handle: int):
        self._path = path
        self._handle = handle
        self._appending = threading.Lock()

    def append(self, tile: Tile, done: Done | None) -> None:
        """Log a tile as done, or with None as not done after all; on the disk once this returns.

        Raises
        ------
        UserError
            If the disk is full or fails, or the log is not where it was any more.
        """
        entry = {"tile": str(tile), **(vars(done) if done else {"digests": None})}
        data = f"\n{json.dumps(entry)}\n".encode()
        with self._appending, writing(self._path):
            self.require_place()
            while data:
                data = data[os.write(self._handle, data) :]
            os.fsync(self._handle)

    def require_place(self) -> None:
        """Refuse to go on where the store was moved, removed or replaced: its chunks would go astray."""
        if not same_file(self._handle, self._path):
            raise UserError(
                f"{short(str(self._path.parent))} was moved, removed or replaced while it was written: "
                "run the same command again; what was finished in it is kept"
            )


@contextmanager
def opened(path: Path) -> Iterator[Journal]:
    """The log, open for appending; it is made where it is missing."""
    with writing(path):
        handle = open_own(path, os.O_WRONLY | os.O_APPEND)
    try:
        yield Journal(path, handle)
    finally:
        os.close(handle)
