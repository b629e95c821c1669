"""Training images that occur more than once: their rows and columns are those of the first of them.

Kernels are stored in float32, and K(x, z) and K(z, x) may differ in the last bit. A row of the Gram matrix
has both kinds, and where an image comes twice, at different places, so may its rows: rounding would tell
equal images apart, and decide what a solution makes of two labels of one image (`regression.sensitivity`).
"""

import numpy as np


def leaders(known: np.ndarray | None) -> np.ndarray | None:
    """The first image that equals each one, (n,), by digests (n,); None where all differ or are unknown."""
    if known is None:
        return None
    _, first, which = np.unique(known, return_index=True, return_inverse=True)
    return None if len(first) == len(known) else first[which.ravel()]


def of_images(x: np.ndarray) -> np.ndarray | None:
    """`leaders` of images (n, C, P, P), by their bytes."""
    rows = np.ascontiguousarray(x).reshape(len(x), -1)
    return leaders(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel())


def share(gram: np.ndarray, leader: np.ndarray | None) -> None:
    """Let equal images share the first one's row and column, in the lower triangle of (n, n)."""
    for image, first in zip(*_repeats(leader), strict=True):
        gram[image, : first + 1] = gram[first, : first + 1]
        gram[image, first + 1 : image] = gram[first + 1 : image, first]
        gram[image, image] = gram[first, first]
        gram[image + 1 :, image] = gram[image + 1 :, first]


def share_columns(block: np.ndarray, leader: np.ndarray | None) -> None:
    """Let equal images share the columns of the first, in rows (h, n) of others."""
    images, first = _repeats(leader)
    block[:, images] = block[:, first]


def _repeats(leader: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Images that are not the first of their kind, ascending, and the first of each one's."""
    if leader is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    images = np.flatnonzero(leader != np.arange(len(leader)))
    return images, leader[images]
