"""Whole matrices out of a store, assembled tile by tile: peak memory is the result and a few tiles."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.grams.store import Store
from cntk_bench.grams.tiles import Plan, Tile
from cntk_bench.text import short


def matrix(
    store: Store,
    part: str,
    readout: object,
    dtype: Any = np.float64,
    *,
    triangle: str = "both",
    sizes: tuple[int, int] | None = None,
) -> np.ndarray:
    """One whole matrix.

    Parameters
    ----------
    store : Store
    part : {"train", "test"}
    readout : Readout or str
        As for `Store.index`.
    dtype : dtype
    triangle : {"both", "lower"}
        Of "train": with "lower", what lies above the diagonal's tiles stays 0; the solve needs no more.
    sizes : (n_train, n_test), optional
        Of the first images only; all by default.

    Returns
    -------
    array (n_train | n_test, n_train)
        Rows of "test" are test images.

    Raises
    ------
    UserError, VerificationError
        If a tile is not done, cannot be read, or is damaged.
    """
    plan = _view(store, sizes)
    out = np.zeros((plan.size(part), plan.n_train), dtype)
    _assemble(store, plan, out, 0, plan.tiles(part), store.index(readout))
    for tile in plan.tiles(part) if (part, triangle) == ("train", "both") else ():
        rows, cols = tile.rows(plan), tile.cols(plan)
        out[cols, rows] = out[rows, cols].T
    return out


def row_blocks(
    store: Store, readout: object, dtype: Any = np.float64, *, sizes: tuple[int, int] | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """The test x train matrix a block of test images at a time: (rows, array (h, n_train)).

    Parameters, errors: as for `matrix`.
    """
    plan, index = _view(store, sizes), store.index(readout)
    for row in range(plan.blocks("test")):
        rows = plan.block("test", row)
        out = np.empty((rows.stop - rows.start, plan.n_train), dtype)
        tiles = [Tile("test", row, col) for col in range(plan.blocks("train"))]
        _assemble(store, plan, out, rows.start, tiles, index)
        yield rows, out


def require_done(store: Store, readout: object, sizes: tuple[int, int] | None = None) -> None:
    """UserError if something is not computed yet that the matrices of a readout need."""
    plan, index = _view(store, sizes), store.index(readout)
    missing = len(store.progress.missing([index], (plan.n_train, plan.n_test)))
    if missing:
        raise UserError(
            f"{missing} of {plan.count} tiles of {short(str(store.path))} are not computed yet for "
            f"{store.readouts[index]}: run `compute`"
        )


def _view(store: Store, sizes: tuple[int, int] | None) -> Plan:
    """The store's plan, cut to the first images of either set: the same tiles, smaller at the end."""
    n_train, n_test = sizes or store.sizes
    if n_train > store.plan.n_train or n_test > store.plan.n_test:
        raise UserError(
            f"{short(str(store.path))} has {store.plan.n_train} training and {store.plan.n_test} test "
            f"images, not {n_train} and {n_test}: run `compute` for more"
        )
    return Plan(n_train, n_test, store.plan.tile, store.plan.readouts)


def _assemble(
    store: Store, plan: Plan, out: np.ndarray, first: int, tiles: Sequence[Tile], readout: int
) -> None:
    """Read tiles, several at a time, into `out`, whose row 0 is row `first` of the whole."""

    def place(tile: Tile) -> None:
        rows, cols = tile.rows(plan), tile.cols(plan)
        block = store.read(tile, [readout])[0]
        out[rows.start - first : rows.stop - first, cols] = block[
            : rows.stop - rows.start, : cols.stop - cols.start
        ]

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(place, tiles):
            pass
