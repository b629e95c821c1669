"""A partial Cholesky factor of a streamed matrix, with greedy diagonal pivots: a preconditioner.

Of A, with m pivots first and split in the same way, the preconditioner is

    P = [L1  0] [I 0] [L1^T  L2^T]        L1 L1^T = A_11,   L2 = A_21 L1^-T
        [L2  I] [0 D] [0     I   ]

with D the diagonal of the Schur complement A_22 - L2 L2^T. It is A itself in the pivots' rows and on the
diagonal; large eigenvalues, of which kernels have few, are taken out, and what is left is scaled to a
diagonal of one, however uneven that of A is. The next pivot is the image with the largest entry of the Schur
complement's diagonal: the one that those before explain least. Bellavia, Gondzio and Morini, "A matrix-free
preconditioner for sparse symmetric positive definite systems and least-squares problems" (SIAM J. Sci.
Comput. 35, 2013); for kernels: Harbrecht, Peters and Schneider 2012.

Fetched one by one, each pivot would cost a pass over the matrix. So a pass fetches a batch of rows, those of
the largest entries, and LAPACK's pivoted Cholesky (`pstrf`) takes from it the pivots that have not become
small compared with the entries left out.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpstrf

from cntk_bench.regression import stream
from cntk_bench.regression.cholesky import NotPositiveDefinite
from cntk_bench.regression.stream import Stream

PASSES = 16  # over the matrix, at most
SHARE = 0.1  # of the largest entry left out: a pivot below is left for a later pass
BATCHES = 8  # number of batches in which the rows are fetched, about
SHARE_OF_N = 8  # n divided by the largest rank that is worth its memory and its n m^2 operations
COLUMNS = 4096  # at a time


@dataclass(frozen=True)
class Partial:
    """The preconditioner P.

    pivots : (m,) int, in the order in which they were eliminated.
    lower : (n, m) float64, rows in the order of the matrix: L1 in those of the pivots, L2 in the others.
    corner : (m, m) float64, L1.
    rest : (n,) float64, D; infinite for the pivots.
    """

    pivots: np.ndarray
    lower: np.ndarray
    corner: np.ndarray
    rest: np.ndarray

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """P^-1 b for b (n, k)."""
        if not len(self.pivots):
            return b / self.rest[:, None]
        first = solve_triangular(self.corner, b[self.pivots], lower=True, check_finite=False)
        out = b - self.lower @ first
        out /= self.rest[:, None]  # 0 for the pivots
        first -= self.lower.T @ out
        out[self.pivots] = solve_triangular(self.corner, first, lower=True, trans=1, check_finite=False)
        return out


def batch(rank: int) -> int:
    """How many rows are fetched in one pass."""
    return max(min(rank, 32), -(-rank // BATCHES))


def memory(n: int, rank: int) -> int:
    """Bytes that the factor takes while it is made, at most."""
    rows = batch(rank)
    return 8 * (n * (rank + rows) + (2 * rows + rank) * min(COLUMNS, n) + 4 * rank**2)


def factor(matrix: Stream, diagonal: np.ndarray, shift: np.ndarray, rank: int) -> Partial:
    """The partial factor of A = K + diag(shift).

    Parameters
    ----------
    matrix : Stream
        K (n, n).
    diagonal, shift : array (n,), float64
        K's diagonal; what is added to it.
    rank : int
        Pivots at most, 0 for a diagonal preconditioner.

    Raises
    ------
    NotPositiveDefinite
        If an entry of the Schur complement's diagonal is not above sqrt(n) eps times that of A, as no pivot
        of a Cholesky factor may be; `pivot` is the smallest, relative to that of A, unless that is 0.
    """
    n, whole = matrix.n, diagonal + shift
    least = n**0.5 * np.finfo(np.float64).eps * whole
    lower, pivots, left = np.empty((n, rank)), np.empty(0, np.int64), whole.copy()
    for _ in range(PASSES):
        chosen = _candidates(left, pivots, batch(rank), rank - len(pivots))
        if not len(chosen) or not left[chosen[0]] > least[chosen].max():
            break
        pivots = _eliminate(matrix, shift, lower, pivots, chosen, left, least)
    rest = np.ones(n, bool)
    rest[pivots] = False
    if not (left[rest] > least[rest]).all():
        raise NotPositiveDefinite(float((left[rest] / np.where(whole[rest] > 0, whole[rest], 1)).min()))
    lower = lower[:, : len(pivots)]
    corner = np.array(lower[pivots], order="F")  # as LAPACK wants it
    return Partial(pivots, lower, corner, np.where(rest, left, np.inf))


def _candidates(left: np.ndarray, pivots: np.ndarray, most: int, room: int) -> np.ndarray:
    """The images of the largest entries that are no pivots yet; of equal ones the first."""
    open_ = left.copy()
    open_[pivots] = -np.inf
    count = min(most, room, len(left) - len(pivots))
    return np.argsort(-open_, kind="stable")[:count]


def _eliminate(
    matrix: Stream,
    shift: np.ndarray,
    lower: np.ndarray,
    pivots: np.ndarray,
    chosen: np.ndarray,
    left: np.ndarray,
    least: np.ndarray,
) -> np.ndarray:
    """Eliminate some of the images chosen; fills `lower`, and takes from `left` what they explain."""
    m, rows = len(pivots), stream.rows(matrix, chosen)
    rows[np.arange(len(chosen)), chosen] += shift[chosen]
    for start in range(0, len(left), COLUMNS):
        some = slice(start, start + COLUMNS)
        rows[:, some] -= lower[chosen, :m] @ lower[some, :m].T
    tolerance = max(SHARE * left[chosen[-1]], least[chosen].max())
    corner, order, count, _ = dpstrf(rows[:, chosen], tol=tolerance, lower=1)
    taken = order[:count] - 1
    corner = np.tril(corner[:count, :count])
    for start in range(0, len(left), COLUMNS):
        some = slice(start, start + COLUMNS)
        new = solve_triangular(corner, rows[taken, some], lower=True)
        lower[some, m : m + count] = new.T
        left[some] -= (new**2).sum(axis=0)
    lower[chosen[taken], m : m + count] = corner
    lower[pivots, m : m + count] = 0
    return np.concatenate([pivots, chosen[taken]])
