"""Power laws of learning curves: error(n) = a n^-b + c, fitted to errors at several n, and resampled.

The law of Cortes et al. 1994 (Learning curves: asymptotic values and rate of convergence, NIPS 6) and
Hestness et al. 2017 (arXiv:1712.00409). Spigler et al. 2020 (arXiv:1905.10843) find that errors of kernel
methods fall as a power of n, on CIFAR-10 with an exponent of about 0.1. c, the floor, is the error that no
number of images removes; without it the law is a straight line on two logarithmic axes.

For a given exponent the law is linear in a and c, whose best values at least 0 have a closed form. What is
left is a function of b alone, which is minimised on ever finer grids: this needs no starting values, misses
no minimum wider than the first grid's spacing, and fits thousands of resampled curves at once.
"""

from dataclasses import dataclass

import numpy as np

EXPONENTS = (0.01, 4.0)  # between which b is searched
_GRID, _ZOOM, _ZOOMS = 160, 21, 9  # exponents at first, then between neighbours of the best, and how often
_ROUNDING = 1e-9  # relative; far above that of float64
_CHUNK = 64  # resamples drawn at once


@dataclass(frozen=True)
class Law:
    """error(n) = a (n / unit)^-b + c, in the units of the errors; arrays of one shape, of one law or several.

    unit : the largest n fitted.
    posed : whether the data determine it: it falls from the first size to the last by more than rounding,
        and b is not at an end of `EXPONENTS`.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    unit: float
    posed: np.ndarray

    def error(self, n: float) -> np.ndarray:
        """The law's error for n training images."""
        return self.a * (n / self.unit) ** -self.b + self.c


def fit(sizes: np.ndarray, errors: np.ndarray, sigma: np.ndarray, floor: bool) -> Law:
    """The law of least sum of ((error - law) / sigma)^2, with a and c at least 0 and b in `EXPONENTS`.

    Parameters
    ----------
    sizes : array (k,)
        Numbers of training images, ascending; more than the law has parameters.
    errors : array (..., k)
        Of one curve, or of several that are fitted each by itself.
    sigma : array (k,)
        Standard errors, above 0, the same for all curves.
    floor : bool
        Whether c is fitted, too; otherwise it is 0.

    Returns
    -------
    Law
        Its arrays have the shape (...).
    """
    unit = float(sizes[-1])
    logs, weights = np.log(np.asarray(sizes) / unit), 1 / np.asarray(sigma, np.float64) ** 2
    weights, errors = weights / weights.sum(), np.asarray(errors, np.float64)[..., None, :]
    low, high = np.log(EXPONENTS)
    grid = np.broadcast_to(np.linspace(low, high, _GRID), (*errors.shape[:-2], _GRID))
    for _ in range(_ZOOMS):
        a, c, missed = _linear(np.exp(-np.exp(grid)[..., None] * logs), errors, weights, floor)
        best = missed.argmin(axis=-1)[..., None]
        a, b, c = (np.take_along_axis(values, best, -1)[..., 0] for values in (a, np.exp(grid), c))
        ends = [np.take_along_axis(grid, np.clip(best + step, 0, grid.shape[-1] - 1), -1) for step in (-1, 1)]
        grid = ends[0] + (ends[1] - ends[0]) * np.linspace(0, 1, _ZOOM)
    margin = 1e-3
    inside = (b > EXPONENTS[0] * (1 + margin)) & (b < EXPONENTS[1] * (1 - margin))
    falls = a * (np.exp(-b * logs[0]) - 1) > _ROUNDING * (a + c)
    return Law(a, b, c, unit, inside & falls)


def _linear(
    powers: np.ndarray, errors: np.ndarray, weights: np.ndarray, floor: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best a and c at least 0 for given (n / unit)^-b (..., g, k), and their weighted squares (..., g).

    If the best c (or a) is below 0, it is set to 0, and the other is the best for that.
    """
    square, product = (weights * powers**2).sum(-1), (weights * powers * errors).sum(-1)
    alone = np.maximum(product / square, 0)
    if not floor:
        return alone, np.zeros_like(alone), (weights * (errors - alone[..., None] * powers) ** 2).sum(-1)
    mean, level = (weights * powers).sum(-1), (weights * errors).sum(-1)
    varied = (weights * (powers - mean[..., None]) ** 2).sum(-1)
    a = (weights * (powers - mean[..., None]) * errors).sum(-1) / varied
    c = level - a * mean
    a, c = np.where(c < 0, alone, a), np.maximum(c, 0)
    a, c = np.where(a < 0, 0, a), np.where(a < 0, level, c)
    return a, c, (weights * (errors - a[..., None] * powers - c[..., None]) ** 2).sum(-1)


def parabola(sizes: np.ndarray, errors: np.ndarray, sigma: np.ndarray) -> tuple[float, float, float]:
    """The parabola of ln(error) in ln(n / unit), with unit the largest n.

    A floor makes a curve flatter than a power law; a parabola can also make it steeper. By least squares,
    each ln(error) weighted by its own standard error, sigma / error.

    Parameters
    ----------
    sizes, errors, sigma : arrays (k,)
        As for `fit`, of one curve; errors above 0.

    Returns
    -------
    tuple of three floats
        Coefficients of the square, of ln(n / unit), and the constant.
    """
    logs = np.log(np.asarray(sizes) / sizes[-1])
    curvature, slope, level = np.polyfit(logs, np.log(errors), 2, w=np.asarray(errors) / sigma)
    return float(curvature), float(slope), float(level)


def resampled(right: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Mean accuracies of bootstrap resamples, which keep how the sizes depend on each other.

    Test images are drawn with replacement, the same ones for all sizes and draws. If there are several draws
    of training images, these are resampled, too, independently (Owen 2007, The pigeonhole bootstrap): r - 1
    of r draws, so that the variance of their mean is not underestimated (Rao and Wu 1988).

    Parameters
    ----------
    right : array (r, k, m), bool
        Whether test image i was classified rightly by draw d at size j.
    count : int
        How many resamples.
    seed : int

    Returns
    -------
    array (count, k), float64
        Shares of right ones, means over the draws.
    """
    draws, sizes, images = right.shape
    rng = np.random.Generator(np.random.PCG64(seed))
    flat = right.reshape(draws * sizes, images).T.astype(np.float32)  # counts below 2^24 are exact in it
    found = np.empty((count, sizes))
    for first in range(0, count, _CHUNK):
        rows = min(_CHUNK, count - first)
        times = np.stack(
            [np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(rows)]
        )
        shares = (times.astype(np.float32) @ flat).reshape(rows, draws, sizes) / np.float64(images)
        share = np.ones((rows, 1))
        if draws > 1:
            share = rng.multinomial(draws - 1, np.full(draws, 1 / draws), rows) / (draws - 1)
        found[first : first + rows] = np.einsum("rd,rdk->rk", share, shares)
    return found
