"""A blocked Cholesky factor beside its matrix, in one array, on the CPU or a GPU.

The matrix A and its factor share one n x n array: its lower triangle keeps A, and of the upper one
only the blocks off the diagonal are used, for the factor U of A + S = U^T U, S a diagonal matrix; the
diagonal blocks of U are kept apart. So another S needs no second copy of A: 20 GB instead of 40 for
50,000 images.

Diagonal blocks are factored by LAPACK on the host, where a failing pivot is known; everything
else is matrix products and triangular solves on the device, on operands that span at most n x 8 BLOCK
entries: far from the 2^31 of libraries that count in 32 bits, which 50,000 x 50,000 exceeds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from scipy.linalg import get_blas_funcs, get_lapack_funcs, solve_triangular

BLOCK = 512
Array = Any  # of NumPy or CuPy


class NotPositiveDefinite(ArithmeticError):
    """A pivot was not positive beyond rounding; `pivot` is the pivot, relative to its own diagonal entry."""

    def __init__(self, pivot: float):
        super().__init__(f"pivot {pivot:.3g}")
        self.pivot = pivot


@dataclass(frozen=True)
class Device:
    """What differs between the CPU and a GPU.

    `solve(u, b, transposed)` returns x with u x = b, or u^T x = b, for upper triangular u. `deep` is the
    number of row blocks of U per product: many save passes over its result, which one core makes while the
    others wait; but CuPy copies operands, so on a GPU they would cost memory.
    """

    xp: ModuleType
    to_host: Callable
    solve: Callable
    deep: int

    @classmethod
    def named(cls, name: str) -> "Device":
        """The device "cpu" (NumPy, BLAS) or "cuda" (CuPy, cuBLAS)."""
        if name == "cpu":
            return cls(np, np.asarray, _solve_on_cpu, 8)
        import cupy
        from cupyx.scipy.linalg import solve_triangular as solve

        return cls(cupy, cupy.asnumpy, lambda u, b, transposed: solve(u, b, trans=int(transposed)), 1)


def _solve_on_cpu(u: np.ndarray, b: np.ndarray, transposed: bool) -> np.ndarray:
    # BLAS wants columns contiguous; ours are rows. So solve x^T u = b^T, whose views need no copy.
    (trsm,) = get_blas_funcs(("trsm",), (u,))
    return trsm(1.0, u.T, b.T, side=1, lower=1, trans_a=int(transposed)).T


class Cholesky:
    """The factor U of A + S = U^T U.

    Parameters
    ----------
    matrix : device array (n, n), float32 or float64, C order
        The symmetric A. Only its lower triangle is read; blocks above the diagonal are overwritten.
    device : Device
        Where `matrix` lives.
    """

    def __init__(self, matrix: Array, device: Device) -> None:
        n = len(matrix)
        self.matrix = matrix
        self.device = device
        self.blocks = [slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
        self.deep = device.deep * BLOCK

    def factor(self, shift: np.ndarray, tolerance: float) -> float:
        """Factor A + S, S = diag(shift), in n^3 / 3 operations; return the smallest pivot, in units of A.

        Row block J of U, from the row blocks I above it (Golub and Van Loan, section 4.2):
        U_JJ^T U_J = A_J - sum_I U_IJ^T U_I.

        Parameters
        ----------
        shift : host array (n,), float64
        tolerance : float

        Raises
        ------
        NotPositiveDefinite
            If a pivot (a squared diagonal entry of U) is not above `tolerance` times its own diagonal
            entry of A + S. Its rounding errors are relative to that entry, whatever the others
            are: a bright image's are thousands of times a dark one's.
        """
        A, xp = self.matrix, self.device.xp
        self.diagonal = []
        smallest = np.inf
        for j, J in enumerate(self.blocks):
            row = A[J.start :, J].T.copy()
            for start in range(0, J.start, self.deep):
                above = slice(start, min(start + self.deep, J.start))
                row -= A[above, J].T @ A[above, J.start :]
            width = J.stop - J.start
            corner = np.array(self.device.to_host(row[:, :width]))
            corner[np.diag_indices(width)] += shift[J]
            own = np.array(self.device.to_host(A[J, J].diagonal()), np.float64) + shift[J]
            corner = _factor_block(corner, own, tolerance)
            smallest = min(smallest, float(corner.diagonal().min()) ** 2)
            self.diagonal.append(xp.asarray(corner))
            if J.stop < len(A):
                A[J, J.stop :] = self.device.solve(self.diagonal[j], row[:, width:], True)
        return smallest

    def leading(self, m: int) -> "Cholesky":
        """The factor of the first m rows and columns: a view of this one's leading block."""
        part = Cholesky(self.matrix[:m, :m], self.device)
        part.diagonal = [
            u[: J.stop - J.start, : J.stop - J.start]
            for J, u in zip(part.blocks, self.diagonal, strict=False)
        ]
        return part

    def solve(self, b: np.ndarray) -> np.ndarray:
        """x with (A + S) x = b, for a host array b (n, k); returns a host array."""
        x = self.device.xp.array(b, self.matrix.dtype)
        self._forward(x)
        for J, u in zip(reversed(self.blocks), reversed(self.diagonal), strict=True):
            x[J] = self.device.solve(u, x[J] - self.matrix[J, J.stop :] @ x[J.stop :], False)
        return self.device.to_host(x)

    def pivots(self) -> np.ndarray:
        """The pivots, squared diagonal entries of U, a host array (n,)."""
        return (
            np.concatenate([self.device.to_host(u.diagonal()) for u in self.diagonal]).astype(np.float64) ** 2
        )

    def inverse_diagonal(self) -> np.ndarray:
        """The diagonal of (A + S)^-1 as a host array (n,), in n^3 / 3 operations.

        Entry i is the squared norm of U^-T e_i, which is zero above row i.
        """
        xp, n = self.device.xp, len(self.matrix)
        out = np.empty(n)
        for J in self.blocks:
            z = xp.zeros((n - J.start, J.stop - J.start), self.matrix.dtype)
            z[: J.stop - J.start] = xp.eye(J.stop - J.start, dtype=self.matrix.dtype)
            self._forward(z)
            out[J] = self.device.to_host((z * z).sum(axis=0))
        return out

    def times(self, b: np.ndarray, squared: bool = False) -> np.ndarray:
        """A b (without S), or the squares of A's entries times b, for a host array b (n, k), in float64;
        returns a host array."""
        xp = self.device.xp
        b = xp.asarray(b, np.float64)
        out = xp.zeros(b.shape, np.float64)
        for J, left, corner in self.rows():
            if squared:
                left, corner = left * left, corner * corner
            out[J] += left @ b[: J.start] + corner @ b[J]
            out[: J.start] += left.T @ b[J]
        return self.device.to_host(out)

    def absolute_row_sums(self) -> np.ndarray:
        """Sums of |A| along its rows, a host array (n,); not finite where A is not."""
        out = self.device.xp.zeros(len(self.matrix), np.float64)
        for J, left, corner in self.rows():
            left, corner = abs(left), abs(corner)
            out[J] += left.sum(axis=1) + corner.sum(axis=1)
            out[: J.start] += left.sum(axis=0)
        return self.device.to_host(out)

    def rows(self) -> Iterator[tuple[slice, Array, Array]]:
        """Rows of A in float64, a block J at a time: J, A[J, : J.start], and the symmetric A[J, J]."""
        xp = self.device.xp
        for J in self.blocks:
            rows = self.matrix[J, : J.stop].astype(np.float64, copy=False)
            corner = xp.tril(rows[:, J.start :])
            yield J, rows[:, : J.start], corner + xp.tril(corner, -1).T

    def _forward(self, z: Array) -> None:
        """Solve U^T x = z in place; z holds the last len(z) rows, those above being zero."""
        n = len(self.matrix)
        first = n - len(z)
        for start in range(first, n, self.deep):
            stop = min(start + self.deep, n)
            for J, u in zip(self.blocks, self.diagonal, strict=True):
                if start <= J.start < stop:
                    above, here = (
                        slice(start - first, J.start - first),
                        slice(J.start - first, J.stop - first),
                    )
                    z[here] -= self.matrix[start : J.start, J].T @ z[above]
                    z[here] = self.device.solve(u, z[here], True)
            z[stop - first :] -= self.matrix[start:stop, stop:].T @ z[start - first : stop - first]


def _factor_block(a: np.ndarray, own: np.ndarray, tolerance: float) -> np.ndarray:
    """Upper Cholesky factor of a small host matrix, or NotPositiveDefinite with its failing pivot.

    `own` are the diagonal entries that its rows had before the blocks above were eliminated.
    """
    (potrf,) = get_lapack_funcs(("potrf",), (a,))
    u, order = potrf(a, lower=False)
    if order > 0:  # LAPACK: the leading minor of this order is the first that fails
        i = order - 1
        column = solve_triangular(u[:i, :i], a[:i, i], trans=1)
        pivot = float(a[i, i] - column @ column)
        raise NotPositiveDefinite(pivot / own[i] if own[i] > 0 else pivot)
    pivots = u.diagonal().astype(np.float64) ** 2
    noise = ~(pivots > tolerance * own)
    if noise.any():
        i = int(noise.argmax())
        raise NotPositiveDefinite(pivots[i] / own[i])
    return np.ascontiguousarray(u)
