"""Kernels scaled to a diagonal of one, K_ij / sqrt(K_ii K_jj), as Li et al. (2019) solve theirs.

Kernels of test images with themselves are not stored, and for pooled kernels have no closed form; but they
are not needed. With s_j = 1 / sqrt(K_jj) of a training image and s_t > 0 of a test image t, its scores of the
classes k are

    f_k(t) = sum_j s_t K_tj s_j alpha_jk = s_t (sum_j K_tj s_j alpha_jk)

so s_t multiplies the scores of all classes alike, and changes neither which is the largest nor by how many
of its own rounding errors it leads. The scores themselves and their differences remain unknown: they are not
kept, and no margin of one image is compared with another's. Where K_tt = 0, all K_tj are 0
(K_tj^2 <= K_tt K_jj), and all scores are 0 with any s_t.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from cntk_bench.regression.cholesky import BLOCK


def of_diagonal(own: np.ndarray) -> np.ndarray:
    """s_j = 1 / sqrt(K_jj) (n,), float64, of a diagonal; 1 where K_jj is 0."""
    own = np.asarray(own, np.float64)
    bright = own > 0
    return np.where(bright, 1 / np.sqrt(np.where(bright, own, 1)), 1)


def unit_diagonal(gram: np.ndarray) -> np.ndarray:
    """Scale the lower triangle of a Gram matrix in place.

    Parameters
    ----------
    gram : array (n, n), float
        Its lower triangle is read and scaled; what stands above it may be scaled, too. An image whose kernel
        with itself is 0, such as a black one, keeps its row of zeros.

    Returns
    -------
    array (n,), float64
        As `of_diagonal`.
    """
    own = gram.diagonal().astype(np.float64)
    scale = of_diagonal(own)
    for start in range(0, len(gram), BLOCK):
        rows = slice(start, start + BLOCK)
        gram[rows] *= scale[rows, None] * scale  # equal rows stay equal to the bit: s_i s_j is s_j s_i
    return scale


def scaled_blocks(blocks: Iterable[np.ndarray], scale: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of test images (h, n) times the scale (n,) of the training images, a block at a time.

    Instead of being multiplied by s_t, each row is divided by its largest entry, which is 1 / s_t times the
    largest normalised kernel with a training image. So the row is of the size of a training image's, whose
    largest entry is its diagonal one, and its scores err by about the residual as a training image's do:
    those errors, k_t^T (K + r I)^-1 (Y - (K + r I) alpha), are proportional to the row, as the scores are.
    """
    for block in blocks:
        rows = np.asarray(block, np.float64) * scale
        largest = np.abs(rows).max(axis=1, keepdims=True)
        yield rows / np.where(largest > 0, largest, 1)
