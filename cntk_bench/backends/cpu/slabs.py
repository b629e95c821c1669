"""Which entries the CPU's recursion computes side by side, and the arrays that it needs for them."""

from collections.abc import Sequence

import numpy as np

from cntk_bench.backends.cpu.lanes import LANES

Array = np.ndarray

SHORTEST = 32  # entries of a row, at least, where there are so many


def slabs(P: int, places: Sequence[tuple[int, int]], wide: type) -> tuple[Array, Array, tuple]:
    """Rectangles in slabs, computed side by side, so that rows are long: what is done for a row counts less.

    Parameters
    ----------
    P : int
    places : sequence of (a, b)
        Displacements, -P < a, b < P.
    wide : dtype of S

    Returns
    -------
    slabs : array (s, 3), int64
        Of each its a, and which entries its rows have: the first and the one after the last. They are up to
        max(P, SHORTEST), as many as those of b and b - P together.
    columns : array (w, 2), int64
        Of each entry its column in x and in z.
    edges : pair of pairs of arrays (w,)
        Whether it has a neighbour to the left, and to the right, in its rectangle: 1 or 0, in S's dtype and
        in float32.
    """
    found: list[list[int]] = []
    columns: list[tuple[int, int]] = []
    edges: list[tuple[int, int]] = []
    for a in sorted({a for a, _ in places}):
        room = 0
        for b in sorted((b for row, b in places if row == a), key=lambda b: (b % P, b)):
            w = P - abs(b)
            if w > room:
                found.append([a, len(columns), 0])
                room = max(P, SHORTEST)
            columns += [(max(0, -b) + j, max(0, b) + j) for j in range(w)]
            edges += [(int(j > 0), int(j < w - 1)) for j in range(w)]
            found[-1][2] = len(columns)
            room -= w
    left, right = (np.array(side) for side in zip(*edges, strict=True))
    both: tuple = tuple((left.astype(dtype), right.astype(dtype)) for dtype in (wide, np.float32))
    return np.array(found), np.array(columns), both


def room_of(P: int, channels: int, layers: int, wide: type, trained: int, reads: int, pools: int) -> tuple:
    """Arrays for one call of `planes.recursion`, zero: `room`, S, T and T2, of which `trained` are not None.

    wide : dtype of S, n and n - S
    """
    width, pixels = max(P, SHORTEST), P * P * LANES
    row, plane = width * LANES, (P + 1) * width * LANES
    rows = tuple(aligned(row) for _ in range(4))
    rings = aligned(2 * row, wide), aligned(2 * row), aligned(2 * row)
    of_z = aligned(channels * pixels, wide), aligned(layers * pixels, wide)
    of_pools = np.zeros((pools, P)), np.zeros((pools, width), np.float32)
    T, T2 = (aligned(plane) if trained > number else None for number in range(2))
    return (rows, rings, *of_z, *of_pools, np.zeros(reads * LANES)), aligned(plane, wide), T, T2


def aligned(size: int, dtype: type = np.float32) -> Array:
    """Zeros that begin where a line of the cache does."""
    array: Array = np.zeros(size + 16, dtype)
    return array[-array.ctypes.data % 64 // array.itemsize :][:size]
