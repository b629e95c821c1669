"""Regularised ZCA whitening: images of which the pixels are uncorrelated, as near to the originals as can be.

With m the mean training image, C the covariance of the n training images, dividing by n, and d pixels,

    x -> W (x - m),   W = (C + r I)^(-1/2),   r = regularizer * trace(C) / d

so an eigenvalue l of C becomes l / (l + r): 1 where the images vary much, 0 where they hardly do. W is the
symmetric root, which changes images least (Bell and Sejnowski, "The independent components of natural scenes
are edge filters", 1997; Krizhevsky 2009, appendix A). The ridge relative to trace(C) / d, 0.1 by default, is
that of neural-tangents' example. A pixel that no training image changes is left out of the decomposition:
it becomes r^(-1/2) (x - m), exactly 0 in every training image.

Rounding leaves eigenvalues wrong by about eps times the largest one. For n training images at most n - 1 of
them are not 0, so the others are set to 0; where l + r comes near that error all the same, as where some
pixels depend on others, whitening is refused.
"""

from collections.abc import Callable, Iterable

import numpy as np
from scipy.linalg import blas, eigh
from threadpoolctl import threadpool_limits

from cntk_bench.data.scaling import CHUNK
from cntk_bench.errors import UserError
from cntk_bench.system import memory

EXACT = 1e5  # times eps and the largest eigenvalue is the least l + r, which so errs by about 1e-5 of itself
USUAL = 1e-100, 1e100  # pixels of which no square leaves float64's range, nor a sum of many of them
MATRICES = 5  # d x d, float64, at the peak: 360 MiB for 3 x 32 x 32 pixels

Parts = Callable[[], Iterable[np.ndarray]]
# Of a symmetric matrix in its lower triangle, which it may overwrite: eigenvalues, eigenvectors as columns.
decomposed = eigh


def fitted(parts: Parts, regularizer: float) -> Callable[[np.ndarray], np.ndarray]:
    """What whitens images, from training images.

    On one machine a training or test image gets the same bits whatever the number of threads and of images:
    BLAS works on one thread, and on products of one shape. Between machines the last bits may differ.

    Parameters
    ----------
    parts : callable
        Gives the training images, float64 (h, C, P, P) at a time; it is called twice.
    regularizer : float
        Above 0.

    Returns
    -------
    callable
        Of images (h, C, P, P), h <= CHUNK, float64; returns as many, whitened.

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
        values, vectors = decomposed(
            covariance, lower=True, driver="evd", overwrite_a=True, check_finite=False
        )
        values[: max(0, len(values) - (count - 1))] = 0  # they ascend
        values, known = np.maximum(values, 0), values[-(count - 1) :]
        least = EXACT * np.finfo(float).eps * values[-1]
        if max(known[0], 0) + ridge < least or ridge < np.finfo(float).tiny:
            enough = 2 * least / mean_variance
            raise UserError(
                f"preprocess.zca_regularizer {regularizer:g} is too small for these training images: some "
                f"pixels nearly depend on others, so rounding would decide; use {enough:.1g}"
            )
        # W = V (l + r)^(-1/2) V^T as a product of a matrix with its own transpose, which is symmetric.
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
    """The mean (d,), exact for a pixel that is always the same; which pixels are not; and a unit for them.

    The unit is 1, or of pixels of which squares would leave float64's range a power of two near the largest.
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
    """The covariance of the pixels that vary, in units, in its lower triangle, Fortran order, summed part by
    part; and the number of images."""
    d = int(varies.sum())
    out, count = np.zeros((d, d), order="F"), 0
    for part in parts():
        rows = np.ascontiguousarray(((part.reshape(len(part), -1) - mean) / unit)[:, varies])
        out, count = blas.dsyrk(1.0, rows.T, beta=1.0, c=out, lower=1, overwrite_c=1), count + len(rows)
    out /= count
    return out, count
