"""Solve one ridge: coefficients, leave-one-out figures, and how far they can be trusted.

If K + r I is not numerically positive definite, or cannot be solved to a small residual, a jitter is added,
the smallest of 1e-10, 1e-9 .. 1e-4 that suffices, in units of the mean diagonal, as the ridge is: so it is
what a larger ridge would be, and all figures are those of that ridge. Units of each image's own K_ii would
treat bright and dark images alike, but targets that a singular K cannot fit would then be fitted with weights
1 / K_ii, which no ridge gives: its limit is least squares. As the jitter goes to 0, leave-one-out residuals
have the right limit for a singular K, [P Y]_i / [P]_ii with P the projector on the null space, which those of
a pseudo-inverse do not have. Predictions go to those of least squares of least norm; if some images are
equal, these are those of the distinct images alone, equal ones having the mean of their targets.

A solution is trusted if no entry of Y - (K + r I) alpha, computed in float64, is beyond `RESIDUAL`, and if
the errors of stored kernels do not decide it (`sensitivity`). Refinement comes first: alpha += (factor)^-1
residual gains digits as long as the factor has any, so a float32 factor gives float64 solutions of all but
the most ill-conditioned matrices (Higham, "Accuracy and Stability of Numerical Algorithms", chapter 12).
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression import sensitivity
from cntk_bench.regression.cholesky import Cholesky, NotPositiveDefinite
from cntk_bench.regression.loading import Loaded
from cntk_bench.regression.sensitivity import KERNEL_ERROR

JITTERS = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)

RESIDUAL = 1e-3  # of a target, whose two values are 1 apart: more would show in the scores
REFINED = 1e-9  # a residual that needs no refinement
ROUNDS = 10  # of refinement, at most; each must halve the residual


@dataclass(frozen=True)
class Fit:
    """Figures of the solution of one ridge, as plain numbers. NaN stands for those that are not known.

    Parameters
    ----------
    ridge : float
        Relative to trace(K) / n; added to the diagonal.
    jitter : float
        In the same unit; added to the diagonal, too.
    loo_error, loo_accuracy : float
        Leave-one-out mean squared error (over images and classes), accuracy as a fraction; NaN where they
        were not asked for, the accuracy also where the targets are no classes.
    condition : float
        Estimated 1-norm condition number of the matrix that was factored; a lower bound, rarely below a third
        of the truth (Hager 1984, Higham 1988). `iterative.refined` factors another matrix than `fit` if
        kernels get a unit diagonal, and so has another condition.
    residual : float
        `|(K + r I) alpha - Y| / |Y|`, Frobenius norms.
    largest_residual : float
        The largest entry of `|(K + r I) alpha - Y|`.
    smallest_pivot : float
        The smallest pivot of the factor, relative to trace(K) / n.
    seconds : float
        Wall time.
    doubt : str or None
        Why nothing here can be trusted, in one sentence; None where it can.
    moved : float
        How far errors of the kernels move the targets that are fitted (`sensitivity.moved`).
    """

    ridge: float
    jitter: float
    loo_error: float
    loo_accuracy: float
    condition: float
    residual: float
    largest_residual: float
    smallest_pivot: float
    seconds: float
    doubt: str | None
    moved: float = float("nan")


@dataclass(frozen=True)
class Attempt:
    """A solution of (K + S) alpha = Y with one jitter.

    jitter, moved : as in `Fit`.
    shift : what ridge and jitter add to the diagonal, the diagonal (n,) of S.
    smallest_pivot : of the factor of K + S.
    alpha : (n, k), dual coefficients.
    residual : (n, k), Y - (K + S) alpha.
    """

    jitter: float
    shift: np.ndarray
    smallest_pivot: float
    alpha: np.ndarray
    residual: np.ndarray
    moved: float

    @property
    def largest_residual(self) -> float:
        """The largest entry of the residual, in magnitude."""
        return float(np.abs(self.residual).max())

    @property
    def distance(self) -> float:
        """As the function `distance`: the smaller, the better."""
        return distance(self.largest_residual, self.moved)


def fit(
    matrix: Loaded,
    y: np.ndarray,
    labels: np.ndarray | None,
    ridge: float,
    *,
    leave_one_out: bool = True,
    error: float = KERNEL_ERROR,
) -> tuple[np.ndarray, Fit]:
    """Solve with the smallest jitter whose solution can be trusted; else return the solution nearest to it.

    Parameters
    ----------
    matrix : Loaded
        The Gram matrix K (n, n).
    y : (n, k) float64
        Targets, of magnitude about one.
    labels : (n,) int, or None
        The classes, if these are the targets of classes.
    ridge : float
        Relative to the mean diagonal.
    leave_one_out : bool
        Whether leave-one-out figures are wanted, which cost as many operations as the factor.
    error : float
        Relative error of K's entries.

    Returns
    -------
    alpha (n, k), float64, and the fit.

    Raises
    ------
    UserError
        If not even the largest jitter makes it positive definite.
    """
    started, factor = time.perf_counter(), matrix.factor
    own = diagonal(factor)

    def figures(attempt: Attempt) -> Fit:
        inverse_diagonal = factor.inverse_diagonal() if leave_one_out else None
        # y_i - f_{-i}(x_i)
        left_out = None if inverse_diagonal is None else attempt.alpha / inverse_diagonal[:, None]
        return Fit(
            ridge=ridge,
            jitter=attempt.jitter,
            loo_error=float("nan") if left_out is None else float((left_out**2).mean()),
            loo_accuracy=accuracy(y, left_out, labels),
            condition=(matrix.norm + float(attempt.shift.max())) * inverse_norm(factor, inverse_diagonal),
            residual=float(np.linalg.norm(attempt.residual) / (np.linalg.norm(y) or 1)),  # targets may be 0
            largest_residual=attempt.largest_residual,
            smallest_pivot=attempt.smallest_pivot / matrix.mean_diagonal,
            seconds=time.perf_counter() - started,
            doubt=untrusted(attempt.largest_residual, attempt.moved) or _unfinished(left_out),
            moved=attempt.moved,
        )

    best = None
    for jitter, shift, smallest in factored(factor, ridge, matrix.mean_diagonal):
        alpha, residual = refined(factor, y, shift)
        moved = sensitivity.moved(factor.times, alpha, own, error)
        attempt = Attempt(jitter, shift, smallest, alpha, residual, moved)
        if best is None or attempt.distance < best.distance:
            best = attempt
        if attempt.distance <= 1:
            found = figures(attempt)
            if found.doubt is None:
                return alpha, found
    assert best is not None  # there is one factor at least
    factor.factor(best.shift, tolerance(factor))  # later attempts have replaced it; its figures are reported
    return best.alpha, figures(best)


def factored(
    factor: Cholesky, ridge: float, mean_diagonal: float, scale: np.ndarray | float = 1.0
) -> Iterator[tuple[float, np.ndarray, float]]:
    """Factor K + r I with each jitter that makes it possible; yields what each gives.

    Yields (jitter, what ridge and jitter add to the diagonal, smallest pivot). Parameters and errors are as
    for `fit`. With a scale s (n,) the ridge and the mean diagonal are those of s_i K_ij s_j, and
    K + r diag(s)^-2 is factored.
    """
    n, least = len(factor.matrix), tolerance(factor)
    eps = np.finfo(factor.matrix.dtype).eps
    some, pivot = False, 0.0
    for jitter in (0.0, *(j for j in JITTERS if j > 4 * eps)):
        shift = shifted(n, ridge, mean_diagonal, jitter, scale)
        try:
            smallest = factor.factor(shift, least)
        except NotPositiveDefinite as error:
            pivot = error.pivot
            continue
        some = True
        yield jitter, shift, smallest
    if not some:
        raise indefinite(ridge, jitter, pivot)


def tolerance(factor: Cholesky) -> float:
    """The relative size a pivot must exceed: its rounding errors are like a random walk of n steps of eps."""
    return float(len(factor.matrix) ** 0.5 * np.finfo(factor.matrix.dtype).eps)


def diagonal(factor: Cholesky) -> np.ndarray:
    """Diagonal of the matrix that is factored, (n,) float64."""
    return factor.device.to_host(factor.matrix.diagonal()).astype(np.float64)


def shifted(
    n: int, ridge: float, mean_diagonal: float, jitter: float, scale: np.ndarray | float = 1.0
) -> np.ndarray:
    """What ridge and jitter add to a diagonal, (n,) float64; scale as for `factored`."""
    return np.full(n, (ridge + jitter) * mean_diagonal / np.square(scale))


def indefinite(ridge: float, jitter: float, pivot: float) -> UserError:
    """The error to raise for a matrix that is not positive definite with a ridge and jitter.

    What is added to the diagonal raises each pivot by as much at least, relative to its diagonal entry. So
    ten times the ridge and the largest jitter lift this one above 0, if it is not further below. If it is,
    no rounding of a kernel's entries explains it.

    jitter, pivot : of one attempt; after it, larger jitters may have been known to be too small untried.
    """
    remedy = 10 * (ridge + JITTERS[-1])
    begin = (
        f"the train Gram matrix is not positive definite: with ridge {ridge:g} and jitter {jitter:g} a "
        f"pivot is {pivot:.2g} of its diagonal entry"
    )
    if pivot < ridge + jitter - remedy:
        return UserError(
            f"{begin}, which rounding does not explain: it is no kernel's, as those have no negative "
            "eigenvalues; verify what it came from"
        )
    return UserError(f"{begin}; raise solve.ridge to {remedy:g}")


def untrusted(residual: float, moved: float) -> str | None:
    """Why a solution with these values of its residual and `moved` cannot be trusted; None if it can."""
    if not residual <= RESIDUAL:
        return f"not solved: residuals of up to {residual:.2g} of a target; raise solve.ridge, or use float64"
    return sensitivity.doubt(moved)


def distance(residual: float, moved: float) -> float:
    """How far a solution is from one that can be trusted: at most 1 if it can be trusted itself."""
    return float(np.nan_to_num(max(residual / RESIDUAL, moved / sensitivity.MOVED), nan=np.inf))


def accuracy(y: np.ndarray, left_out: np.ndarray | None, labels: np.ndarray | None) -> float:
    """The share of images left out that get their label; NaN without labels, or if none was left out."""
    return (
        float("nan")
        if labels is None or left_out is None
        else float((_classes(y, left_out) == labels).mean())
    )


def _unfinished(left_out: np.ndarray | None) -> str | None:
    if left_out is not None and not np.isfinite(left_out).all():
        return "its leave-one-out residuals are not finite; raise solve.ridge, or use float64"
    return None


def _classes(y: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """The classes predicted for images left out; of scores that differ by rounding alone, the first."""
    scores = y - left_out
    rounding = 16 * np.finfo(np.float64).eps * (1 + abs(left_out).max(axis=1, keepdims=True))
    return (scores >= scores.max(axis=1, keepdims=True) - rounding).argmax(axis=1)


def refined(factor: Cholesky, y: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """alpha and Y - (A + diag(shift)) alpha, both in float64 (n, k), refined while that helps."""

    def solved(right: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            return factor.solve(right).astype(np.float64)

    def left(alpha: np.ndarray) -> tuple[np.ndarray, float]:
        residual = y - factor.times(alpha) - shift[:, None] * alpha
        return residual, np.abs(residual).max()

    alpha = solved(y)
    residual, size = left(alpha)
    for _ in range(ROUNDS):
        if size <= REFINED:
            break
        better = alpha + solved(residual)
        change, smaller = left(better)
        if not smaller < size / 2:
            break
        alpha, residual, size = better, change, smaller
    return alpha, residual


def inverse_norm(factor: Cholesky, inverse_diagonal: np.ndarray | None) -> float:
    """Estimate the 1-norm of the inverse: Hager's ascent over its columns.

    It starts at the column of the largest diagonal entry, which no null vector of a nearly singular
    matrix can hide from, as it can from the usual start (the mean of the columns); where the diagonal is not
    known, at that of the smallest pivot, whose reciprocal is no larger than its diagonal entry.
    """
    column = int(factor.pivots().argmin() if inverse_diagonal is None else inverse_diagonal.argmax())
    n, norm = len(factor.matrix), 0.0
    for _ in range(5):
        x = factor.solve(np.eye(1, n, column).T)
        if not np.abs(x).sum() > norm:
            break
        norm = float(np.abs(x).sum())
        column = int(np.abs(factor.solve(np.sign(x))).argmax())
    return norm
