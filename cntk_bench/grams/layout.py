"""Many tiles of a plan at once, by their numbers (`Plan.number`), as arrays."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cntk_bench.grams.tiles import Plan


def places(plan: Plan, part: str, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, cols), int64, of tiles; what `Plan.tile_at` gives of one."""
    if part == "test":
        return np.divmod(numbers, max(1, plan.blocks("train")))
    rows = ((np.sqrt(8.0 * numbers + 1) - 1) / 2).astype(np.int64)  # exact: numbers are far below 2^50
    return rows, numbers - rows * (rows + 1) // 2


def shapes(
    plan: Plan, part: str, numbers: np.ndarray, sizes: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(h, w), int64: how many images tiles have on either side, of the first `sizes`; all by default."""
    n_train, n_test = sizes or (plan.n_train, plan.n_test)
    rows, cols = places(plan, part, numbers)
    most = n_train if part == "train" else n_test
    return np.minimum(most - rows * plan.tile, plan.tile), np.minimum(n_train - cols * plan.tile, plan.tile)


def pairs(plan: Plan, part: str, numbers: np.ndarray) -> np.ndarray:
    """Pairs of images to compute of each, int64; what `Tile.pairs` says of one."""
    h, w = shapes(plan, part, numbers)
    if part == "test":
        return h * w
    rows, cols = places(plan, part, numbers)
    return np.where(rows == cols, h * (h + 1) // 2, h * w)


def within(plan: Plan, part: str, sizes: tuple[int, int] | None, draws: int = 1) -> np.ndarray:
    """Numbers of the tiles that hold a pair of the first n_train training and n_test test images.

    Of several draws of these training images (`Plan`), a pair of two draws does not count.
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
    """The i-th of n shares, from 1, of numbers of tiles by part: one stretch of them, as even as can be."""
    total = sum(map(len, numbers.values()))
    first, last = total * (i - 1) // n, total * i // n
    found = {}
    for part, some in numbers.items():
        found[part] = some[max(first, 0) : max(last, 0)]
        first, last = first - len(some), last - len(some)
    return found
