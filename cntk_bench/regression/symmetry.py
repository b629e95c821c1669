"""Whether a matrix from outside is symmetric, as one that is solved by its lower triangle has to be."""

import numpy as np

from cntk_bench.regression.cholesky import BLOCK

ALLOWED = 1e-4  # of the largest entry: how far K_ij and K_ji may be apart, for kernels rounded in float32


def is_symmetric(gram: np.ndarray) -> bool:
    """Whether a finite matrix (n, n) is its own transpose up to rounding; looked at in blocks of rows."""
    allowed = ALLOWED * np.abs(gram).max()
    return all(
        bool((np.abs(gram[start : start + BLOCK] - gram[:, start : start + BLOCK].T) <= allowed).all())
        for start in range(0, len(gram), BLOCK)
    )
