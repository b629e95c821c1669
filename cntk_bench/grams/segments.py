"""Journals in an object store, which cannot append: objects that are written once and never changed.

    journals/WRITER.00000128-00000191.jsonl   the writer's lines 128 to 191
    journals/WRITER.00000192-00000192.jsonl   its line 192

Each line is first an object of its own; every `SEGMENT` lines are joined into one object, and their single
objects are removed. So there are about tiles / `SEGMENT` objects, and each line is written twice. No name is
used for two contents, so a request that is repeated late changes nothing.

Lines are those of `journal`, and mean the same in any order and however often they are read.
"""

import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from cntk_bench.errors import UserError
from cntk_bench.grams.journal import FOLDER, decoded
from cntk_bench.grams.lines import Line
from cntk_bench.system.bucket import Bucket
from cntk_bench.text import short

SEGMENT = 64  # lines joined into one object
THREADS = 8  # threads that read
LOOKS = 5  # listings, at most, while objects vanish because their writers join them
NAME = re.compile(rf"{FOLDER}/([\w.-]+)\.(\d{{8}})-(\d{{8}})\.jsonl", re.ASCII)


class Segments:
    """A writer's journal in an object store; see `journal.Journal`. Appending is thread-safe.

    Parameters
    ----------
    bucket : Bucket
        The store.
    name : str
        The writer's name (`journal.writer_name`).
    tag : str
        Tag of the store's description, as the writer last read it.
    """

    def __init__(self, bucket: Bucket, name: str, tag: str):
        self._bucket, self.name, self._tag, self.process = bucket, name, tag, os.getpid()
        self._open: list[tuple[int, str]] = []  # numbers and texts of lines not joined yet
        self._next = 0
        self._appending = threading.Lock()

    def append(self, line: Line) -> None:
        """Append a line; it is stored once this returns.

        Raises
        ------
        UserError
            If the server cannot be reached, or the store was changed.
        """
        with self._appending:
            self.require_place()
            number, self._next = self._next, self._next + 1  # never reused, even if the put fails
            self._bucket.put(_object(self.name, number, number), f"{line}\n".encode())
            self._open.append((number, f"{line}\n"))
            if len(self._open) >= SEGMENT:
                self._join(self._bucket)

    def _join(self, bucket: Bucket) -> None:
        first, last = self._open[0][0], self._open[-1][0]
        bucket.put(_object(self.name, first, last), "".join(line for _, line in self._open).encode())
        bucket.delete(_object(self.name, number, number) for number, _ in self._open)
        self._open = []

    def require_place(self) -> None:
        """Refuse to go on if the store was removed or changed, for example grown, which changes tiles."""
        if self._bucket.tag("zarr.json") != self._tag:
            raise UserError(
                f"{short(str(self._bucket))} was made larger, removed or replaced while it was written: "
                "run the same command again; what was finished in it is kept"
            )

    def close(self) -> None:
        """Join the remaining lines; if that fails, they stay objects of their own."""
        try:
            if len(self._open) > 1:
                self._join(self._bucket.hurried())
        except UserError:
            pass


class Logs:
    """Reads the journals of a store, and follows them as they grow."""

    def __init__(self, bucket: Bucket):
        self._bucket = bucket
        self._seen: set[str] = set()  # names of objects that were read, or whose lines all were
        # For each writer, the lines read singly that are in no segment read so far.
        self._single: dict[str, set[int]] = {}
        self._own: set[str] = set()

    def own(self, writer: str) -> None:
        """Skip the lines of a writer, which are known without a request."""
        self._own.add(writer)

    def more(self) -> Iterator[list]:
        """Yield the decoded lines that were not read before, object by object.

        Raises
        ------
        UserError
            If the server cannot be reached.
        """
        for _ in range(LOOKS):
            wanted, vanished = self._unread(), False
            with ThreadPoolExecutor(THREADS) as pool:
                for name, found in zip(wanted, pool.map(self._bucket.get, wanted), strict=True):
                    if found is None:
                        vanished = True
                        continue
                    yield from decoded(found[0])
                    self._note(name)
            if not vanished:
                return

    def _unread(self) -> list[str]:
        """Names of objects to read: new segments, and single lines that are in no segment."""
        found = [one.name for one in self._bucket.list(FOLDER) if one.name not in self._seen]
        matches = [m for m in map(NAME.fullmatch, found) if m and m[1] not in self._own]
        named = [(m, int(m[2]), int(m[3])) for m in matches]
        wanted: list[str] = []
        within: dict[str, set[int]] = {}
        for match, first, last in named:
            if last > first:
                numbers = set(range(first, last + 1))
                within.setdefault(match[1], set()).update(numbers)
                if numbers <= self._single.get(match[1], set()):
                    self._note(match[0])
                else:
                    wanted.append(match[0])
        for match, first, last in named:
            if first == last and first not in within.get(match[1], ()):
                wanted.append(match[0])
        return wanted

    def _note(self, name: str) -> None:
        self._seen.add(name)
        match = NAME.fullmatch(name)
        assert match
        known = self._single.setdefault(match[1], set())
        first, last = int(match[2]), int(match[3])
        if first == last:
            known.add(first)
        else:
            known -= set(range(first, last + 1))


def writers_of(bucket: Bucket) -> set[str]:
    """Names of all writers that have written a line."""
    return {match[1] for one in bucket.list(FOLDER) if (match := NAME.fullmatch(one.name))}


def _object(name: str, first: int, last: int) -> str:
    return f"{FOLDER}/{name}.{first:08d}-{last:08d}.jsonl"
