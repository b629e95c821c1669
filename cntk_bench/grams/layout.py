"""Vectorized functions of many tiles of a plan, given as arrays of tile numbers (`Plan.number`)."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cntk_bench.grams.tiles import Plan, half


def places(plan: Plan, part: str, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, cols), int64, of tiles; the vectorized `Plan.tile_at`."""
    if part == "test":
        return np.divmod(numbers, max(1, plan.blocks("train")))
    rows = ((np.sqrt(8.0 * numbers + 1) - 1) / 2).astype(np.int64)  # exact: numbers are far below 2^50
    return rows, numbers - rows * (rows + 1) // 2


def shapes(
    plan: Plan, part: str, numbers: np.ndarray, sizes: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(h, w), int64: tiles' numbers of images on either side, out of the first `sizes` (default: all)."""
    n_train, n_test = sizes or (plan.n_train, plan.n_test)
    rows, cols = places(plan, part, numbers)
    most = n_train if part == "train" else n_test
    return np.minimum(most - rows * plan.tile, plan.tile), np.minimum(n_train - cols * plan.tile, plan.tile)


def pairs(
    plan: Plan, part: str, numbers: np.ndarray, sizes: tuple[int, int] | None = None, together: int = 1
) -> np.ndarray:
    """Number of pairs to compute for each tile, int64, out of the first `sizes` images (default: all).

    The vectorized `Tile.pairs`, if columns are computed in groups of `together`, needed or not.
    """
    h, w = shapes(plan, part, numbers, sizes)
    full = h * (-(-w // together) * together)
    if part == "test":
        return full
    rows, cols = places(plan, part, numbers)
    return np.where(rows == cols, half(h, together), full)


def within(plan: Plan, part: str, sizes: tuple[int, int] | None, draws: int = 1) -> np.ndarray:
    """Numbers of the tiles that hold a pair of the first n_train training and n_test test images.

    If the training images are several draws (`Plan`), pairs between two draws do not count.
    """
    numbers = np.arange(plan.count_of(part))
    if sizes is None and draws == 1:
        return numbers
    sizes = sizes or (plan.n_train, plan.n_test)
    rows, below = (-(-size // plan.tile) for size in sizes)
    if part == "train":
        numbers = numbers[: rows * (rows + 1) // 2]
        if draws == 1:
            return numbers
        across, cols = places(plan, part, numbers)
        return numbers[cols >= replace(plan, n_train=sizes[0], draws=draws).first_col(across)]
    return numbers.reshape(-1, plan.blocks("train"))[:below, :rows].ravel()


def share(numbers: Mapping[str, np.ndarray], i: int, n: int) -> dict[str, np.ndarray]:
    """The i-th of n shares (from 1) of tile numbers by part: contiguous, and as equal as possible."""
    total = sum(map(len, numbers.values()))
    first, last = total * (i - 1) // n, total * i // n
    found = {}
    for part, some in numbers.items():
        found[part] = some[max(first, 0) : max(last, 0)]
        first, last = first - len(some), last - len(some)
    return found
