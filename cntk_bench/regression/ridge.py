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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression import LARGEST_RIDGE, checks
from cntk_bench.regression.fit import Fit, fit
from cntk_bench.regression.loading import loaded
from cntk_bench.regression.sensitivity import KERNEL_ERROR
from cntk_bench.regression.targets import shifted_one_hot
from cntk_bench.text import short

LOO_RIDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LARGEST = 1e4  # up to which "loo" goes: there the diagonal dominates, and larger ridges change no class


@dataclass(frozen=True)
class Solution:
    """The result of a ridge path.

    Parameters
    ----------
    alpha : array (n, k), float64
        Dual coefficients of the chosen ridge.
    chosen : Fit
        Its figures.
    path : tuple of Fit
        Those of all ridges tried.
    edge : str or None
        "smallest" or "largest" if the chosen ridge is at that end of those tried and one beyond might be
        better, else None.
    facts : mapping
        What else the solver reports, for the record.
    alphas : tuple of array (n, k)
        The dual coefficients of each ridge of the path, if several were tried and they are kept.
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


def shown(value: float | str | Sequence[float]) -> str:
    """A setting of ridges as its config has it, shortened, for messages."""
    return short(list(value) if isinstance(value, tuple) else value)


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
    error: float = KERNEL_ERROR,
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
    return _path(
        gram,
        shifted_one_hot(labels, classes),
        labels,
        ridge=ridge,
        device=device,
        dtype=dtype,
        overwrite=overwrite,
        leave_one_out=leave_one_out,
        error=error,
    )


def regress(
    gram: np.ndarray,
    y: np.ndarray,
    *,
    ridge: float | str | Sequence[float] = 0.0,
    device: str = "cpu",
    dtype: str = "float64",
    overwrite: bool = False,
    error: float = KERNEL_ERROR,
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
        alpha in the units of y. loo_error of a single output is in the squared units of y. Of several
        outputs, it is in units of each one's variance, so that 1 - loo_error is the leave-one-out R^2,
        averaged over the outputs. Residuals and `moved` are in units of the standard deviation; loo_accuracy
        is NaN.

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
    found = _path(
        gram,
        y / scale,
        None,
        ridge=ridge,
        device=device,
        dtype=dtype,
        overwrite=overwrite,
        leave_one_out=True,
        error=error,
    )
    unit = scale * size
    found = replace(found, alpha=found.alpha * unit, alphas=())
    if y.shape[1] > 1:
        return found
    with np.errstate(over="ignore"):  # the square of a large number may be infinite
        square = float(np.square(unit[0]))
    chosen, *path = (replace(one, loo_error=one.loo_error * square) for one in (found.chosen, *found.path))
    return replace(found, chosen=chosen, path=tuple(path))


def _path(
    gram: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray | None,
    *,
    ridge: float | str | Sequence[float],
    device: str,
    dtype: str,
    overwrite: bool,
    leave_one_out: bool,
    error: float,
) -> Solution:
    """Fit every ridge to targets y (n, k), and choose."""
    values = list(ridges(ridge))
    leave_one_out = leave_one_out or len(values) > 1  # it chooses
    path: list[Fit] = []
    alphas: list[np.ndarray] = []
    refused = None
    with loaded(gram, device, dtype, overwrite) as matrix:
        for value in values:  # the list may grow
            try:
                alpha, found = fit(matrix, y, labels, value, leave_one_out=leave_one_out, error=error)
            except UserError as problem:  # it cannot be solved; others of the path may be
                refused = refused or problem
                continue
            path.append(found)
            alphas.append(alpha / matrix.unit)
            largest = value == values[-1] and min(path, key=rank) is found
            if isinstance(ridge, str) and largest and 10 * value <= LARGEST:
                values.append(10 * value)
    if not path:
        assert refused is not None  # there is one ridge at least
        raise refused
    best = min(path, key=rank)
    kept = tuple(alphas) if len(path) > 1 else ()
    return Solution(alphas[path.index(best)], best, tuple(path), _edge(best.ridge, values), alphas=kept)


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
