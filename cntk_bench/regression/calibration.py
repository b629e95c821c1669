"""Whether Gaussian predictions mean what they say: likelihood, interval coverage, and class probabilities.

The probability of class c is that its function is the largest, P(f_c > f_d for all d), of independent normal
f_d of means m_d and one variance v:

    P_c = integral phi(z) prod_{d != c} Phi(z + (m_c - m_d) / sqrt(v)) dz

computed by the trapezoidal rule, which converges faster than any power of its step for such functions. It
is the probability for the functions themselves, without the noise of targets. A softmax of the means would
be no posterior probability of anything.

A variance may be 0: a black image's kernels are all 0, and so are its functions. Then the limit v -> 0 is
taken: classes that tie for the largest mean have equal probabilities.
"""

import numpy as np
from scipy.special import ndtr, ndtri

REACH, STEP = 9.0, 0.125  # of z: beyond, phi is below 1e-17
ROWS = 256  # images at a time
BINS = 15


def probabilities(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Class probabilities (m, k) of means (m, k) and variances (m,), which are at least 0."""
    z = np.arange(-REACH, REACH + STEP / 2, STEP)
    weight = STEP * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    out = np.empty(mean.shape)
    for first in range(0, len(mean), ROWS):
        rows = slice(first, first + ROWS)
        some, deviation = mean[rows], np.sqrt(variance[rows])
        for c in range(mean.shape[1]):
            product = np.repeat(weight[None], len(some), axis=0)
            for d in range(mean.shape[1]):
                if d != c:
                    product *= ndtr(z + _over(some[:, c] - some[:, d], deviation)[:, None])
            out[rows, c] = product.sum(axis=1)
    return out


def negative_log_likelihood(mean: np.ndarray, variance: np.ndarray, y: np.ndarray) -> float:
    """Mean over m images and k classes of -log N(y; mean, variance), y and mean (m, k), variance (m,).

    It is infinite if a variance is 0 and the mean is not y.
    """
    spread, distance = variance[:, None], (y - mean) ** 2
    if (distance[variance == 0] > 0).any():
        return float("inf")
    with np.errstate(divide="ignore"):  # minus infinity where a variance is 0 and the mean is y
        return float((_over(distance, spread) + np.log(2 * np.pi * spread)).mean() / 2)


def coverage(mean: np.ndarray, variance: np.ndarray, y: np.ndarray, level: float) -> float:
    """The share of targets inside their central intervals of probability `level`."""
    reach = ndtri((1 + level) / 2) * np.sqrt(variance[:, None])
    return float((np.abs(y - mean) <= reach).mean())


def reliability(found: np.ndarray, labels: np.ndarray, bins: int = BINS) -> tuple[list[dict], float]:
    """How often the likeliest class is right, by how likely it was said to be.

    Parameters
    ----------
    found : array (m, k)
        Class probabilities.
    labels : array (m,), int
    bins : int
        Of equal width from 0 to 1; a probability at an edge belongs to the bin below.

    Returns
    -------
    list of dict
        For each bin that has images: low, high, count, confidence (mean probability) and accuracy, as shares.
    float
        The expected calibration error: the mean over images of their bin's |accuracy - confidence|
        (Naeini et al. 2015; Guo et al. 2017).
    """
    confidence, right = found.max(axis=1), found.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    table, error = [], 0.0
    for one in np.unique(place):
        here = place == one
        said, true = float(confidence[here].mean()), float(right[here].mean())
        table.append(
            {
                "low": one / bins,
                "high": (one + 1) / bins,
                "count": int(here.sum()),
                "confidence": said,
                "accuracy": true,
            }
        )
        error += here.mean() * abs(true - said)
    return table, float(error)


def _over(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """values / by, infinite where only `by` is 0, and 0 where both are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values == 0, 0, values / by)
