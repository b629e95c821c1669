"""Kernel regression on the first m of n images, for several m, from one factor.

The upper Cholesky factor U of K + S has as its leading m x m block the factor of the leading block of
K + S. So one factor of n^3 / 3 operations serves every prefix; each then costs two triangular solves. What
is added to the diagonal, S, is the same for all: the absolute ridge of the whole matrix,
r = ridge trace(K) / n. A solve of m images alone adds ridge trace(K_m) / m instead, which differs as the
mean diagonals do; without ridge and jitter there is no difference. The jitter is the smallest with which
every prefix is solved (`fit`), so images in the whole set alone can bring jitter to all prefixes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression import checks, sensitivity
from cntk_bench.regression.cholesky import Cholesky
from cntk_bench.regression.fit import diagonal, distance, factored, refined, untrusted
from cntk_bench.regression.loading import loaded
from cntk_bench.regression.ridge import ridges
from cntk_bench.regression.targets import shifted_one_hot


@dataclass(frozen=True)
class Part:
    """The regression on the first images.

    train : how many, m.
    alpha : (m, k) float64, dual coefficients.
    ridge : what was added to the diagonal, relative to this part's own mean diagonal trace(K_m) / m.
    jitter : as in `fit.Fit`.
    largest_residual : the largest entry of |(K_m + S) alpha - Y|.
    doubt : why it cannot be trusted; None where it can.
    moved : as in `fit.Fit`.
    """

    train: int
    alpha: np.ndarray
    ridge: float
    jitter: float
    largest_residual: float
    doubt: str | None
    moved: float


def solve(
    gram: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    sizes: Sequence[int],
    ridge: float = 0.0,
    device: str = "cpu",
    dtype: str = "float64",
    overwrite: bool = False,
) -> tuple[Part, ...]:
    """Solve the regressions on the first m images for each m of `sizes`, ascending.

    Parameters
    ----------
    gram, labels, classes, device, dtype, overwrite
        As for `ridge.solve`.
    sizes : sequence of int
        Each from 2 to n.
    ridge : float
        A single ridge, relative to the mean diagonal of the whole matrix.

    Raises
    ------
    UserError
        As `ridge.solve` does, for the images of the smallest size, too: if they are all black, none is
        solved; and if a size is not possible.
    """
    (value,) = ridges(float(ridge))
    chosen = sorted(set(sizes))
    with loaded(gram, device, dtype, overwrite) as matrix:
        factor, mean = matrix.factor, matrix.mean_diagonal
        n = len(factor.matrix)
        labels = checks.labels(labels, n, classes)
        if not chosen or not 2 <= chosen[0] <= chosen[-1] <= n:
            wrong = next((size for size in chosen if not 2 <= size <= n), "none")
            raise UserError(f"size {wrong} is not possible: use numbers of training images from 2 to {n}")
        y = shifted_one_hot(labels, classes)
        own = diagonal(factor)
        if not own[: chosen[0]].any():
            bright = int((own > 0).argmax()) + 1
            raise UserError(
                f"the kernels of the first {chosen[0]} training images are all 0, as of black ones, from "
                f"which nothing can be learned: use sizes from {max(2, bright)} up"
            )
        best, least = None, np.inf
        for jitter, shift, _smallest in factored(factor, value, mean):
            found = [_solved(factor.leading(m), y[:m], shift[:m], own[:m]) for m in chosen]
            worst = max(distance(residual, moved) for _, residual, moved in found)
            if best is None or worst < least:
                best, least = (jitter, found), worst
            if worst <= 1:
                break
    assert best is not None  # there is one factor at least
    jitter, found = best

    def part(m: int, alpha: np.ndarray, residual: float, moved: float) -> Part:
        own_ridge = value * mean / own[:m].mean()
        return Part(m, alpha / matrix.unit, own_ridge, jitter, residual, untrusted(residual, moved), moved)

    return tuple(part(m, *one) for m, one in zip(chosen, found, strict=True))


def _solved(
    factor: Cholesky, y: np.ndarray, shift: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """alpha, its largest residual, and how far errors of kernels move it."""
    alpha, residual = refined(factor, y, shift)
    return alpha, float(np.abs(residual).max()), sensitivity.moved(factor.times, alpha, own)
