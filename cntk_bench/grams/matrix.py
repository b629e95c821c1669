"""Whole matrices read from a store, tile by tile: peak memory is the result and a few tiles.

If a training image occurs twice, both copies get the numbers of the first (`repeats`).
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.grams import image_facts, repeats
from cntk_bench.grams.tiles import PARTS, Plan, Tile
from cntk_bench.text import short

if TYPE_CHECKING:
    from cntk_bench.grams.store import Store

Draw = tuple[int, int]  # (d, draws): the draw number d = 0 .. draws-1
ONE: Draw = (0, 1)


def matrix(
    store: "Store",
    part: str,
    readout: object,
    dtype: Any = np.float64,
    *,
    triangle: str = "both",
    sizes: tuple[int, int] | None = None,
    draw: Draw = ONE,
) -> np.ndarray:
    """Read one whole matrix.

    Parameters
    ----------
    store : Store
    part : {"train", "test"}
    readout : Readout or str
        As for `Store.index`.
    dtype : dtype
    triangle : {"both", "lower"}
        For "train": with "lower", tiles above the diagonal ones stay 0, which is enough for a solve.
    sizes : (n_train, n_test), optional
        Read only the first images of either set; all by default.
    draw : (d, draws)
        Read only the draw d = 0 .. draws-1 of these training images.

    Returns
    -------
    array (n_train / draws | n_test, n_train / draws)
        Rows of "test" are test images.

    Raises
    ------
    UserError, VerificationError
        If the part is neither, or a tile is not done, cannot be read, or is damaged.
    """
    if part not in PARTS:
        raise UserError(f"part {short(repr(part))} is unknown: use {' or '.join(map(repr, PARTS))}")
    plan = view(store, sizes, draw[1])
    cols = images(plan, draw)
    rows = cols if part == "train" else slice(0, plan.n_test)
    out = np.zeros((rows.stop - rows.start, cols.stop - cols.start), dtype)
    tiles = [
        tile for tile in plan.tiles(part) if _meet(tile.rows(plan), rows) and _meet(tile.cols(plan), cols)
    ]
    _assemble(store, plan, out, rows, cols, tiles, store.index(readout))
    leader = leaders(store, plan, draw)
    if part == "test":
        repeats.share_columns(out, leader)
        return out
    repeats.share(out, leader)
    for tile in tiles if triangle == "both" else ():
        down, right = _within(tile.rows(plan), rows), _within(tile.cols(plan), cols)
        block = out[down, right]
        out[right, down] = np.tril(block).T + np.tril(block, -1) if tile.diagonal else block.T
    return out


def row_blocks(
    store: "Store",
    readout: object,
    dtype: Any = np.float64,
    *,
    sizes: tuple[int, int] | None = None,
    draw: Draw = ONE,
    threads: int | None = None,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the test x train matrix by blocks of test images: (rows, array (h, n_train / draws)).

    Parameters and errors are as for `matrix`. At most `threads` threads read, each a tile; the default is
    that of `ThreadPoolExecutor`.
    """
    plan, index = view(store, sizes, draw[1]), store.index(readout)
    cols, leader = images(plan, draw), leaders(store, plan, draw)
    for row in range(plan.blocks("test")):
        rows = plan.block("test", row)
        out = np.empty((rows.stop - rows.start, cols.stop - cols.start), dtype)
        tiles = [Tile("test", row, col) for col in range(cols.start // plan.tile, -(-cols.stop // plan.tile))]
        _assemble(store, plan, out, rows, cols, tiles, index, threads)
        repeats.share_columns(out, leader)
        yield rows, out


def require_done(
    store: "Store", readout: object, sizes: tuple[int, int] | None = None, draws: int = 1
) -> None:
    """Raise UserError if a tile that a readout's matrices need, in any of the draws, is not computed yet."""
    plan, index = view(store, sizes, draws), store.index(readout)
    missing = len(store.progress.missing([index], (plan.n_train, plan.n_test), draws))
    if missing:
        raise UserError(
            f"{missing} of {plan.count} tiles of {short(str(store.path))} are not computed yet for "
            f"{store.readouts[index]}: run `compute`"
        )


def fingerprint(store: "Store", readout: object, sizes: tuple[int, int] | None = None, draws: int = 1) -> str:
    """SHA-256 (hex) that identifies the stored numbers of a readout's matrices, by their tiles' digests.

    It is equal for stores that hold the same bits in the same tiles. It depends on the tiles' side, and on
    images beyond `sizes` in the last tiles. Only journals are read.
    """
    plan, index = view(store, sizes, draws), store.index(readout)
    found = hashlib.sha256(f"{store.readouts[index]} {plan.tile}\n".encode())
    for tile in plan.tiles():
        digests = sorted(store.progress.digests(tile, index))
        found.update(f"{tile} {store.progress.shape(tile, index)} {digests}\n".encode())
    return found.hexdigest()


def view(store: "Store", sizes: tuple[int, int] | None, draws: int) -> Plan:
    """The store's plan cut to the first images of either set: the same tiles, the last ones smaller."""
    n_train, n_test = sizes or store.sizes
    if n_train > store.plan.n_train or n_test > store.plan.n_test:
        raise UserError(
            f"{short(str(store.path))} has {store.plan.n_train} training and {store.plan.n_test} test "
            f"images, not {n_train} and {n_test}: run `compute` for more"
        )
    return Plan(n_train, n_test, store.plan.tile, store.plan.readouts, draws)


def images(plan: Plan, draw: Draw) -> slice:
    """The slice of training images in a draw."""
    number, size = draw[0], plan.n_train // draw[1]
    return slice(number * size, (number + 1) * size)


def leaders(store: "Store", plan: Plan, draw: Draw) -> np.ndarray | None:
    """`repeats.leaders` for the training images of a draw."""
    known = image_facts.read(store.path, store.group, "digests", (plan.n_train, plan.n_test))
    return repeats.leaders(known and known[0][images(plan, draw)])


def _meet(one: slice, other: slice) -> bool:
    return one.start < other.stop and other.start < one.stop


def _within(one: slice, whole: slice) -> slice:
    """The part of `one` within `whole`, relative to the start of `whole`."""
    return slice(max(one.start, whole.start) - whole.start, min(one.stop, whole.stop) - whole.start)


def put(out: np.ndarray, block: np.ndarray, whole: tuple[slice, slice], part: tuple[slice, slice]) -> None:
    """Copy a block of the rows and columns `part` into `out`, which holds those of `whole`; clip the rest."""
    into = tuple(map(_within, part, whole))
    out[into] = block[tuple(map(_within, whole, part))]


def _assemble(
    store: "Store",
    plan: Plan,
    out: np.ndarray,
    rows: slice,
    cols: slice,
    tiles: Sequence[Tile],
    readout: int,
    threads: int | None = None,
) -> None:
    """Read tiles, several at a time, into `out`, which holds these rows and columns of the matrix."""

    def place(tile: Tile) -> None:
        put(out, store.read(tile, [readout])[0], (rows, cols), (tile.rows(plan), tile.cols(plan)))

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(place, tiles):
            pass
