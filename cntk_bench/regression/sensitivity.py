"""How far errors of stored kernels move a solution, which `fit` and `attempts` check before they trust one.

Stored kernels have relative errors, those of float32. With errors e_ij K_ij the coefficients alpha fit
targets that are off by sum_j e_ij K_ij alpha_j, of standard deviation error sqrt(sum_j (K_ij alpha_j)^2).
That is little if the matrix is well conditioned. But if two images are equal, or almost, and their labels
are not, they can be fitted only by the difference of their rows; if that is rounding, coefficients are as
large as its reciprocal, every other image is fitted to noise, and no residual shows it, because what is
solved is K with its errors.

The error assumed, `KERNEL_ERROR`, is a standard deviation, that of ordinary images: the errors' root mean
square is 3.6e-8 for CNTK-GAP of CIFAR-10 at depth 3, and 8.3e-8 of digits at depth 11. It is not that of
CNTK-GAP and LAP of nearly flat images, up to 5e-4, which no number of a matrix tells apart
(`grams.verify.tolerance`). An error that covers them, or even one of 1e-6, would raise the jitter of all
others: at 1e-6, that of CNTK-GAP on CIFAR-10 from some 600 images on. docs/how-to/trust.md says what follows.

Rows that agree to the bit are harmless: their coefficients cancel, errors and all, and they count as one.
"""

import hashlib
from collections.abc import Callable

import numpy as np

KERNEL_ERROR = 2.0**-23  # approximate relative error of a stored kernel of ordinary images
MOVED = 1e-2  # of a target; less noise than this on all scores changes no accuracy noticeably
MOST = 1024  # rows compared at most, those of the largest coefficients; or n / 8 if that is more
ENTRIES = 2**22  # numbers of the rows that are compared at a time, at most, but 16 rows at least


def moved(
    times: Callable[..., np.ndarray],
    alpha: np.ndarray,
    own: np.ndarray,
    error: float = KERNEL_ERROR,
    weight: np.ndarray | float = 1.0,
) -> float:
    """How far errors of kernels move the targets that are fitted: root mean square, in units of targets.

    Parameters
    ----------
    times : callable
        K b for b (n, j); with squared=True, the same for the squares of K's entries.
    alpha : array (n, k), float64
        Dual coefficients.
    own : array (n,), float64
        K's diagonal.
    error : float
        Relative error of a kernel.
    weight : array (n, 1) or float
        Factor that brings K alpha to the units of targets.
    """
    (found,) = moved_each(times, alpha, 1, error, weight)
    if not found > MOVED:
        return float(found)
    brightest = float(np.max(weight * np.sqrt(own)[:, None]))
    reach = error * brightest * np.sqrt(own) * np.abs(alpha).max(axis=1)  # at most, for an entry of K
    large = np.flatnonzero(reach > MOVED / (2 * len(alpha) ** 0.5))  # whose effects may add up
    if len(large) > (most := max(MOST, len(alpha) // 8)):
        large = np.sort(large[np.argsort(-reach[large], kind="stable")[:most]])
    if len(large) > 1:
        (found,) = moved_each(times, _together(times, alpha, large), 1, error, weight)
    return float(found)


def moved_each(
    times: Callable[..., np.ndarray],
    alpha: np.ndarray,
    count: int,
    error: float = KERNEL_ERROR,
    weight: np.ndarray | float = 1.0,
) -> np.ndarray:
    """As `moved`, for several solutions side by side, alpha (n, count k): (count,).

    Equal rows of K are not looked for, so they may count too much.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = weight**2 * times(alpha**2, squared=True)
        mean = squares.reshape(len(alpha), count, -1).mean(axis=(0, 2))
        return np.where(np.isfinite(mean), error * np.sqrt(mean), np.inf)


def doubt(found: float, remedy: str = "raise solve.ridge") -> str | None:
    """Why a solution whose targets are moved by `found` cannot be trusted; None if it can."""
    if not found <= MOVED:
        return (
            f"the errors of stored kernels alone move what is fitted by {found:.2g} of a target, as where "
            f"almost equal images have different labels; {remedy}"
        )
    return None


def _together(times: Callable[..., np.ndarray], alpha: np.ndarray, some: np.ndarray) -> np.ndarray:
    """alpha, with images that have equal rows of K counted as one: the first gets their sum.

    Only the images `some` are compared.
    """
    out, seen = alpha.copy(), dict[bytes, int]()
    at_once = max(16, ENTRIES // len(alpha))
    for start in range(0, len(some), at_once):
        chosen = some[start : start + at_once]
        unit = np.zeros((len(alpha), len(chosen)))
        unit[chosen, np.arange(len(chosen))] = 1
        for image, row in zip(chosen, times(unit).T, strict=True):  # each an exact row of K
            first = seen.setdefault(hashlib.sha256(row.tobytes()).digest(), int(image))
            if first != image:
                out[first] += out[image]
                out[image] = 0
    return out
