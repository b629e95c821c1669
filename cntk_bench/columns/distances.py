"""Kernels of Euclidean distances, in float64, a block of images at a time."""

from collections.abc import Callable, Iterator

import numpy as np

from cntk_bench.errors import UserError

BLOCK = 1024  # images; bounds the temporaries beside a matrix of n columns
SAMPLE = 2000  # first training images, whose pairs give the median distance
# A squared distance below this share of |x|^2 + |z|^2 is computed from the difference itself: as
# |x|^2 + |z|^2 - 2 x.z it would keep fewer than about nine digits.
NEAR = 1e-6
ERROR = 1e-9  # relative error of a kernel, at most about


def flattened(images: np.ndarray) -> np.ndarray:
    """Images (n, C, P, P) as vectors (n, C P P), float64."""
    return images.reshape(len(images), -1).astype(np.float64)


def blocks(images: np.ndarray) -> Iterator[np.ndarray]:
    """The vectors of `flattened`, `BLOCK` of them at a time."""
    return (flattened(images[start : start + BLOCK]) for start in range(0, len(images), BLOCK))


def squared(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """|x_i - z_j|^2, an array (n, m), for vectors (n, d) and (m, d), float64."""
    from sklearn.metrics.pairwise import euclidean_distances

    own, other = (x**2).sum(1)[:, None], (z**2).sum(1)[None]
    found = euclidean_distances(x, z, squared=True, X_norm_squared=own, Y_norm_squared=other)
    i, j = np.nonzero(found <= NEAR * (own + other))
    for start in range(0, len(i), BLOCK):
        a, b = i[start : start + BLOCK], j[start : start + BLOCK]
        found[a, b] = ((x[a] - z[b]) ** 2).sum(1)
    return found


def median(x: np.ndarray) -> float:
    """The median of |x_i - x_j| over pairs i < j of the first `SAMPLE` vectors.

    Raises
    ------
    UserError
        If it is 0: then most of the images are equal, and a bandwidth relative to it means nothing.
    """
    some = x[:SAMPLE]
    found = float(np.median(np.sqrt(squared(some, some)[np.triu_indices(len(some), 1)])))
    if not found > 0:
        raise UserError(
            "more than half of the pairs of training images are equal, so that their median distance, the "
            "unit of baseline.bandwidths, is 0: leave out the columns RBF, LAPLACE and the Gaussian processes"
        )
    return found


def train(x: np.ndarray, kernel: Callable[[np.ndarray], np.ndarray], dtype: str) -> np.ndarray:
    """The matrix of kernel(|x_i - x_j|^2), (n, n); only its lower triangle is filled."""
    out = np.zeros((len(x), len(x)), dtype)
    for start in range(0, len(x), BLOCK):
        rows = slice(start, start + BLOCK)
        out[rows, : start + BLOCK] = kernel(squared(x[rows], x[: start + BLOCK]))
    return out


def test(
    z: np.ndarray, x: np.ndarray, kernel: Callable[[np.ndarray], np.ndarray], centre: np.ndarray
) -> Iterator[np.ndarray]:
    """The test x train matrix, a block (h, n) at a time, for test images (m, C, P, P) less `centre`."""
    for block in blocks(z):
        yield kernel(squared(block - centre, x))
