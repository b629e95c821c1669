"""Division of Gram matrices into square tiles: geometry, symmetry and sizes, without numbers or I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np

from cntk_bench.errors import UserError

FEWEST, MOST = 100, 20_000  # tiles of a whole computation, roughly
LIMIT = 1_000_000  # tiles of a store, at most: opening it then takes seconds
FILES = 1_000_000  # files of a new store, at most: one per tile and readout
PARTS = ("train", "test")
SMALLEST, LARGEST = 16, 1024  # images along one side of a tile


@dataclass(frozen=True)
class Tile:
    """One block of a Gram matrix: the unit of work, of storage and of resuming.

    Parameters
    ----------
    part : {"train", "test"}
        "train" is train x train, of which only the tiles with row >= col exist; "test" is
        test x train.
    row, col : int
        Block indices; block k of a set holds its images k * tile .. (k + 1) * tile - 1.
    """

    part: str
    row: int
    col: int

    @property
    def diagonal(self) -> bool:
        """Whether the tile lies on the diagonal of train x train: symmetric, half computed."""
        return self.part == "train" and self.row == self.col

    def rows(self, plan: "Plan") -> slice:
        """Row images: indices into the training set, or the test set for part "test"."""
        return plan.block(self.part, self.row)

    def cols(self, plan: "Plan") -> slice:
        """Column images: indices into the training set."""
        return plan.block("train", self.col)

    def shape(self, plan: "Plan") -> tuple[int, int, int]:
        """Shape (readouts, h, w) of the tile's numbers; smaller at the ragged ends."""
        rows, cols = self.rows(plan), self.cols(plan)
        return plan.readouts, rows.stop - rows.start, cols.stop - cols.start

    def pairs(self, plan: "Plan") -> int:
        """Number of pairs of images to compute."""
        _, h, w = self.shape(plan)
        return h * (h + 1) // 2 if self.diagonal else h * w

    def __str__(self) -> str:
        return f"{self.part}-{self.row}-{self.col}"


@dataclass(frozen=True)
class Plan:
    """Division of the matrices train x train and test x train into tiles.

    Parameters
    ----------
    n_train, n_test : int
        Images in the two sets; n_test may be 0.
    tile : int
        Images along one side of a tile; the last tile of a row or column may be smaller.
    readouts : int
        Numbers kept for each pair.
    draws : int
        Number of equally large draws that the training images consist of, one after another; only pairs
        within a draw matter. `tiles`, `count`, `pairs` and `bytes` consider only tiles that hold such a
        pair; a tile's name and number do not depend on the draws.

    Raises
    ------
    UserError
        If a count is too small, the draws are not equally large, or there would be more than `LIMIT` tiles.
    """

    n_train: int
    n_test: int
    tile: int
    readouts: int
    draws: int = 1

    def __post_init__(self) -> None:
        for name, least in (("n_train", 1), ("n_test", 0), ("tile", 1), ("readouts", 1), ("draws", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name} {value!r} is not possible: use an integer of at least {least}")
        if self.n_train % self.draws:
            raise UserError(
                f"{self.n_train} images cannot be {self.draws} draws of equally many: take another"
            )
        self._require_at_most(LIMIT)

    def require_few_files(self) -> None:
        """Raise UserError if the plan makes too many files for a new store."""
        self._require_at_most(max(1, FILES // self.readouts))

    def _require_at_most(self, tiles: int) -> None:
        if _count(self.n_train, self.n_test, self.tile) > tiles:
            side = max(self.tile, isqrt(_count(self.n_train, self.n_test, 1) // tiles) // 8 * 8)
            while _count(self.n_train, self.n_test, side) > tiles:
                side = (side + max(8, side // 500)) // 8 * 8
            count = _count(self.n_train, self.n_test, self.tile)
            raise UserError(
                f"compute.tile {self.tile} makes {count:,} tiles, each a file per readout: "
                f"use at least {side}"
            )

    def size(self, part: str) -> int:
        """Number of images along the rows of a part."""
        return self.n_train if part == "train" else self.n_test

    def blocks(self, part: str) -> int:
        """Number of blocks along the rows of a part."""
        return -(-self.size(part) // self.tile)

    def block(self, part: str, index: int) -> slice:
        """The slice of images in a block."""
        return slice(index * self.tile, min((index + 1) * self.tile, self.size(part)))

    @property
    def count(self) -> int:
        """Number of tiles of both parts."""
        rows = np.arange(self.blocks("train"))
        return int((rows - self.first_col(rows) + 1).sum()) + self.count_of("test")

    def first_col(self, row: Any) -> Any:
        """The first column of "train" in which a row, or each of an array of rows, has a tile.

        It holds the first image of the draw to which the row's first image belongs.
        """
        draw = self.n_train // self.draws
        return row * self.tile // draw * draw // self.tile

    def tiles(self, part: str | None = None) -> list[Tile]:
        """Tiles in computing order, of one part or of both.

        Row by row, so that neighbours in the list share their row's images, and the Gram of the
        first images is complete first.
        """
        return [tile for one in PARTS if part in (None, one) for tile in self._tiles(one)]

    def _tiles(self, part: str) -> Iterator[Tile]:
        for row in range(self.blocks(part)):
            train = part == "train"
            for col in range(self.first_col(row) if train else 0, row + 1 if train else self.blocks("train")):
                yield Tile(part, row, col)

    def count_of(self, part: str) -> int:
        """Number of tiles of one part, whatever the draws."""
        rows = self.blocks(part)
        return rows * (rows + 1) // 2 if part == "train" else rows * self.blocks("train")

    def tile_at(self, part: str, number: int) -> Tile:
        """The tile with this number in its part; the inverse of `number`."""
        if part == "test":
            return Tile(part, *divmod(number, self.blocks("train")))
        row = (isqrt(8 * number + 1) - 1) // 2
        return Tile(part, row, number - row * (row + 1) // 2)

    def number(self, tile: Tile) -> int:
        """The number of a tile in its part, from 0, in computing order.

        Raises
        ------
        KeyError
            If the plan has no such tile.
        """
        last = tile.row if tile.part == "train" else self.blocks("train") - 1
        if not (0 <= tile.row < self.blocks(tile.part) and 0 <= tile.col <= last):
            raise KeyError(tile)
        return self.numbers(tile.part, tile.row, tile.col)

    def numbers(self, part: str, row: Any, col: Any) -> Any:
        """Like `number`, for the row and col of one tile, or arrays of them; they are not checked."""
        return (row * (row + 1) // 2 if part == "train" else row * self.blocks("train")) + col

    @property
    def pairs(self) -> int:
        """Number of pairs of images to compute in all tiles: half of train x train, with its diagonal."""
        return self.computed(1)

    def computed(self, together: int) -> int:
        """Like `pairs`, if columns of a tile are computed in groups of `together`, needed or not."""
        rows = np.arange(self.blocks("train"))
        heights = np.minimum((rows + 1) * self.tile, self.n_train) - rows * self.tile
        widths = -(-heights // together) * together
        before = np.concatenate([[0], widths.cumsum()])
        left = before[rows] - before[self.first_col(rows)]  # columns to the left of the diagonal's tile
        return int((heights * left + half(heights, together)).sum()) + self.n_test * int(before[-1])

    @property
    def wasted(self) -> int:
        """Number of `pairs` between two draws, in tiles that extend beyond the end of a draw."""
        draw = self.n_train // self.draws
        return self.pairs - self.draws * draw * (draw + 1) // 2 - self.n_test * self.n_train

    @property
    def bytes(self) -> int:
        """Bytes on disk: a float32 chunk of full size and a checksum for each tile and readout."""
        return self.count * self.readouts * self.chunk_bytes

    @property
    def chunk_bytes(self) -> int:
        """Bytes on disk of a tile's numbers for one readout."""
        return 4 * self.tile**2 + 4


def half(heights: np.ndarray, together: int) -> np.ndarray:
    """Pairs computed in tiles on the diagonal with so many rows: of a row, groups up to the diagonal."""
    full, rest = np.divmod(heights, together)  # rows, in groups
    return together * (together * (full * (full + 1) // 2) + rest * (full + 1))


def _count(n_train: int, n_test: int, tile: int) -> int:
    """Number of tiles of both parts; with a tile of 1, number of pairs."""
    rows, below = -(-n_train // tile), -(-n_test // tile)
    return rows * (rows + 1) // 2 + below * rows


def auto_tile(n_train: int, n_test: int, work: int, tile_work: int, draws: int = 1, together: int = 1) -> int:
    """Choose the side of a tile, from sizes and the backend only, so that any machine can resume a store.

    A tile holds a few seconds of work: little is lost by an interruption, and the overhead of a tile
    (a few milliseconds) is negligible. Two bounds take precedence: a computation has at least about
    100 tiles, to show progress and to resume, and at most about 20,000, because each tile is a file
    per readout. The side is a multiple of 16, between 16 and 1,024, so that a
    block's images and a tile's numbers stay within some 100 MB.

    With several draws, it is one of the sides from half of that to that, or a draw's own size: the side with
    the fewest unneeded pairs, and of equally good ones the largest. Unneeded pairs are those between draws,
    in tiles that extend beyond a draw's end, and the padding of sides that are no multiple of 16.

    Parameters
    ----------
    n_train, n_test : int
        Images in the two sets.
    work : int
        Work of one pair in entry-layers: layers x displacements x size^2 (2.1e7 for GAP at 32x32
        and depth 21, 2e4 for V).
    tile_work : int
        Entry-layers that a tile should hold.
    draws : int
        As for `Plan`.
    together : int
        Columns that the backend computes at once. Where it does not divide 16, its smallest multiple above 16
        takes the place of 16 here.

    Returns
    -------
    int
        Images along one side of a tile.
    """
    draw = n_train // draws
    pairs = draws * _count(draw, 0, 1) + n_train * n_test
    area = max(min(tile_work // work, pairs // FEWEST), pairs // MOST)
    step = -(-SMALLEST // together) * together
    nearest = (isqrt(area) + step // 2) // step * step
    side = max(step, min(nearest, LARGEST // step * step))
    if draws == 1:
        return side
    sides = {min(draw, side), *range(max(side // 2, SMALLEST), side + 1)}
    return min(
        sorted(sides, reverse=True),
        key=lambda tile: Plan(n_train, n_test, tile, 1, draws).computed(step),
    )
