"""Files that tell other processes which tiles a process is computing: flying/WRITER, a line per tile.

They are hints, not locks: others take these tiles last, so that two processes that get close to each other do
not repeat what the other has begun and not yet finished. No tile is lost if such a file is wrong. If the
process of one has ended, whichever process comes across the file removes it.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.grams.journal import WRITER, writer_name
from cntk_bench.grams.tiles import PARTS, Plan, Tile
from cntk_bench.system.bucket import Bucket
from cntk_bench.system.files import open_own, try_lock

FOLDER, END = "flying", "end"
MOST = 1 << 20  # bytes read of a file, at most


class Flight:
    """The tiles of a store that this process and others are computing.

    Parameters
    ----------
    folder : Path or None
        Folder of the files, which exists while a process computes. None to tell nothing: in an object store,
        each message would be a request.
    plan : Plan
    """

    def __init__(self, folder: Path | None, plan: Plan):
        self._folder, self._plan, self._handle = folder, plan, -1
        self._name = writer_name()

    def tell(self, tiles: Iterable[Tile]) -> None:
        """Tell others which tiles we are computing now; do nothing if that cannot be written."""
        if self._folder is None:
            return
        words = [f"{tile.part} {self._plan.number(tile)}\n" for tile in tiles]
        data = "".join([*words, END]).encode()
        with suppress(OSError, UserError):
            if self._handle < 0:
                if self._folder.is_symlink():  # others may have put it there, to make us write elsewhere
                    return
                self._folder.mkdir(exist_ok=True)
                self._handle = open_own(self._folder / self._name, os.O_WRONLY)
                try_lock(self._handle)
            os.pwrite(self._handle, data, 0)
            os.ftruncate(self._handle, len(data))

    def others(self) -> dict[str, list[int]]:
        """Numbers of the tiles that others are computing, by part."""
        found: dict[str, list[int]] = {part: [] for part in PARTS}
        for text in self._texts():
            for part, number in re.findall(rf"^({'|'.join(PARTS)}) (\d{{1,15}})$", text, re.MULTILINE):
                found[part].append(int(number))
        return found

    def _texts(self) -> Iterator[str]:
        if self._folder is None or self._folder.is_symlink():
            return
        for file in sorted(self._folder.glob("*-*-*")):
            if file.name == self._name or not WRITER.fullmatch(file.name):  # not ours to remove
                continue
            with suppress(OSError, UnicodeError):
                handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
                try:
                    if not stat.S_ISREG(os.fstat(handle).st_mode):
                        continue
                    if try_lock(handle, shared=True):  # nobody holds it any more
                        file.unlink()
                        continue
                    text = os.pread(handle, MOST, 0).decode()
                finally:
                    os.close(handle)
                if text.endswith(END):  # the file is complete
                    yield text

    def close(self) -> None:
        """Remove our file, and the folder if it is empty."""
        if self._handle >= 0 and self._folder:
            with suppress(OSError):
                (self._folder / self._name).unlink()
            with suppress(OSError):  # the folder is not empty
                self._folder.rmdir()
            os.close(self._handle)
            self._handle = -1


@contextmanager
def flight(store: Path | Bucket, plan: Plan) -> Iterator[Flight]:
    """Yield a `Flight` for the store at a place, and close it at the end."""
    announced = Flight(None if isinstance(store, Bucket) else store / FOLDER, plan)
    try:
        yield announced
    finally:
        announced.close()
