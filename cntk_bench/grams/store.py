"""Stores of Gram matrices on disk: a Zarr v3 group that survives interruption at any moment.

    PATH/zarr.json       the group; its attributes say what is computed (`description`)
    PATH/train, test     the numbers (`chunks`)
    PATH/y_train, ...    what is known about the images (`image_facts`)
    PATH/journals/*      a journal of finished tiles per writer (`journal`, merged by `progress`)
    PATH/flying/*        the tiles that each writer is computing now (`flight`)
    PATH/lock            shared by processes that compute; exclusive for one that changes what the store holds

A readout is found by its name among the attributes' `readouts`, never by an assumed index. A tile is done
when a journal says so, never because its chunks exist. Its line, with a digest of every readout's numbers, is
appended and flushed to disk only after the chunks: a SIGKILL or a power cut loses the tiles being written
and nothing else. A chunk that is damaged later fails its digest whenever it is read. Where two processes
computed the same tile, the numbers of the first stay, since only its line is certain to be there. A store
grows at the end, and what was computed stays. It may also be in an object store (`objects`), with the same
rules.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.errors import UserError, VerificationError
from cntk_bench.grams import chunks, description, image_facts
from cntk_bench.grams import matrix as matrices
from cntk_bench.grams.chunks import Chunks, Unreadable, zarr
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.journal import Journal, among, writer_name, writers
from cntk_bench.grams.lines import Line
from cntk_bench.grams.progress import Progress
from cntk_bench.grams.tiles import PARTS, Plan, Tile
from cntk_bench.system import lock
from cntk_bench.system.bucket import Bucket
from cntk_bench.system.files import is_plain, writing
from cntk_bench.text import short

__all__ = ["Store", "Unreadable", "open"]

PATIENCE = 20.0  # seconds that a process that wants to compute waits for one that changes the store


def open(path: str | Path | Bucket) -> "Store":
    """Open a store, on disk or in an object store, whatever state an interruption left it in.

    Raises
    ------
    UserError
        If there is no store, or one that is not of this program or is of a newer version.
    """
    path = path if isinstance(path, Bucket) else Path(path)
    attributes = description.read(path)
    kind = Store
    if isinstance(path, Bucket):
        from cntk_bench.grams.objects import ObjectStore

        kind = ObjectStore
    with description.readable(path):
        return kind(path, attributes)


class Store:
    """A store on disk; `open` and `growth.ensure` return one, or an `objects.ObjectStore`.

    path, attributes (`description`), plan : where the store is, and what it holds.
    readouts : names of its readouts, such as "ntk-gap-21-hidden".
    progress : the finished tiles, according to the journals when they were last read.
    """

    path: Any  # a Path; a Bucket for an object store

    def __init__(self, path: Path | Bucket, attributes: dict):
        self.path = path
        self._journal: Any = None  # a Journal, or Segments, while this object may write
        self._read(attributes)

    def __reduce__(self) -> tuple:
        """Pickle the store as its path; unpickling opens it again."""
        return open, (self.path if isinstance(self.path, Bucket) else self.path.absolute(),)

    def _read(self, attributes: dict) -> None:
        self.attributes = attributes
        self.readouts = tuple(map(str, attributes["readouts"]))
        try:
            n_train, n_test, tile = (attributes[name] for name in ("n_train", "n_test", "tile"))
            self.plan = Plan(n_train, n_test, tile, len(self.readouts))
        except UserError as error:
            raise ValueError(str(error)) from None
        self.group, self.chunks = self._opened(self.plan)
        first = attributes.get("first_sizes", self.sizes)  # sizes in format 1, for its journal
        self.progress = Progress(self.path, self.plan, Plan(first[0], first[1], tile, len(self.readouts)))

    def _opened(self, plan: Plan) -> tuple[Any, Chunks]:
        """Open the group and its arrays."""
        for part in PARTS:
            if not is_plain(self.path / part / "zarr.json"):
                raise ValueError(f"{part}/zarr.json is not a plain file")
        group = zarr.open_group(self.path, mode="r+")
        return group, Chunks(self.path, group, plan)

    @property
    def sizes(self) -> tuple[int, int]:
        """(n_train, n_test)."""
        return self.plan.n_train, self.plan.n_test

    def index(self, readout: object) -> int:
        """Index of a readout in the arrays, found by its name `str(readout)`.

        An integer is taken as such an index already.

        Raises
        ------
        UserError
            If the store does not hold it.
        """
        if isinstance(readout, int) and 0 <= readout < len(self.readouts):
            return readout
        if str(readout) not in self.readouts:
            raise UserError(
                f"{short(str(self.path))} does not hold the readout {short(str(readout))}, but "
                f"{short(', '.join(self.readouts))}: run `compute` for it"
            )
        return self.readouts.index(str(readout))

    def images(self, sizes: tuple[int, int] | None = None) -> ImageFacts:
        """Read what is known about the first images of either set, all by default.

        Raises
        ------
        VerificationError
            If the labels are damaged.
        """
        return image_facts.read_all(self.path, self.group, sizes or self.sizes)

    def require_images(self) -> None:
        """Raise VerificationError if what the store keeps about its images is damaged."""
        image_facts.require_whole(self.path, self.group, self.sizes)

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """(y_train, y_test), int64; VerificationError if damaged."""
        return self.images().labels

    def matrix(self, part: str, readout: object, dtype: Any = np.float64, **more: Any) -> np.ndarray:
        """Read one whole matrix; parameters and errors as for `matrix.matrix`."""
        return matrices.matrix(self, part, readout, dtype, **more)

    def writers(self) -> list[str]:
        """Names (HOST-PROCESS-...) of live writers that have written a tile, as far as that can be known."""
        return writers(self.path)

    def among(self) -> tuple[int, int]:
        """Our index among the processes that write tiles or are about to, and their count; in `shared`."""
        return among(self.path, self._writing())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the exclusive right to change the store; UserError if another process writes or changes it."""
        with self._locked(), self._writer(writer_name()):
            yield

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the shared right to write tiles; the operating system releases it even if we are killed.

        Can be nested, also within `alone`. UserError if another process holds `alone`.
        """
        if self._journal is not None and self._journal.process == os.getpid():
            yield
            return
        with suppress(lock.Held), self._locked():
            pass
        with lock.held(self.path / "lock", PATIENCE, shared=True), self._writer(writer_name()):
            self._journal.show()
            yield

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with lock.held(self.path / "lock") as sure:
            if sure:  # nobody writes, so partial files are of killed writers
                with writing(self.path):
                    self.chunks.remove_partial()
            yield

    @contextmanager
    def _writer(self, name: str) -> Iterator[None]:
        """Be the writer `name`, with the store's current state read again."""
        try:
            now = self._begun(name)
            if now != self.attributes:  # another process made it larger
                self._read(now)
            else:
                self.progress.refresh()
            self.progress.own(name)
            yield
        finally:
            if self._journal is not None:
                self._journal.close()
            self._journal = None

    def _begun(self, name: str) -> dict:
        """Begin a writer's journal, and return the store's attributes as read after that."""
        with writing(self.path):
            self._journal = Journal(self.path, name)
        return description.read(self.path)

    def write(
        self,
        tile: Tile,
        block: np.ndarray,
        seconds: float = 0.0,
        readouts: Sequence[int] | None = None,
        taken: bool = False,
        machine: str = "",
    ) -> None:
        """Store a tile, then log it as done; within `shared`. Thread-safe for different tiles.

        Chunks that another process has finished meanwhile are left as they are, since they may differ from
        ours in the last bit: a reader may not have read our line yet, and we may be killed before it is
        written.

        Parameters
        ----------
        tile : Tile
        block : array (readouts, h, w), float32
        seconds : float
            Time from the end of the writer's previous tile to the end of this one; they add up to the time
            of computing.
        readouts : sequence of int
            Indices of the readouts in the block; all by default.
        taken : bool
            Whether the numbers were taken from another store.
        machine : str
            The kind of machine that computed the numbers (`backends.machine`).

        Raises
        ------
        UserError
            If the tile cannot be written; it is then not done, but all earlier ones are.
        """
        journal = self._writing()
        readouts = tuple(range(self.plan.readouts)) if readouts is None else tuple(readouts)
        block = np.ascontiguousarray(block, "<f4")
        if block.shape != (len(readouts), *tile.shape(self.plan)[1:]):
            raise ValueError(f"{tile} has shape {tile.shape(self.plan)[1:]}, not {block.shape[1:]}")
        digests = tuple(map(chunks.digest, block))
        shape = None if min(block.shape[1:]) == self.plan.tile else block.shape[1:]
        with writing(self.path):
            journal.require_place()
            if self._begun_by_others(tile, readouts):
                self.progress.refresh()
            turn = self.progress.round(tile)  # first: of a tile retracted after this, our line says nothing
            left = [n for n, r in enumerate(readouts) if not self._is_done(tile, r, block.shape[1:])]
            if left:
                self.chunks.write(tile, [readouts[n] for n in left], block[left])
            line = Line(tile, readouts, digests, shape, seconds, time.time(), turn, taken, machine)
            journal.append(line)
        self.progress.enter(line)

    def _begun_by_others(self, tile: Tile, readouts: Sequence[int]) -> bool:
        """Whether there are chunks already, so that another process may have finished the tile."""
        names = [chunks.name(tile, readout) for readout in readouts]
        if isinstance(self.path, Bucket):  # a request for one of them, as most writers send all
            return self.path.tag(names[0]) is not None
        return any(os.path.lexists(self.path / name) for name in names)

    def _is_done(self, tile: Tile, readout: int, shape: Sequence[int]) -> bool:
        """Whether a tile is done for a readout and at least so many rows and columns, and is not damaged."""
        h, w = self.progress.shape(tile, readout)
        if not self.progress.digests(tile, readout) or h < shape[0] or w < shape[1]:
            return False
        try:
            return self.inspect(tile, readout)[0] is not None
        except Unreadable:  # not necessarily damaged
            return True

    def discard(self, tile: Tile) -> None:
        """Log that a tile is not done after all; within `alone`."""
        line = Line(tile, (), None, round=self.progress.round(tile) + 1)
        self._writing().append(line)
        self.progress.enter(line)

    def _writing(self) -> Any:
        if self._journal is None:
            raise RuntimeError("writing needs the lock")
        return self._journal

    def inspect(self, tile: Tile, readout: int, checked: bool = True) -> tuple[np.ndarray | None, str | None]:
        """Read a done tile's numbers for one readout: float32 (h, w) and None, or None and what is wrong.

        Entries of images added to the store after the tile was done are NaN. If `checked` is false, only the
        chunk's own checksum is verified, not the journals' digest.

        Raises
        ------
        UserError
            If the operating system or the server refuses to read them at the moment (`Unreadable`), or
            another process has changed what the store holds since it was opened.
        """
        for last in (False, True):
            plane, fault = self.chunks.read(tile, readout)
            if plane is None or not checked:
                return plane, fault
            h, w = self.progress.shape(tile, readout)
            if chunks.digest(plane[:h, :w]) in self.progress.digests(tile, readout):
                return plane, None
            if not last:  # another process may have written it since the journals were read
                self.progress.refresh()
        if description.read(self.path) != self.attributes:  # the digests may be of larger tiles than ours
            raise description.changed(self.path)
        return None, "missing or altered: the digest does not fit"

    def read(self, tile: Tile, readouts: Sequence[int] | None = None, *, checked: bool = True) -> np.ndarray:
        """Read a done tile's numbers for some readouts, all by default: (readouts, h, w) float32.

        `checked` as for `inspect`.

        Raises
        ------
        UserError
            If the tile is not done, or as for `inspect`.
        VerificationError
            If a chunk is damaged or does not have its digest.
        """
        readouts = range(self.plan.readouts) if readouts is None else readouts
        planes = []
        for readout in readouts:
            if not self.progress.digests(tile, readout):
                raise UserError(f"tile {tile} of {short(str(self.path))} is not computed yet: run `compute`")
            plane, fault = self.inspect(tile, readout, checked)
            if plane is None:
                raise VerificationError(
                    f"tile {tile} of {short(str(self.path))} is damaged ({fault}): run `verify` with --repair"
                )
            planes.append(plane)
        return np.stack(planes)
