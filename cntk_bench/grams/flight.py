"""Which tiles a process is computing, told to others: flying/WRITER, a line per tile.

A hint, and no lock: others take these tiles last. So two processes that come near each other do not walk side
by side, each over what the other has begun and not yet finished. Whatever is wrong with such a file, no tile
is lost by it. One whose process has ended is removed by whoever comes across it.
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
from cntk_bench.system.files import attempt, open_own

FOLDER, END = "flying", "end"
MOST = 1 << 20  # bytes of a file that are read


class Flight:
    """What we are computing of a store, and what others are.

    Parameters
    ----------
    folder : Path or None
        There as long as somebody computes. None where nothing is told: a store of objects, where each word is
        a request.
    plan : Plan
    """

    def __init__(self, folder: Path | None, plan: Plan):
        self._folder, self._plan, self._handle = folder, plan, -1
        self._name = writer_name()

    def tell(self, tiles: Iterable[Tile]) -> None:
        """Tell others what we are computing now; without a word where that cannot be written."""
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
                attempt(self._handle)
            os.pwrite(self._handle, data, 0)
            os.ftruncate(self._handle, len(data))

    def others(self) -> dict[str, list[int]]:
        """Numbers of the tiles that others are computing, for each part."""
        found: dict[str, list[int]] = {part: [] for part in PARTS}
        for text in self._texts():
            for part, number in re.findall(rf"^({'|'.join(PARTS)}) (\d{{1,15}})$", text, re.MULTILINE):
                found[part].append(int(number))
        return found

    def _texts(self) -> Iterator[str]:
        if self._folder is None or self._folder.is_symlink():
            return
        for file in sorted(self._folder.glob("*-*-*")):
            if file.name == self._name or not WRITER.fullmatch(file.name):  # others are not ours to remove
                continue
            with suppress(OSError, UnicodeError):
                handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
                try:
                    if not stat.S_ISREG(os.fstat(handle).st_mode):
                        continue
                    if attempt(handle, shared=True):  # nobody holds it any more
                        file.unlink()
                        continue
                    text = os.pread(handle, MOST, 0).decode()
                finally:
                    os.close(handle)
                if text.endswith(END):  # it is whole
                    yield text

    def close(self) -> None:
        """Take back what was told."""
        if self._handle >= 0 and self._folder:
            with suppress(OSError):
                (self._folder / self._name).unlink()
            with suppress(OSError):  # it is not empty
                self._folder.rmdir()
            os.close(self._handle)
            self._handle = -1


@contextmanager
def flight(store: Path | Bucket, plan: Plan) -> Iterator[Flight]:
    """What we are computing of the store at a place, told until the end."""
    told = Flight(None if isinstance(store, Bucket) else store / FOLDER, plan)
    try:
        yield told
    finally:
        told.close()
