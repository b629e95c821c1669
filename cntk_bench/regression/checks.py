"""Checks of a Gram matrix and of labels, before anything is computed from them."""

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression.cholesky import BLOCK, Array

ALLOWED = 1e-4  # of the largest entry: how far K_ij and K_ji may be apart, for kernels rounded in float32


def square(gram: np.ndarray, fault: str = "cannot be solved") -> np.ndarray:
    """The matrix as an array; UserError, naming the fault, unless it is n x n with n >= 2."""
    gram = np.asarray(gram)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or len(gram) < 2:
        raise UserError(f"a Gram matrix of shape {gram.shape} {fault}: it must be n x n, n >= 2")
    return gram


def require_finite(values: np.ndarray, first: int = 0) -> None:
    """Raise UserError if values (h, ...) of a matrix's rows, from row `first` on, are not all finite."""
    finite = np.isfinite(values)
    if not finite.all():
        row = first + int(np.argwhere(~finite)[0, 0])
        raise UserError(
            f"the train Gram matrix holds NaN or infinity (first in row {row}): "
            "verify and repair what it came from"
        )


def mean_diagonal(diagonal: Array) -> float:
    """The mean of a Gram matrix's diagonal (n,), on any device; UserError unless it is above 0."""
    mean = float(diagonal.mean(dtype=np.float64))
    if not mean > 0:
        raise UserError(f"the train Gram matrix has mean diagonal {mean:g}: a kernel's is positive")
    return mean


def is_symmetric(gram: np.ndarray) -> bool:
    """Whether a finite matrix (n, n) is its own transpose up to rounding; looked at in blocks of rows."""
    allowed = ALLOWED * np.abs(gram).max()
    return all(
        bool((np.abs(gram[start : start + BLOCK] - gram[:, start : start + BLOCK].T) <= allowed).all())
        for start in range(0, len(gram), BLOCK)
    )


def writable(gram: np.ndarray, dtype: np.dtype, overwrite: bool) -> np.ndarray:
    """A matrix in C order that may be written to: `gram` itself if it is one and `overwrite`, or a copy."""
    usable = overwrite and gram.dtype == dtype and gram.flags.c_contiguous and gram.flags.writeable
    return gram if usable else np.array(gram, dtype, order="C")


def labels(given: np.ndarray, n: int, classes: int) -> np.ndarray:
    """The labels of n images as an array (n,); UserError if they are not integers from 0 to classes - 1."""
    given = np.asarray(given)
    if given.shape != (n,) or given.dtype.kind not in "iu":
        raise UserError(f"labels of shape {given.shape} and type {given.dtype}: {n} integers are needed")
    if classes < 2:
        raise UserError(f"{classes} classes: regression needs at least 2")
    wrong = given[(given < 0) | (given >= classes)]
    if wrong.size:
        raise UserError(f"label {wrong[0]} is outside 0 .. {classes - 1}: mend the labels")
    return given
