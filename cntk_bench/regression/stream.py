"""Symmetric matrices that are read piece by piece, again for each use, because they are larger than memory.

A source of such a matrix follows the protocol `Stream`. The functions here compute from it, in float64
whatever its pieces are, products, rows, the diagonal, and the checks that `ridge.solve` makes of a matrix in
memory. Each makes one pass over the pieces, and needs the memory of `PIECES` of them beside its result.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from cntk_bench.regression import checks

Piece = tuple[slice, slice, np.ndarray]
SIDE = 1024  # largest side of a piece, where that can be chosen
PIECES = 2  # pieces in float64 that an operation needs beside those it is given


class Stream(Protocol):
    """A symmetric matrix (n, n), and how its pieces are read.

    n : its size.
    identity : text that is the same only for the same numbers, by which work begun on them is recognised.
    leader : (n,) int64, for each row the one that stands for it, itself or an earlier one, whose row and
        column replace its own, whatever the pieces hold there; None if each stands for itself.
    """

    @property
    def n(self) -> int: ...  # noqa: D102

    @property
    def identity(self) -> str: ...  # noqa: D102

    @property
    def leader(self) -> np.ndarray | None: ...  # noqa: D102

    def pieces(self, diagonal: bool = False) -> Iterator[Piece]:
        """(rows, cols, array (h, w)), float32 or float64: each entry of the lower triangle in one piece.

        They come in the same order each time. A piece on the diagonal has equal rows and cols, and both of
        its halves; `diagonal` asks for those alone.
        """


def times(matrix: Stream, b: np.ndarray, squared: bool = False) -> np.ndarray:
    """K b for b (n, k), or if `squared` the product of K's squared entries; float64, one pass for all k."""
    if matrix.leader is not None:  # with L = the matrix that copies rows, L K L^T b
        b, given = np.zeros(b.shape), b
        np.add.at(b, matrix.leader, given)
    out = np.zeros(b.shape)
    for rows, cols, block in matrix.pieces():
        block = block.astype(np.float64, copy=False)
        if squared:
            block = block * block
        out[rows] += block @ b[cols]
        if rows != cols:
            out[cols] += block.T @ b[rows]
    return out if matrix.leader is None else out[matrix.leader]


def rows(matrix: Stream, chosen: np.ndarray) -> np.ndarray:
    """Rows of the matrix, (len(chosen), n) float64, from one pass."""
    leader = matrix.leader
    chosen = chosen if leader is None else leader[chosen]
    out = np.empty((len(chosen), matrix.n))
    for across, down, block in matrix.pieces():
        here = _within(chosen, across)
        out[here, down] = block[chosen[here] - across.start]
        if across != down:
            here = _within(chosen, down)
            out[here, across] = block[:, chosen[here] - down.start].T
    return out if leader is None else out[:, leader]


def diagonal(matrix: Stream) -> np.ndarray:
    """The diagonal, (n,) float64.

    Raises
    ------
    UserError
        If its mean is not above 0, or it is not finite.
    """
    out = np.empty(matrix.n)
    for across, _, block in matrix.pieces(diagonal=True):
        out[across] = block.diagonal()
    if matrix.leader is not None:
        out = out[matrix.leader]
    checks.require_finite(out)
    checks.mean_diagonal(out)  # raises
    return out


def closest(matrix: Stream, own: np.ndarray) -> float:
    """The largest K_ij^2 / (s_i s_j) of two different images, for positive s (n,), such as the diagonal.

    1 minus that is the pivot of the second of two images, in units of its diagonal entry: 0 for equal ones.

    Raises
    ------
    UserError
        If the matrix holds NaN or infinity.
    """
    found = 0.0
    for across, down, block in matrix.pieces():
        checks.require_finite(block.sum(axis=0, dtype=np.float64), down.start)
        shares = block.astype(np.float64)
        shares *= shares
        shares /= own[across, None]
        shares /= own[down]
        if across == down:
            shares[np.diag_indices(len(shares))] = 0
        found = max(found, float(shares.max()))
    if (leader := matrix.leader) is not None:  # of an image and the one that stands for it
        own_entry = diagonal(matrix)
        alike = np.flatnonzero(leader != np.arange(matrix.n))
        found = max(found, float((own_entry[alike] ** 2 / (own[alike] * own[leader[alike]])).max()))
    return found


def _within(chosen: np.ndarray, part: slice) -> np.ndarray:
    """Indices of those chosen rows that lie within a slice."""
    return np.flatnonzero((chosen >= part.start) & (chosen < part.stop))
