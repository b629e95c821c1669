"""Kernel regression on a stored Gram matrix: exact solves, a ridge path, leave-one-out.

K train x train Gram matrix (n, n); Y targets (n, k), one-hot minus 0.1; r the absolute ridge:

    alpha = (K + r I)^-1 Y                                   f(x) = K(x, train) alpha
    y_i - f_{-i}(x_i) = alpha_i / [(K + r I)^-1]_ii          leave-one-out, without refitting

The predicted class is the argmax of f. The 0.1 shifts all k outputs by one and the same function,
so it never changes a prediction; it is kept for any k because it is what the paper states.

Ridges are relative: r = ridge * trace(K) / n, fixed once, so that a ridge means the same for
CNTK-V (a sum over pixels) and CNTK-GAP (a mean). `fit` solves one of them.

Source: Arora et al., "On Exact Computation with an Infinitely Wide Neural Net", NeurIPS 2019
(no ridge); leave-one-out: Rasmussen and Williams, "Gaussian Processes for Machine Learning",
section 5.4.2. One Cholesky factor per ridge, not one eigendecomposition for all: an
eigendecomposition costs some ten times a factor and needs three times the memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression import LARGEST_RIDGE, checks, cholesky
from cntk_bench.regression.cholesky import Array, Cholesky, Device
from cntk_bench.regression.fit import Fit, fit, targets
from cntk_bench.regression.prediction import STORED
from cntk_bench.text import one_line, short

LOO_RIDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LARGEST = 1e4  # up to which "loo" goes: there the diagonal dominates, and larger ridges change no class


@dataclass(frozen=True)
class Solution:
    """The result of a ridge path.

    alpha : dual coefficients (n, k), float64, of the chosen ridge.
    chosen : its figures.
    path : those of all ridges tried.
    edge : "smallest" or "largest" if the chosen ridge is at that end of those tried and one beyond might be
        better, else None.
    facts : what else the solver reports, for the record.
    alphas : the dual coefficients (n, k) of each ridge of the path, if several were tried and they are kept.
    """

    alpha: np.ndarray
    chosen: Fit
    path: tuple[Fit, ...]
    edge: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    alphas: tuple[np.ndarray, ...] = ()


def ridges(value: float | str | Sequence[float]) -> tuple[float, ...]:
    """The relative ridges that a setting stands for: a number, a list, or "loo" (`LOO_RIDGES`)."""
    if isinstance(value, str):
        if value != "loo":
            raise UserError(f"ridge {short(value)} is unknown: use a number, a list of numbers or 'loo'")
        return LOO_RIDGES
    given = value.tolist() if isinstance(value, np.ndarray) else value
    values: list[Any] = list(given) if isinstance(given, Sequence) else [given]
    if not values:
        raise UserError("the list of ridges is empty: name at least one, such as [0]")
    for r in values:
        number = isinstance(r, int | float | np.number) and not isinstance(r, bool)
        if not (number and 0 <= r <= LARGEST_RIDGE):
            raise UserError(
                f"ridge {short(r)} is not possible: use numbers from 0 to {LARGEST_RIDGE:g}, or 'loo'"
            )
    return tuple(dict.fromkeys(float(r) for r in values))


def solve(
    gram: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    ridge: float | str | Sequence[float] = 0.0,
    device: str = "cpu",
    dtype: str = "float64",
    overwrite: bool = False,
    leave_one_out: bool = True,
    error: float = STORED,
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
    leave_one_out : bool
        Whether leave-one-out figures are wanted for a single ridge, too; they cost as many operations as the
        factor.
    error : float
        Relative error of `gram`'s entries; by default, that of kernels stored in float32.

    Raises
    ------
    UserError
        If shapes, labels or ridges are wrong, if `gram` holds NaN or infinity, or if it is not
        positive definite even with the largest jitter.
    """
    gram = checks.square(gram)
    labels = checks.labels(labels, len(gram), classes)
    y = targets(labels, classes)
    return _path(gram, y, labels, ridge, device, dtype, overwrite, leave_one_out, error)


def regress(
    gram: np.ndarray,
    y: np.ndarray,
    *,
    ridge: float | str | Sequence[float] = 0.0,
    device: str = "cpu",
    dtype: str = "float64",
    overwrite: bool = False,
    error: float = STORED,
) -> Solution:
    """As `solve`, for real targets.

    Each output is solved in units of its standard deviation (of its size, if it is constant), so that what
    counts as solved, and which ridge is the best, do not depend on units, and all outputs count alike.

    Parameters
    ----------
    y : array (n, k), float
        Targets of k outputs.

    Returns
    -------
    Solution
        alpha in the units of y. loo_error and residuals are in units of the standard deviation, so that
        1 - loo_error is the leave-one-out R^2, averaged over the outputs; loo_accuracy is NaN.

    Raises
    ------
    UserError
        As `solve`; if y is not finite or of another shape.
    """
    gram, y = checks.square(gram), np.asarray(y, np.float64)
    if y.ndim != 2 or len(y) != len(gram) or not y.size or not np.isfinite(y).all():
        raise UserError(f"targets of shape {y.shape}: {len(gram)} rows of finite numbers are needed")
    size = np.ldexp(1.0, np.frexp(abs(y).max(0))[1] - 1)  # a power of two, so that no square leaves the range
    y = y / size
    scale, largest = y.std(0), abs(y).max(0)
    scale = np.where(scale > 1e-9 * largest, scale, largest)
    scale[scale == 0] = 1
    found = _path(gram, y / scale, None, ridge, device, dtype, overwrite, error=error)
    return replace(found, alpha=found.alpha * scale * size, alphas=())


def _path(
    gram: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray | None,
    ridge: float | str | Sequence[float],
    device: str,
    dtype: str,
    overwrite: bool,
    leave_one_out: bool = True,
    error: float = STORED,
) -> Solution:
    """Fit every ridge to targets y (n, k), and choose."""
    values = list(ridges(ridge))
    leave_one_out = leave_one_out or len(values) > 1  # it chooses
    with loaded(gram, device, dtype, overwrite) as (factor, unit, mean_diagonal, norm):
        best, path, alphas, refused = None, [], [], None
        for value in values:  # the list may grow
            try:
                found = fit(factor, y, labels, value, mean_diagonal, norm, leave_one_out, error)
            except UserError as problem:  # it cannot be solved; others of the path may be
                refused = refused or problem
                continue
            path.append(found[1])
            alphas.append(found[0] / unit)
            if best is None or rank(found[1]) < rank(best[1]):
                best = found
            largest = value == values[-1] == best[1].ridge
            if isinstance(ridge, str) and largest and 10 * value <= LARGEST:
                values.append(10 * value)
    if best is None:
        assert refused is not None  # there is one ridge at least
        raise refused
    alpha, chosen = best
    kept = tuple(alphas) if len(path) > 1 else ()
    return Solution(alpha / unit, chosen, tuple(path), _edge(chosen.ridge, values), alphas=kept)


@contextmanager
def prepared(
    gram: np.ndarray, labels: np.ndarray, classes: int, device: str, dtype: str, overwrite: bool
) -> Iterator[tuple[Cholesky, np.ndarray, float, float, float]]:
    """As `loaded`, for classes: yields the checked labels, too, after the factor."""
    with loaded(gram, device, dtype, overwrite) as (factor, unit, mean_diagonal, norm):
        yield factor, checks.labels(labels, len(factor.matrix), classes), unit, mean_diagonal, norm


@contextmanager
def loaded(
    gram: np.ndarray, device: str, dtype: str, overwrite: bool
) -> Iterator[tuple[Cholesky, float, float, float]]:
    """Load a matrix to be factored; yields it as a `Cholesky`, its unit, mean diagonal and 1-norm.

    The factor's matrix, and the last two, are those of `gram` divided by the unit. Errors of a GPU within
    this context become UserErrors of one line. Parameters and errors are as for `solve`.
    """
    gram = checks.square(gram)
    with _device_errors(device):
        hardware = Device.named(device)
        factor = Cholesky(_load(gram, hardware.xp, np.dtype(dtype), overwrite), hardware)
        mean_diagonal, norm = _inspect(factor)
        unit = _unit(mean_diagonal)
        if unit != 1:
            factor.matrix /= unit
        yield factor, unit, mean_diagonal / unit, norm / unit


def _unit(mean_diagonal: float) -> float:
    """The number to divide a matrix near the ends of float32's range by; else 1.

    It is a power of four, so that the factor is divided by a power of two, and no digit changes.
    """
    exponent = int(np.frexp(mean_diagonal)[1]) // 2 * 2
    return 1.0 if abs(exponent) < 32 else float(np.ldexp(1.0, exponent))


def rank(one: Fit) -> tuple:
    """Sort key of a fit, the least being the best: trusted, of small error (NaN last), of large ridge."""
    error = one.loo_error if np.isfinite(one.loo_error) else np.inf
    return one.doubt is not None, error, -one.ridge


def _edge(ridge: float, values: Sequence[float]) -> str | None:
    if len(values) == 1:
        return None
    if ridge == max(values):
        return "largest" if ridge < LARGEST else None  # a larger one changes nothing
    return "smallest" if ridge == min(values) > 0 else None


@contextmanager
def _device_errors(device: str) -> Iterator[None]:
    """Turn the errors of a GPU that fails, or is full, into a UserError of one line."""
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


def _inspect(factor: Cholesky) -> tuple[float, float]:
    """Mean diagonal and 1-norm of a Gram matrix; UserError if it is not finite or the mean not positive."""
    sums = factor.absolute_row_sums()
    checks.require_finite(sums)
    return checks.mean_diagonal(factor.matrix.diagonal()), float(sums.max())


def _load(gram: np.ndarray, xp: ModuleType, dtype: np.dtype, overwrite: bool) -> Array:
    """`gram` as a C-ordered device array that may be written to."""
    if xp is np:
        return checks.writable(gram, dtype, overwrite)
    out = xp.empty(gram.shape, dtype)
    for start in range(0, len(gram), cholesky.BLOCK):
        rows = slice(start, start + cholesky.BLOCK)
        out[rows] = xp.asarray(gram[rows])
    return out
