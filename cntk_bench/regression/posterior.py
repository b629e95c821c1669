"""Gaussian process regression with an NNGP kernel: likelihood, posterior mean and variance, for all classes.

The outputs of an infinitely wide network at initialisation are a Gaussian process whose covariance is the
NNGP kernel (Lee et al. 2018; Novak et al. 2019). Each class c has a function f_c, all independent:

    f_c ~ GP(0, s K),   y_ic = f_c(x_i) + noise,   noise ~ N(0, s r)

with targets y (one-hot minus 0.1), K the stored kernel, r the ridge (absolute) and s the prior's scale, which
the kernel leaves open. With A = K + r I:

    mean       K_* A^-1 y                            that of kernel ridge regression, whatever s
    variance   s (K_** - K_* A^-1 K_*^T)             of f, the same for every class
    log p(y)   -(q / s + k log det(s A) + n k log(2 pi)) / 2,   q = sum_c y_c^T A^-1 y_c

The derivative by s is zero at s = q / (n k), the scale of maximum likelihood, which is taken; then
log p(y) = -(n k (1 + log(2 pi s)) + k log det A) / 2, a function of r alone, which `likeliest` maximises.
Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", chapters 2 and 5.

Variances are differences of nearly equal numbers where a test image is close to training images, and K holds
rounding errors of float32. To first order, and as if they were independent, they move a variance by s e times
the root of the sum of squares of K_**, 2 (sum_i K_*i^2 w_i^2)^(1/2) and sum_i w_i^2 K_ii, where e is
`sensitivity.KERNEL_ERROR` and w = A^-1 K_*^T: its `error`. A variance is never taken as less than that.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from cntk_bench.errors import UserError
from cntk_bench.regression.eigen import Spectrum
from cntk_bench.regression.sensitivity import KERNEL_ERROR

LEAST, MOST = 1e-8, 1e4  # ridges among which the likeliest is sought, relative to the mean diagonal
STEPS = 4  # per decade, before the best is refined
# A ridge is taken through its logarithm (`likeliest`), so that what it gives is known up to this share.
ROUNDED = 1e-9


@dataclass(frozen=True)
class Prior:
    """Assumptions about the functions, and how likely they make the targets.

    ridge : relative to trace(K) / n.
    scale : s.
    noise : variance of the noise on targets, s r.
    log_likelihood : log p(y), of all training images and classes, natural.
    doubt : why it cannot be trusted; None where it can.
    """

    ridge: float
    scale: float
    noise: float
    log_likelihood: float
    doubt: str | None


@dataclass(frozen=True)
class Posterior:
    """The posterior of h images.

    mean : (h, k).
    variance : (h,), of f; at least `error`.
    error : (h,), of the variance.
    negative : how many variances were below -4 error, which rounding cannot explain.
    """

    mean: np.ndarray
    variance: np.ndarray
    error: np.ndarray
    negative: int


def prior(spectrum: Spectrum, y: np.ndarray, ridge: float) -> Prior:
    """The prior of a ridge, relative, with the scale of maximum likelihood, for targets y (n, k).

    Raises
    ------
    UserError
        If K + r I is singular: the likelihood is unbounded.
    """
    shifted = _shifted(spectrum, ridge)
    scale, value = _likelihood(shifted, spectrum.project(y))
    doubt = None
    if shifted[0] < spectrum.noise * (1 - ROUNDED):  # the smallest of `likeliest` makes it equal to the noise
        doubt = (
            f"the smallest eigenvalue of K + r I, {shifted[0]:.2g}, is within the errors of stored kernels "
            f"({spectrum.noise:.2g}): raise the ridge"
        )
    return Prior(ridge, scale, scale * ridge * spectrum.mean_diagonal, value, doubt)


def likeliest(spectrum: Spectrum, y: np.ndarray) -> float:
    """The relative ridge of maximum likelihood, among 0 and those from `LEAST` to `MOST`.

    Ridges within the errors of stored kernels are left out. A grid comes first, because there may be several
    maxima; then its best point is refined.
    """
    projected, least = spectrum.project(y), _least(spectrum)

    def loss(logarithm: float) -> float:
        return -_likelihood(_shifted(spectrum, 10**logarithm), projected)[1]

    grid = np.linspace(low := np.log10(least), high := np.log10(MOST), int(STEPS * (high - low)) + 2)
    best = int(np.argmin([loss(value) for value in grid]))
    around = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    found = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-4})
    value = 10 ** float(found.x if found.fun < loss(grid[best]) else grid[best])
    without = spectrum.values[0] > spectrum.noise and _likelihood(spectrum.values, projected)[1] >= -found.fun
    return 0.0 if without else value


def edge(spectrum: Spectrum, ridge: float) -> str | None:
    """Whether the likeliest ridge is the "largest" or the "smallest" of those that were tried, but not 0.

    At the largest, the targets look like noise to the kernel, and predictions are those of the prior. Below
    the smallest, the likelihood would rise further, but there errors of stored kernels decide it.
    """
    if ridge > MOST * 0.99:
        return "largest"
    return "smallest" if 0 < ridge < 1.01 * _least(spectrum) else None


def _least(spectrum: Spectrum) -> float:
    """The smallest ridge above 0 that is tried."""
    return max(LEAST, (spectrum.noise - spectrum.values[0]) / spectrum.mean_diagonal)


def coefficients(spectrum: Spectrum, y: np.ndarray, ridge: float) -> np.ndarray:
    """A^-1 y (n, k), for a ridge relative to the mean diagonal."""
    return spectrum.vectors @ (spectrum.project(y) / _shifted(spectrum, ridge)[:, None])


def posterior(
    spectrum: Spectrum, assumed: Prior, alpha: np.ndarray, block: np.ndarray, own: np.ndarray
) -> Posterior:
    """The posterior of the images of a block.

    Parameters
    ----------
    spectrum : Spectrum
        Of the train Gram matrix.
    assumed : Prior
    alpha : array (n, k)
        `coefficients` of its ridge.
    block : array (h, n), float64
        Kernels of test and training images.
    own : array (h,), float64
        Kernels of the test images with themselves.

    Raises
    ------
    UserError
        If a number is not finite.
    """
    if not (np.isfinite(block).all() and np.isfinite(own).all()):
        raise UserError("the test kernels hold NaN or infinity: verify and repair what they came from")
    shifted = _shifted(spectrum, assumed.ridge)
    across = block @ spectrum.vectors  # (h, n)
    reduced = own - (across**2 / shifted).sum(axis=1)
    inverse = (across / shifted) @ spectrum.vectors.T  # w of each image
    diagonal = np.einsum("ij,ij,j->i", spectrum.vectors, spectrum.vectors, spectrum.values)
    parts = (own, 2 * np.sqrt(((block * inverse) ** 2).sum(axis=1)), inverse**2 @ diagonal)
    error = assumed.scale * KERNEL_ERROR * np.sqrt(sum(part**2 for part in parts))
    variance = assumed.scale * reduced
    negative = int((variance < -4 * error).sum())
    return Posterior(block @ alpha, np.maximum(variance, error), error, negative)


def _shifted(spectrum: Spectrum, ridge: float) -> np.ndarray:
    if not 0 <= ridge < np.inf:
        raise UserError(f"ridge {ridge:g} is not possible: use a finite one of at least 0")
    shifted = spectrum.values + ridge * spectrum.mean_diagonal
    if not shifted[0] > 0:
        raise UserError(
            "the train Gram matrix is singular (equal images): a posterior without noise does not exist: "
            "use a ridge above 0, or let the likelihood choose it"
        )
    return shifted


def _likelihood(shifted: np.ndarray, projected: np.ndarray) -> tuple[float, float]:
    """The scale of maximum likelihood, and log p(y) with it."""
    n, k = projected.shape
    scale = float((projected**2 / shifted[:, None]).sum()) / (n * k)
    return scale, -(n * k * (1 + np.log(2 * np.pi * scale)) + k * float(np.log(shifted).sum())) / 2
