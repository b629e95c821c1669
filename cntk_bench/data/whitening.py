"""Regularised ZCA whitening: make pixels uncorrelated while changing images as little as possible.

With m the mean and C the covariance (dividing by n) of the n training images of d pixels,

    x -> W (x - m),   W = (C + r I)^(-1/2),   r = regularizer * trace(C) / d

so an eigenvalue l of C becomes l / (l + r): near 1 where images vary much, near 0 where they hardly do. W is
the symmetric root, which changes images least (Bell and Sejnowski, "The independent components of natural
scenes are edge filters", 1997; Krizhevsky 2009, appendix A). The default regularizer, 0.1, and its scaling by
trace(C) / d are those of neural-tangents' example. Pixels that are equal in all training images are left out
of the decomposition: they become r^(-1/2) (x - m), exactly 0 in every training image.

Rounding makes eigenvalues wrong by about eps times the largest one. At most n - 1 of them are not 0, so the
others are set to 0. If l + r still comes near that error, as it can where some pixels depend on others,
whitening is refused.
"""

from collections.abc import Callable, Iterable

import numpy as np
from scipy.linalg import blas, eigh
from threadpoolctl import threadpool_limits

from cntk_bench.data.scaling import CHUNK
from cntk_bench.errors import UserError
from cntk_bench.system import memory

EXACT = 1e5  # least l + r is EXACT * eps * the largest eigenvalue, so its relative error is about 1e-5
USUAL = 1e-100, 1e100  # pixels between these can be squared and summed within float64's range
MATRICES = 5  # d x d float64 matrices in memory at the peak: 360 MiB for 3 x 32 x 32 pixels

Parts = Callable[[], Iterable[np.ndarray]]


def fitted(parts: Parts, regularizer: float) -> Callable[[np.ndarray], np.ndarray]:
    """Fit whitening to training images and return the function that whitens images.

    On one machine the result is the same to the last bit whatever the number of threads and of images, since
    BLAS uses one thread and products of one shape. Between machines the last bits may differ.

    Parameters
    ----------
    parts : callable
        Returns an iterable over the training images, float64 (h, C, P, P) at a time; called twice.
    regularizer : float
        Above 0.

    Returns
    -------
    callable
        Takes images (h, C, P, P), h <= CHUNK, float64, and returns them whitened.

    Raises
    ------
    UserError
        If all training images are equal, the regularizer is too small for them, or memory does not suffice.
    """
    mean, varies, unit = _mean(parts)
    d = len(mean)
    if not varies.any():
        raise UserError(
            "the training images are all equal, so they cannot be whitened: give images that differ"
        )
    need, free = MATRICES * 8 * int(varies.sum()) ** 2, memory.available()
    if need > free:
        raise UserError(
            f"whitening {d:,} pixels needs {need / memory.GIB:.1f} GiB and this machine has "
            f"{free / memory.GIB:.1f} GiB free: use smaller images, or leave zca out of dataset.preprocess"
        )
    with threadpool_limits(1, user_api="blas"):
        covariance, count = _covariance(parts, mean, varies, unit)
        mean_variance = float(np.trace(covariance)) / d
        ridge = regularizer * mean_variance
        values, vectors = eigh(covariance, lower=True, driver="evd", overwrite_a=True, check_finite=False)
        values[: max(0, len(values) - (count - 1))] = 0  # eigenvalues ascend
        values, known = np.maximum(values, 0), values[-(count - 1) :]
        least = EXACT * np.finfo(float).eps * values[-1]
        if max(known[0], 0) + ridge < least or ridge < np.finfo(float).tiny:
            enough = 2 * least / mean_variance
            raise UserError(
                f"preprocess.zca_regularizer {regularizer:g} is too small for these training images: some "
                f"pixels nearly depend on others, so rounding would decide; use {enough:.1g}"
            )
        # W = V (l + r)^(-1/2) V^T, as a matrix times its own transpose, so that it is exactly symmetric.
        vectors *= (values + ridge) ** -0.25
        root = vectors @ vectors.T

    def whiten(images: np.ndarray) -> np.ndarray:
        centred = np.zeros((CHUNK, d))
        centred[: len(images)] = (images.reshape(len(images), d) - mean) / unit
        out = centred * ridge**-0.5
        with threadpool_limits(1, user_api="blas"):
            out[:, varies] = centred[:, varies] @ root
        return out[: len(images)].reshape(images.shape)

    return whiten


def _mean(parts: Parts) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean (d,), exact for pixels that are constant; which pixels vary; and a unit for pixels.

    The unit is 1, or a power of two near the largest spread if squares would leave float64's range.
    """
    total: np.ndarray | float = 0.0
    low: np.ndarray | float = np.inf
    high: np.ndarray | float = -np.inf
    count = 0
    for part in parts():
        rows = part.reshape(len(part), -1)
        total, count = total + rows.sum(0), count + len(rows)
        low, high = np.minimum(low, rows.min(0)), np.maximum(high, rows.max(0))
    varies = np.asarray(low < high)
    spread = float(np.max(np.asarray(high) - low))
    unit = 1.0 if USUAL[0] < spread < USUAL[1] else float(np.ldexp(1.0, np.frexp(spread)[1]))
    return np.where(varies, np.asarray(total) / count, low), varies, unit


def _covariance(parts: Parts, mean: np.ndarray, varies: np.ndarray, unit: float) -> tuple[np.ndarray, int]:
    """Covariance of the varying pixels, in units, and the number of images.

    It is summed part by part into the lower triangle of a matrix in Fortran order.
    """
    d = int(varies.sum())
    out, count = np.zeros((d, d), order="F"), 0
    for part in parts():
        rows = np.ascontiguousarray(((part.reshape(len(part), -1) - mean) / unit)[:, varies])
        out, count = blas.dsyrk(1.0, rows.T, beta=1.0, c=out, lower=1, overwrite_c=1), count + len(rows)
    out /= count
    return out, count
