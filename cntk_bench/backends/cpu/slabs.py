"""Which entries the CPU's recursion computes side by side, and the arrays that it needs for them."""

from collections.abc import Sequence

import numpy as np

from cntk_bench.backends.cpu.lanes import LANES

Array = np.ndarray

SHORTEST = 32  # entries of a row, at least, if there are that many


def slabs(P: int, places: Sequence[tuple[int, int]]) -> tuple[Array, Array, Array]:
    """Group rectangles into slabs, computed side by side: their longer rows lower the cost per row.

    Parameters
    ----------
    P : int
    places : sequence of (a, b)
        Displacements, -P < a, b < P.

    Returns
    -------
    slabs : array (s, 5), int64
        For each slab its a; the range of `columns` that are its rows' slots, (first, end); and the range of
        `ends` that are its own, likewise. Up to max(P, SHORTEST) slots of a row are entries; P is as many as
        those of b and b - P together.
    columns : array (w, 2), int64
        For each slot its column in x and in z, or -1 for the spare slot before each rectangle, which belongs
        to no entry and lets all entries be computed in the same way.
    ends : array, int64
        For each slab: 0, and the number of slots up to the end of each of its rectangles.
    """
    found: list[list[int]] = []
    columns: list[tuple[int, int]] = []
    ends: list[int] = []
    for a in sorted({a for a, _ in places}):
        room = 0
        for b in sorted((b for row, b in places if row == a), key=lambda b: (b % P, b)):
            w = P - abs(b)
            if w > room:
                found.append([a, len(columns), 0, len(ends), 0])
                ends.append(0)
                room = max(P, SHORTEST)
            columns += [(-1, -1)] + [(max(0, -b) + j, max(0, b) + j) for j in range(w)]
            ends.append(ends[-1] + w + 1)
            found[-1][2], found[-1][4] = len(columns), len(ends)
            room -= w
    return np.array(found), np.array(columns), np.array(ends)


def width_of(slabs: Array) -> int:
    """Number of slots in the longest row."""
    return int((slabs[:, 2] - slabs[:, 1]).max())


def room_of(
    P: int, width: int, channels: int, layers: int, wide: type, trained: int, reads: int, pools: int
) -> tuple:
    """Zeroed arrays for one call of `planes.recursion`: `room`, S, T and T2, of which `trained` are not None.

    width : as returned by `width_of`
    wide : dtype of S, n and n - S
    """
    pixels = P * P * LANES
    row, plane = width * LANES, (P + 1) * width * LANES
    rows = tuple(aligned(row) for _ in range(4))
    rings = aligned(2 * row, wide), aligned(2 * row), aligned(2 * row)
    of_z = aligned(channels * pixels, wide), aligned(layers * pixels, wide)
    of_pools = np.zeros((pools, P)), np.zeros((pools, width), np.float32)
    T, T2 = (aligned(plane) if trained > number else None for number in range(2))
    return (rows, rings, *of_z, *of_pools, np.zeros(reads * LANES)), aligned(plane, wide), T, T2


def aligned(size: int, dtype: type = np.float32) -> Array:
    """An array of zeros that begins at the boundary of a cache line."""
    array: Array = np.zeros(size + 16, dtype)
    return array[-array.ctypes.data % 64 // array.itemsize :][:size]
