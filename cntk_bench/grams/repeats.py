"""Training images that occur more than once: they all get the row and column of their first occurrence.

Kernels are stored in float32, and K(x, z) and K(z, x) may differ in the last bit. Which of them a row of the
Gram matrix has depends on the image's position, so the rows of equal images may differ. Rounding would then
tell equal images apart, and decide how a solution fits two labels of one image (`regression.sensitivity`).
"""

import numpy as np


def leaders(known: np.ndarray | None) -> np.ndarray | None:
    """Index of the first image equal to each, (n,), by digests (n,); None if all differ or are unknown."""
    if known is None:
        return None
    _, first, which = np.unique(known, return_index=True, return_inverse=True)
    return None if len(first) == len(known) else first[which.ravel()]


def of_images(x: np.ndarray) -> np.ndarray | None:
    """`leaders` of images (n, C, P, P), comparing their bytes."""
    rows = np.ascontiguousarray(x).reshape(len(x), -1)
    return leaders(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel())


def share(gram: np.ndarray, leader: np.ndarray | None) -> None:
    """Give equal images the first one's row and column, in place in the lower triangle of (n, n)."""
    for image, first in zip(*_repeats(leader), strict=True):
        gram[image, : first + 1] = gram[first, : first + 1]
        gram[image, first + 1 : image] = gram[first + 1 : image, first]
        gram[image, image] = gram[first, first]
        gram[image + 1 :, image] = gram[image + 1 :, first]


def share_columns(block: np.ndarray, leader: np.ndarray | None) -> None:
    """Give equal images the first one's column, in place in rows (h, n) of other images."""
    images, first = _repeats(leader)
    block[:, images] = block[:, first]


def _repeats(leader: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Images that repeat an earlier one, ascending, and the first occurrence of each."""
    if leader is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    images = np.flatnonzero(leader != np.arange(len(leader)))
    return images, leader[images]
