"""The eigendecomposition of a train Gram matrix, K = U diag(l) U^T, in float64.

One decomposition serves every time of gradient flow (`flow`), and every ridge of a Gaussian process
(`posterior`): each is a function of l between U and U^T. It costs some ten Cholesky factors. LAPACK's
divide and conquer (`evd`) is taken: its eigenvectors are orthogonal to rounding even where many
eigenvalues are equal, as with duplicate images, where those of `evr`, which needs a third less memory, were
orthogonal to 1e-12 only. Peak memory: the matrix, which becomes U, and a workspace twice as large.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, eigh

from cntk_bench.errors import UserError
from cntk_bench.regression import checks
from cntk_bench.regression.sensitivity import KERNEL_ERROR

MOST = 32_700  # images: LAPACK counts the workspace of evd, 2 n^2 numbers, in 32 bits
MATRICES = 3  # n x n matrices at the peak


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and eigenvectors of a positive semi-definite matrix K (n, n).

    values : (n,) float64, ascending; those that are zero within rounding are 0.
    vectors : (n, n) float64; column j belongs to values[j].
    mean_diagonal : trace(K) / n, the unit of ridges, and of the reciprocals of times.
    zeros : how many eigenvalues are zero.
    noise : how far eigenvalues may be off because K was stored as float32, about: the spectral norm of a
        symmetric matrix of independent errors of size KERNEL_ERROR trace(K) / n, sqrt(n) times that size.
    """

    values: np.ndarray
    vectors: np.ndarray
    mean_diagonal: float
    zeros: int
    noise: float

    def project(self, y: np.ndarray) -> np.ndarray:
        """U^T y, the coordinates of y (n, k) along the eigenvectors."""
        return self.vectors.T @ y


def decompose(gram: np.ndarray, *, overwrite: bool = False) -> Spectrum:
    """Decompose a Gram matrix.

    Parameters
    ----------
    gram : array (n, n), float
        Symmetric; only its lower triangle is read.
    overwrite : bool
        Work inside `gram` if it is float64 in C order; otherwise a copy is made.

    Returns
    -------
    Spectrum
        Eigenvalues below n eps max(l), the error of the decomposition itself, and negative ones count as 0.

    Raises
    ------
    UserError
        If it is not n x n, or larger than LAPACK can do, holds NaN or infinity, has no positive diagonal,
        or has a negative eigenvalue that the rounding of stored kernels of ordinary images
        (`sensitivity`) cannot explain.
    """
    return _decomposed(gram, overwrite, True)


def eigenvalues(gram: np.ndarray, *, overwrite: bool = False) -> Spectrum:
    """As `decompose`, without eigenvectors: `vectors` is (n, 0).

    It costs 4/3 n^3 operations, four Cholesky factors, half of them products of a matrix and a vector, and no
    memory beside the matrix.
    """
    return _decomposed(gram, overwrite, False)


def _decomposed(gram: np.ndarray, overwrite: bool, with_vectors: bool) -> Spectrum:
    gram = checks.square(gram, "has no eigenvalues")
    n = len(gram)
    if n > MOST:
        raise UserError(f"{n:,} training images are too many to decompose: use {MOST:,} at most")
    for row in range(n):  # the upper triangle may hold anything
        checks.require_finite(gram[row : row + 1, : row + 1], row)
    mean_diagonal = checks.mean_diagonal(gram.diagonal())
    work = checks.writable(gram, np.dtype(np.float64), overwrite)
    try:
        # The transpose is in Fortran's order, so that LAPACK works in place; its upper triangle is read.
        how: dict[str, Any] = {"lower": False, "overwrite_a": True, "check_finite": False, "driver": "evd"}
        if with_vectors:
            values, vectors = eigh(work.T, **how)
        else:
            values, vectors = eigh(work.T, **how, eigvals_only=True), np.empty((n, 0))
    except LinAlgError as error:
        raise UserError(
            f"the train Gram matrix could not be decomposed ({error}): use fewer training images"
        ) from error
    noise = KERNEL_ERROR * n**0.5 * mean_diagonal
    rounding = n * np.finfo(np.float64).eps * values[-1]
    explained = max(KERNEL_ERROR * float(np.linalg.norm(values)), rounding)  # Weyl: none moves further
    if values[0] < -explained:
        raise UserError(
            f"the train Gram matrix is not positive semi-definite: an eigenvalue is {values[0]:.3g}, beyond "
            f"the rounding of its entries ({explained:.2g}): verify what it came from; if that is sound, it "
            "may be of nearly flat images, for which CNTK-GAP and LAP are less exact: use CNTK-V"
        )
    zero = values <= rounding
    values[zero] = 0
    return Spectrum(values, vectors, mean_diagonal, int(zero.sum()), noise)


def memory(n: int) -> int:
    """Bytes that `decompose` needs at its peak, the matrix included, with `overwrite`."""
    return 8 * MATRICES * n * n
