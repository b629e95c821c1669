"""A Gram store on an S3-compatible server: the same Zarr group as on disk, with the same rules.

    zarr.json, train/, test/, y_train/, ...   as on disk, an object for each file; Zarr over obstore
    journals/*                                lines of finished tiles (`segments`)
    lock, writers/*                           processes that change the store or compute (`claims`)

An object is stored whole or not at all, so nothing is half written. A tile is done once its line is stored,
which is sent after the server has accepted all of the tile's chunks. The description, zarr.json, is written
last when a store is made or grows. Before each tile and each line a writer checks that it has not changed,
and ends if it has; anything that an old writer sends later than that fails its digest.
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

SENDING = 8  # chunks of a tile sent at the same time


class ObjectChunks(Chunks):
    """The arrays of a store in an object store; see `Chunks`."""

    def _place(self, path: Any) -> None:
        self.bucket = path

    def resize(self, plan: Plan) -> None:
        with self.bucket.reaching():
            super().resize(plan)

    def write(self, tile: Tile, readouts: Sequence[int], block: np.ndarray) -> None:
        """Send a tile's numbers, (readouts, h, w) float32; they are stored once this returns."""

        def send(readout: int, plane: np.ndarray) -> None:
            with self.bucket.reaching():
                self._put(tile, readout, plane)

        with ThreadPoolExecutor(min(SENDING, len(readouts))) as pool:
            list(pool.map(send, readouts, block))

    def read(self, tile: Tile, readout: int) -> tuple[np.ndarray | None, str | None]:
        """Like `Chunks.read`; a missing chunk reads as NaN."""
        try:
            with self.bucket.reaching():
                return self._arrays[tile.part][readout, tile.rows(self.plan), tile.cols(self.plan)], None
        except ValueError as error:  # a checksum, or a chunk of a wrong length
            return None, one_line(f"{type(error).__name__}: {error}", 120)
        except UserError as error:
            raise Unreadable(f"tile {tile} cannot be read now: {error}") from None

    def remove_partial(self) -> None:
        """Do nothing, since no object is ever half written."""


class ObjectStore(Store):
    """A store in an object store: a `Store` whose path is a `Bucket`."""

    path: Bucket

    def _opened(self, plan: Plan) -> tuple[Any, Chunks]:
        with self.path.reaching():
            group = zarr.open_group(
                zarr.storage.ObjectStore(self.path.client()), mode="r+", zarr_format=3, use_consolidated=False
            )
            return group, ObjectChunks(self.path, group, plan)

    def writers(self) -> list[str]:
        """Like `Store.writers`."""
        return sorted(claims.alive(self.path) & writers_of(self.path))

    def among(self) -> tuple[int, int]:
        """Like `Store.among`; recently killed processes count, too."""
        names = sorted(claims.signs(self.path) | {self._writing().name})
        return names.index(self._writing().name), len(names)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the exclusive right to change the store; UserError if another process writes or changes it."""
        with claims.held(self.path) as require:
            with self._writer(writer_name()):
                self._required = require
                try:
                    yield
                finally:
                    self._required = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Register as a writer of tiles, of which there may be many.

        Can be nested, also within `alone`. UserError if another process changes the store.
        """
        if self._journal is not None and self._journal.process == os.getpid():
            yield
            return
        name = writer_name()
        with claims.present(self.path, name):  # first, so that a process that takes the lock sees us
            claims.require_free(self.path)
            with self._writer(name):
                yield

    def _begun(self, name: str) -> dict:
        found, tag = description.read_tagged(self.path)
        self._journal = Segments(self.path, name, tag)
        return found

    _required: Any = None  # function that raises UserError if the lock was lost

    def _writing(self) -> Any:
        if self._required is not None:
            self._required()
        return super()._writing()


def create(bucket: Bucket, files: Mapping[str, Any]) -> None:
    """Write the objects of a new store, the description last.

    Parameters
    ----------
    bucket : Bucket
    files : mapping
        Object name -> Zarr buffer.

    Raises
    ------
    UserError
        If there is already a store or remains of one, another process makes one, or writing fails.
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
        for name, content in files.items():
            if name != "zarr.json":
                require()
                bucket.put(name, content.to_bytes())
        require()
        put_description(bucket, files["zarr.json"].to_bytes(), None)


def put_description(bucket: Bucket, content: bytes, tag: str | None) -> None:
    """Write a store's description if it still has a tag, or, for None, if there is none.

    Raises
    ------
    UserError
        If another process has written it: one that took our lock while we were suspended.
    """
    try:
        if bucket.put_if("zarr.json", content, tag) is not None:
            return
    except NotImplementedError:  # a server without conditional writes, of which `claims` has warned
        bucket.put("zarr.json", content)
        return
    found = bucket.get("zarr.json")
    if found is None or found[0] != content:  # else an earlier try had written it, and its answer was lost
        raise description.changed(bucket)
