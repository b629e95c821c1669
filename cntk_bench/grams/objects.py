"""A Gram store on an S3-compatible server: the Zarr group that it is on disk, by the same rules.

    zarr.json, train/, test/, y_train/, ...   as on disk, an object for each file; Zarr over obstore
    journals/*                                lines of finished tiles (`segments`)
    lock, writers/*                           who changes the store, who computes (`claims`)

An object is there whole or not at all, so nothing is half written. A tile is done once its line is stored,
which is sent after the server has taken all of its chunks. What the store says of itself, zarr.json, is
written last when it is made or grows. A writer looks before each tile and each line whether that is still
what it knows, and ends where it is not; whatever of an old writer arrives later than that fails its digest.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.grams import claims, description
from cntk_bench.grams.chunks import Chunks, Unreadable, zarr
from cntk_bench.grams.journal import writer_name
from cntk_bench.grams.segments import FOLDER, Segments, writers_of
from cntk_bench.grams.store import Store
from cntk_bench.grams.tiles import PARTS, Plan, Tile
from cntk_bench.system.bucket import Bucket
from cntk_bench.text import one_line, short

SENDING = 8  # chunks of a tile sent at once


class ObjectChunks(Chunks):
    """The arrays of a store among objects; as `Chunks`."""

    def _place(self, path: Any) -> None:
        self.bucket = path

    def resize(self, plan: Plan) -> None:
        with self.bucket.reaching():
            super().resize(plan)

    def write(self, tile: Tile, readouts: Sequence[int], block: np.ndarray) -> None:
        """Send a tile's numbers, (readouts, h, w) float32; the server has them once this returns."""

        def send(readout: int, plane: np.ndarray) -> None:
            with self.bucket.reaching():
                self._arrays[tile.part][readout, tile.rows(self.plan), tile.cols(self.plan)] = plane

        with ThreadPoolExecutor(min(SENDING, len(readouts))) as pool:
            list(pool.map(send, readouts, block))

    def read(self, tile: Tile, readout: int) -> tuple[np.ndarray | None, str | None]:
        """As `Chunks.read`; a chunk that is not there is NaN."""
        try:
            with self.bucket.reaching():
                return self._arrays[tile.part][readout, tile.rows(self.plan), tile.cols(self.plan)], None
        except ValueError as error:  # a checksum, or a chunk of a wrong length
            return None, one_line(f"{type(error).__name__}: {error}", 120)
        except UserError as error:
            raise Unreadable(f"tile {tile} cannot be read now: {error}") from None

    def remove_partial(self) -> None:
        """Nothing is ever half written."""


class ObjectStore(Store):
    """A store among objects; as `Store`, whose path is a `Bucket`."""

    path: Bucket

    def _opened(self, plan: Plan) -> tuple[Any, Chunks]:
        with self.path.reaching():
            group = zarr.open_group(
                zarr.storage.ObjectStore(self.path.client()), mode="r+", zarr_format=3, use_consolidated=False
            )
            return group, ObjectChunks(self.path, group, plan)

    def writers(self) -> list[str]:
        """As `Store.writers`."""
        return sorted(claims.alive(self.path) & writers_of(self.path))

    def among(self) -> tuple[int, int]:
        """As `Store.among`; who was killed lately counts, too."""
        names = sorted(claims.signs(self.path) | {self._writing().name})
        return names.index(self._writing().name), len(names)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the right to change what the store holds; UserError if somebody computes or changes it."""
        with claims.held(self.path) as require:
            with self._writer(writer_name()):
                self._required = require
                try:
                    yield
                finally:
                    self._required = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Be known as one that writes tiles, as many others may.

        The same object may be so again while it is, or while it holds `alone`. UserError if another changes
        the store.
        """
        if self._journal is not None and self._journal.process == os.getpid():
            yield
            return
        name = writer_name()
        with claims.present(self.path, name):  # first, so that who looks after it took the lock finds us
            claims.require_free(self.path)
            with self._writer(name):
                yield

    def _begun(self, name: str) -> dict:
        found, tag = description.read_tagged(self.path)
        self._journal = Segments(self.path, name, tag)
        return found

    _required: Any = None  # raises UserError where the right to change the store was lost

    def _writing(self) -> Any:
        if self._required is not None:
            self._required()
        return super()._writing()


def create(bucket: Bucket, files: Mapping[str, Any]) -> None:
    """Write a new store's first objects, the description last.

    Parameters
    ----------
    bucket : Bucket
    files : mapping
        Names of objects to Zarr's buffers.

    Raises
    ------
    UserError
        If something is there already, somebody else makes a store there, or the server does not let us.
    """
    with claims.held(bucket) as require:
        if bucket.exists():
            raise UserError(f"another process has just made {short(str(bucket))}: run the same command again")
        own = tuple(f"{part}/c." for part in PARTS)
        strays = [one.name for one in bucket.list() if one.name.startswith((f"{FOLDER}/", *own))]
        if strays:
            raise UserError(
                f"{short(str(bucket))} holds tiles without a store ({short(strays[0])}): remove them, or use "
                "another compute.store"
            )
        for name in sorted(files, key="zarr.json".__eq__):
            require()
            bucket.put(name, files[name].to_bytes())
