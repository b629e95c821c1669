"""Matrices read from a store piece by piece, for use where memory does not suffice for whole ones.

A piece is a square of tiles, about `SIDE` images wide; two are read ahead. Apart from a row of test tiles,
peak memory (`memory`) does not depend on the number of images.
"""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cntk_bench.grams import matrix
from cntk_bench.grams.chunks import Unreadable
from cntk_bench.grams.matrix import ONE, Draw
from cntk_bench.grams.tiles import Plan, Tile
from cntk_bench.text import short

if TYPE_CHECKING:
    from cntk_bench.grams.store import Store

SIDE = 1024  # images along a side of a piece, about; a tile may be larger
AHEAD = 2  # pieces read ahead, by as many threads
ENTRIES = 2**20  # numbers in a block of test rows, in float64, unless one row has more


class Stored:
    """The train matrix of a readout, as a stream of its lower triangle (`regression.stream`).

    Parameters
    ----------
    store : Store
    readout : Readout or str
        As for `Store.index`.
    sizes, draw
        As for `matrix.matrix`.

    Raises
    ------
    UserError, VerificationError
        While it is read, if a tile is not done, cannot be read, or is damaged. Tiles' digests are checked
        only until the first complete pass is over, the chunks' own checksums always, and that there are
        numbers: a chunk whose file is gone would be read as NaN.
    """

    def __init__(
        self,
        store: "Store",
        readout: object,
        *,
        sizes: tuple[int, int] | None = None,
        draw: Draw = ONE,
    ) -> None:
        self._store, self._index = store, store.index(readout)
        self._plan = matrix.view(store, sizes, draw[1])
        self._images, self._draw = matrix.images(self._plan, draw), draw
        self._checked = False

    @property
    def n(self) -> int:
        """Number of training images."""
        return self._images.stop - self._images.start

    @cached_property
    def leader(self) -> np.ndarray | None:
        """`repeats.leaders` of the training images. `pieces` does not apply them to the tiles' numbers."""
        return matrix.leaders(self._store, self._plan, self._draw)

    @cached_property
    def identity(self) -> str:
        """Digest of all tiles' digests, of which images in them are used, and of which of these are equal."""
        found = hashlib.sha256(
            f"{self._plan.tile} {self._images} {self._store.readouts[self._index]}".encode()
        )
        for rows, cols in self._places():
            for tile in self._tiles(rows, cols):
                digests = sorted(self._store.progress.digests(tile, self._index))
                found.update(f" {tile} {digests}".encode())
        if self.leader is not None:
            found.update(self.leader.astype("<i8").tobytes())
        return found.hexdigest()

    def pieces(self, diagonal: bool = False) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yield (rows, cols, float32 array (h, w)) row by row, counted from the draw's first image.

        Together, pieces cover the lower triangle. Those on the diagonal have equal rows and cols, and both
        halves; with `diagonal`, only these are yielded.
        """
        waiting: deque = deque()
        pool = ThreadPoolExecutor(AHEAD)
        try:
            for place in self._places(diagonal):
                waiting.append((*place, pool.submit(self._read, *place, not self._checked)))
                if len(waiting) > AHEAD:
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        finally:
            pool.shutdown(cancel_futures=True)
        self._checked = self._checked or not diagonal

    def _next(self, waiting: deque) -> tuple[slice, slice, np.ndarray]:
        rows, cols, block = waiting.popleft()
        first = self._images.start
        down, right = (slice(part.start - first, part.stop - first) for part in (rows, cols))
        return down, right, block.result()

    def _places(self, diagonal: bool = False) -> Iterator[tuple[slice, slice]]:
        """Yield pieces' rows and columns among all training images, on a grid aligned with the tiles."""
        side = _side(self._plan.tile)
        whole = self._images
        parts = [
            slice(max(start, whole.start), min(start + side, whole.stop))
            for start in range(whole.start // side * side, whole.stop, side)
        ]
        for i, rows in enumerate(parts):
            for cols in [rows] if diagonal else parts[: i + 1]:
                yield rows, cols

    def _tiles(self, rows: slice, cols: slice) -> Iterator[Tile]:
        tile = self._plan.tile
        for row in range(rows.start // tile, -(-rows.stop // tile)):
            for col in range(cols.start // tile, -(-cols.stop // tile)):
                if row >= col:
                    yield Tile("train", row, col)

    def _read(self, rows: slice, cols: slice, checked: bool) -> np.ndarray:
        out = np.empty((rows.stop - rows.start, cols.stop - cols.start), np.float32)
        for tile in self._tiles(rows, cols):
            down, right = tile.rows(self._plan), tile.cols(self._plan)
            block = self._store.read(tile, [self._index], checked=checked)[0]
            matrix.put(out, block, (rows, cols), (down, right))
            if rows == cols:
                matrix.put(out.T, block, (rows, cols), (down, right))
        if np.isnan(out.min()):
            raise Unreadable(
                f"rows {rows.start} to {rows.stop - 1}, columns {cols.start} to {cols.stop - 1} of the "
                f"training matrix in {short(str(self._store.path))} cannot be read now (numbers that were "
                "there are missing): mend that and run the same command again"
            )
        return out


def test_blocks(
    store: "Store", readout: object, *, sizes: tuple[int, int] | None = None, draw: Draw = ONE
) -> Iterator[np.ndarray]:
    """Yield the test x train matrix, float64, by blocks of rows: at most `ENTRIES` numbers, or one row.

    Parameters and errors are as for `matrix.matrix`.
    """
    blocks = matrix.row_blocks(store, readout, np.float32, sizes=sizes, draw=draw, threads=AHEAD)
    for _, block in blocks:
        rows = max(1, ENTRIES // block.shape[1])
        for start in range(0, len(block), rows):
            yield block[start : start + rows].astype(np.float64)


def memory(plan: Plan) -> int:
    """Bytes of memory needed to stream a plan's matrices, one after the other.

    Includes copies in float64 that the user of the stream may make: two of a piece, eight of test rows.
    """
    n, side = plan.n_train // plan.draws, _side(plan.tile)
    reading = 12 * AHEAD * plan.tile**2  # copies of a chunk: raw, without checksum, decoded
    pieces = (4 * (AHEAD + 1) + 2 * 8) * min(side, n) ** 2
    return reading + max(pieces, 4 * min(plan.tile, plan.n_test) * n + 8 * 8 * max(ENTRIES, n))


def _side(tile: int) -> int:
    return tile * max(1, SIDE // tile)
