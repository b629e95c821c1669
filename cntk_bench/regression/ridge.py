"""Kernel regression on a stored Gram matrix: exact solves, a ridge path, leave-one-out.

K train x train Gram matrix (n, n); Y targets (n, k), one-hot minus 0.1; r the absolute ridge:

    alpha = (K + r I)^-1 Y                                   f(x) = K(x, train) alpha
    y_i - f_{-i}(x_i) = alpha_i / [(K + r I)^-1]_ii          leave-one-out, without refitting

The predicted class is the argmax of f. The 0.1 shifts all k outputs by one and the same function,
so it never changes a prediction; it is kept for any k because it is what the paper states.

Ridges are relative: r = ridge * trace(K) / n, fixed once, so that a ridge means the same for
CNTK-V (a sum over pixels) and CNTK-GAP (a mean). Where K + r I is not numerically positive
definite, or cannot be solved to a small residual, a jitter is added, the smallest of 1e-10, 1e-9 ..
1e-4 that suffices, in units of each image's own K_ii (a black image's, which is 0, in those of the
mean), so that bright and dark images are treated alike; all figures are then those of the jittered
matrix. As the jitter goes to 0 its leave-one-out residuals have the right limit for a singular K,
[P Y]_i / [P]_ii with P the projector on the null space; those of a pseudo-inverse are another thing.
Its predictions go to those of the distinct images alone, equal ones having the mean of their targets.

A solution is trusted if it solves what it says it solves: no entry of Y - (K + r I) alpha, computed
in float64, is beyond `RESIDUAL`. Refinement comes first: alpha += (factor)^-1 residual gains digits
as long as the factor has any, so a float32 factor gives float64 solutions of all but the most
ill-conditioned matrices (Higham, "Accuracy and Stability of Numerical Algorithms", chapter 12).

Source: Arora et al., "On Exact Computation with an Infinitely Wide Neural Net", NeurIPS 2019
(no ridge); leave-one-out: Rasmussen and Williams, "Gaussian Processes for Machine Learning",
section 5.4.2. One Cholesky factor per ridge, not one eigendecomposition for all: an
eigendecomposition costs some ten times a factor and needs three times the memory.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression import cholesky
from cntk_bench.regression.cholesky import Cholesky, Device, NotPositiveDefinite
from cntk_bench.text import one_line, short

LOO_RIDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LARGEST = 1e4  # to which "loo" goes on: there the diagonal rules, and larger ridges change no class
JITTERS = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)

RESIDUAL = 1e-3  # of a target, whose two values are 1 apart: more would show in the scores
REFINED = 1e-9  # a residual that needs no refinement
ROUNDS = 10  # of refinement, at most; each must halve the residual
STORED = 2.0**-23  # relative error of an ordinary stored kernel, about: the backends', and float32's


@dataclass(frozen=True)
class Fit:
    """One ridge, solved: plain numbers.

    ridge : relative to trace(K) / n; added to the diagonal.
    jitter : relative to each image's own K_ii; added to the diagonal, too.
    loo_error, loo_accuracy : leave-one-out mean squared error (over images and classes), accuracy
        as a fraction.
    condition : estimated 1-norm condition number of the matrix that was factored; a lower bound,
        rarely below a third of the truth (Hager 1984, Higham 1988).
    residual : |(K + r I) alpha - Y| / |Y|, Frobenius norms.
    largest_residual : the largest entry of |(K + r I) alpha - Y|.
    smallest_pivot : the smallest pivot of the factor, relative to trace(K) / n.
    seconds : wall time.
    doubt : why nothing here can be trusted, in one sentence; None where it can.
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


@dataclass(frozen=True)
class Solution:
    """What a ridge path gives.

    alpha : dual coefficients (n, k), float64, of the chosen ridge.
    chosen : its figures.
    path : those of all ridges tried.
    edge : "smallest" or "largest" where the chosen ridge is at that end of those tried, and one
        beyond it might be better; else None.
    """

    alpha: np.ndarray
    chosen: Fit
    path: tuple[Fit, ...]
    edge: str | None = None


@dataclass(frozen=True)
class Prediction:
    """Classes (m,), int64, and how many of them the errors of stored kernels alone could change."""

    classes: np.ndarray
    undecided: int


def ridges(value: float | str | Sequence[float]) -> tuple[float, ...]:
    """The relative ridges that a setting stands for: a number, a list, or "loo" (`LOO_RIDGES`)."""
    if isinstance(value, str):
        if value != "loo":
            raise UserError(f"ridge {short(value)} is unknown: use a number, a list of numbers or 'loo'")
        return LOO_RIDGES
    values: list[Any] = list(value) if isinstance(value, Sequence | np.ndarray) else [value]
    if not values:
        raise UserError("the list of ridges is empty: name at least one, such as [0]")
    for r in values:
        number = isinstance(r, int | float | np.number) and not isinstance(r, bool)
        if not (number and np.isfinite(r) and r >= 0):
            raise UserError(f"ridge {short(r)} is not possible: use finite numbers >= 0, or 'loo'")
    return tuple(dict.fromkeys(float(r) for r in values))


def targets(labels, classes: int, dtype="float64"):
    """Labels (n,) -> one-hot minus 0.1, an array (n, classes)."""
    return np.eye(classes, dtype=dtype)[labels] - np.asarray(0.1, dtype)


def solve(
    gram,
    labels,
    *,
    classes: int,
    ridge: float | str | Sequence[float] = 0.0,
    device: str = "cpu",
    dtype: str = "float64",
    overwrite: bool = False,
) -> Solution:
    """Fit every ridge asked for and choose the one of least leave-one-out squared error.

    The squared error is what the regression minimises and it is smooth, where accuracy moves in
    steps of 1/n; of equal errors the larger ridge wins. A fit in doubt is chosen only if all are.
    Nothing here sees a test image.

    Parameters
    ----------
    gram : array (n, n), float
        The symmetric Gram matrix of the training images; only its lower triangle is read. For a GPU
        leave it float32, as stored: it is widened there.
    labels : array (n,), int
        Their classes, 0 .. classes - 1.
    classes : int
        Number of classes k, at least 2.
    ridge : float, sequence of float, or "loo"
        Relative to the mean diagonal; 0, the paper's, by default. A sequence or "loo" is a path;
        "loo" goes on to larger ridges, up to `LARGEST`, while the largest is the best.
    device, dtype : str
        As decided by `placement.choose`.
    overwrite : bool
        On the CPU, work inside `gram` (its upper triangle is lost) if it has this dtype and C
        order; otherwise a copy is made. On a GPU `gram` is never changed.

    Raises
    ------
    UserError
        If shapes, labels or ridges are wrong, if `gram` holds NaN or infinity, or if it is not
        positive definite even with the largest jitter.
    """
    gram = np.asarray(gram)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or len(gram) < 2:
        raise UserError(f"a Gram matrix of shape {gram.shape} cannot be solved: it must be n x n, n >= 2")
    labels = _labels(labels, len(gram), classes)
    values = list(ridges(ridge))
    with _device_errors(device):
        hardware = Device.named(device)
        factor = Cholesky(_load(gram, hardware.xp, np.dtype(dtype), overwrite), hardware)
        mean_diagonal, norm = _inspect(factor)
        best, path = None, []
        for value in values:  # which grows
            found = _fit(factor, labels, classes, value, mean_diagonal, norm)
            path.append(found[1])
            if best is None or _rank(found[1]) < _rank(best[1]):
                best = found
            largest = value == values[-1] == best[1].ridge
            if isinstance(ridge, str) and largest and 10 * value <= LARGEST:
                values.append(10 * value)
    assert best is not None  # there is one ridge at least
    alpha, chosen = best
    return Solution(alpha, chosen, tuple(path), _edge(chosen.ridge, values))


def _rank(fit: Fit) -> tuple:
    """The least is the best: trusted, of small error, of a large ridge; an error of NaN is the worst."""
    error = fit.loo_error if np.isfinite(fit.loo_error) else np.inf
    return fit.doubt is not None, error, -fit.ridge


def _edge(ridge: float, values: Sequence[float]) -> str | None:
    if len(values) == 1:
        return None
    if ridge == max(values):
        return "largest"
    return "smallest" if ridge == min(values) > 0 else None


@contextmanager
def _device_errors(device: str) -> Iterator[None]:
    """Turn what CuPy says of a GPU that fails, or is full, into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if device != "cuda":
            raise
        raise UserError(
            f"the GPU failed in the solve ({one_line(error, 120) or type(error).__name__}): "
            "free its memory, or use --set solve.device=cpu"
        ) from error


def predict(alpha: np.ndarray, blocks: Iterable) -> Prediction:
    """Classes of m test images whose Gram rows (h, n) come in blocks, in order.

    Stored kernels have float32's precision. Large coefficients of opposite signs, as two almost equal
    images of different classes get, make their errors as large as the scores: an image whose best two
    scores are closer than the errors' standard deviation, STORED sqrt(sum_i (K_i alpha_i)^2), is
    undecided.
    """
    classes, undecided = [], 0
    for block in blocks:
        block = np.asarray(block, np.float64)
        together = _together(alpha, block)
        scores = block @ together
        if not np.isfinite(scores).all():
            raise UserError("the test Gram matrix holds NaN or infinity: verify and repair what it came from")
        order = np.argsort(scores, axis=1)
        second, best = order[:, -2], order[:, -1]
        rows = np.arange(len(scores))
        noise = STORED * np.sqrt(block**2 @ together**2)
        margin = scores[rows, best] - scores[rows, second]
        undecided += int((margin < np.hypot(noise[rows, best], noise[rows, second])).sum())
        classes.append(scores.argmax(axis=1))  # of equal scores, the first
    return Prediction(np.concatenate(classes), undecided)


def _together(alpha: np.ndarray, block: np.ndarray) -> np.ndarray:
    """alpha, where training images with equal columns of `block` count as one: the first has their sum.

    The coefficients of equal images of different classes are huge, of opposite signs, and cancel; their
    kernels have the same errors. Summed first, neither rounding nor those errors count.
    """
    _, first, which = np.unique(block[:4].T, axis=0, return_index=True, return_inverse=True)
    leader = first[which.ravel()]
    (others,) = np.nonzero(leader != np.arange(len(alpha)))
    apart = others[(block[:, others] != block[:, leader[others]]).any(axis=0)]
    leader[apart] = apart
    out = np.zeros(alpha.shape)
    np.add.at(out, leader, alpha)
    return out


def _labels(labels, n, classes):
    labels = np.asarray(labels)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise UserError(f"labels of shape {labels.shape} and type {labels.dtype}: {n} integers are needed")
    if classes < 2:
        raise UserError(f"{classes} classes: regression needs at least 2")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise UserError(f"label {wrong[0]} is outside 0 .. {classes - 1}: mend the labels")
    return labels


def _inspect(factor):
    """Mean diagonal and 1-norm of a Gram matrix, once it is known to be finite."""
    sums = factor.absolute_row_sums()
    if not np.isfinite(sums).all():
        row = int(np.flatnonzero(~np.isfinite(sums))[0])
        raise UserError(
            f"the train Gram matrix holds NaN or infinity (first in row {row}): "
            "verify and repair what it came from"
        )
    mean_diagonal = float(factor.matrix.diagonal().mean(dtype=np.float64))
    if not mean_diagonal > 0:
        raise UserError(f"the train Gram matrix has mean diagonal {mean_diagonal:g}: a kernel's is positive")
    return mean_diagonal, float(sums.max())


def _load(gram, xp, dtype, overwrite):
    """`gram` as a C-ordered device array that may be written to."""
    if xp is np:
        usable = overwrite and gram.dtype == dtype and gram.flags.c_contiguous and gram.flags.writeable
        return gram if usable else np.array(gram, dtype, order="C")
    out = xp.empty(gram.shape, dtype)
    for start in range(0, len(gram), cholesky.BLOCK):
        rows = slice(start, start + cholesky.BLOCK)
        out[rows] = xp.asarray(gram[rows])
    return out


def _fit(factor, labels, classes, ridge, mean_diagonal, norm):
    """The fit of the least jitter whose solution can be trusted; else that of the smallest residual."""
    started = time.perf_counter()
    y = targets(labels, classes)
    # Rounding errors in a pivot add up like a random walk of n steps of size eps.
    eps = np.finfo(factor.matrix.dtype).eps
    tolerance = len(factor.matrix) ** 0.5 * eps
    own = factor.device.to_host(factor.matrix.diagonal()).astype(np.float64)
    own[own <= 0] = mean_diagonal
    best, pivot = None, 0.0
    for jitter in (0.0, *(j for j in JITTERS if j > 4 * eps)):
        shift = ridge * mean_diagonal + jitter * own
        try:
            smallest = factor.factor(shift, tolerance)
        except NotPositiveDefinite as error:
            pivot = error.pivot
            continue
        alpha, residual = _refined(factor, y, shift)
        largest = float(np.abs(residual).max())
        if best is not None and not largest < best[1].largest_residual:
            continue
        inverse_diagonal = factor.inverse_diagonal()
        left_out = alpha / inverse_diagonal[:, None]  # y_i - f_{-i}(x_i)
        best = (
            alpha,
            Fit(
                ridge=ridge,
                jitter=jitter,
                loo_error=float((left_out**2).mean()),
                loo_accuracy=float(((y - left_out).argmax(axis=1) == labels).mean()),
                condition=(norm + float(shift.max())) * _inverse_norm(factor, inverse_diagonal),
                residual=float(np.linalg.norm(residual) / np.linalg.norm(y)),
                largest_residual=largest,
                smallest_pivot=smallest / mean_diagonal,
                seconds=time.perf_counter() - started,
                doubt=None if largest <= RESIDUAL else _doubt(largest),
            ),
        )
        if best[1].doubt is None:
            break
    if best is None:
        raise UserError(
            f"the train Gram matrix is not positive definite: with ridge {ridge:g} and jitter {jitter:g} a "
            f"pivot is {pivot:.2g} of its diagonal entry; raise solve.ridge to {10 * (ridge + jitter):g}"
        )
    return best


def _doubt(residual: float) -> str:
    return f"not solved: residuals of up to {residual:.2g} of a target; raise solve.ridge, or use float64"


def _refined(factor, y, shift):
    """alpha and Y - (A + diag(shift)) alpha, both in float64 (n, k), refined while that helps."""

    def solved(right):
        with np.errstate(over="ignore", invalid="ignore"):
            return factor.solve(right).astype(np.float64)

    def left(alpha):
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


def _inverse_norm(factor, inverse_diagonal):
    """Estimate the 1-norm of the inverse: Hager's ascent over its columns.

    It starts at the column of the largest diagonal entry, which no null vector of a nearly singular
    matrix can hide from, as it can from the usual start (the mean of the columns).
    """
    column, norm = int(inverse_diagonal.argmax()), 0.0
    for _ in range(5):
        x = factor.solve(np.eye(1, len(inverse_diagonal), column).T)
        if not np.abs(x).sum() > norm:
            break
        norm = float(np.abs(x).sum())
        column = int(np.abs(factor.solve(np.sign(x))).argmax())
    return norm
