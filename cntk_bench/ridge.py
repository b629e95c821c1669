"""Kernel regression on a stored Gram matrix: exact solves, a ridge path, leave-one-out.

K train x train Gram matrix (n, n); Y targets (n, k), one-hot minus 0.1; r the absolute ridge:

    alpha = (K + r I)^-1 Y                                   f(x) = K(x, train) alpha
    y_i - f_{-i}(x_i) = alpha_i / [(K + r I)^-1]_ii          leave-one-out, without refitting

The predicted class is the argmax of f. The 0.1 shifts all k outputs by one and the same function,
so it never changes a prediction; it is kept for any k because it is what the paper states.

Ridges are relative: r = ridge * trace(K) / n, fixed once, so that a ridge means the same for
CNTK-V (a sum over pixels) and CNTK-GAP (a mean). Where K + r I is not numerically positive
definite, a jitter of the same unit is added, the smallest of 1e-10, 1e-9 .. 1e-4 that suffices;
all figures are then those of the jittered matrix. As the jitter goes to 0 its leave-one-out
residuals have the right limit for a singular K, [P Y]_i / [P]_ii with P the projector on the
null space; those of a pseudo-inverse are another thing.

Source: Arora et al., "On Exact Computation with an Infinitely Wide Neural Net", NeurIPS 2019
(no ridge); leave-one-out: Rasmussen and Williams, "Gaussian Processes for Machine Learning",
section 5.4.2. One Cholesky factor a ridge, not one eigendecomposition for all: an
eigendecomposition costs some ten times a factor and needs three times the memory.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cntk_bench import cholesky, memory
from cntk_bench.cholesky import Cholesky, Device, NotPositiveDefinite
from cntk_bench.errors import UserError

LOO_RIDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
BLAS_BUFFERS = 2**26  # bytes
JITTERS = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)


@dataclass(frozen=True)
class Place:
    """Where and in which precision a solve of one size runs, and the memory it needs at its peak.

    device : "cpu" or "cuda".  dtype : "float64" or "float32".
    host : bytes of main memory, the Gram matrix included (float32 where device is "cuda").
    gpu : bytes on the GPU; 0 where device is "cpu".
    """

    device: str
    dtype: str
    host: int
    gpu: int


@dataclass(frozen=True)
class Fit:
    """One ridge, solved: plain numbers.

    ridge, jitter : relative to trace(K) / n; their sum was added to the diagonal.
    loo_error, loo_accuracy : leave-one-out mean squared error (over images and classes), accuracy
        as a fraction.
    condition : estimated 1-norm condition number of the matrix that was factored; a lower bound,
        rarely below a third of the truth (Hager 1984, Higham 1988).
    residual : |(K + r I) alpha - Y| / |Y|, Frobenius norms.
    smallest_pivot : the smallest pivot of the factor, relative to trace(K) / n.
    seconds : wall time.
    """

    ridge: float
    jitter: float
    loo_error: float
    loo_accuracy: float
    condition: float
    residual: float
    smallest_pivot: float
    seconds: float


@dataclass(frozen=True)
class Solution:
    """Dual coefficients alpha (n, k) of the chosen ridge, its figures, and those of all ridges tried."""

    alpha: np.ndarray
    chosen: Fit
    path: tuple[Fit, ...]


def place(n: int, *, classes: int, device: str = "auto", dtype: str = "auto") -> Place:
    """Decide where n training images are solved, before anything is loaded.

    Parameters
    ----------
    n, classes : int
        Training images and classes. Test images are streamed and ridges solved one after another:
        neither adds to the peak.
    device : {"auto", "cpu", "cuda"}
        "auto": a GPU where there is one and the solve fits, else the CPU.
    dtype : {"auto", "float64", "float32"}
        "auto": float64 where memory allows, else float32.

    Raises
    ------
    UserError
        If the solve fits nowhere that was allowed, or a value is not one of the above.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {device!r} is unknown: use 'auto', 'cpu' or 'cuda'")
    if dtype not in ("auto", "float64", "float32"):
        raise UserError(f"dtype {dtype!r} is unknown: use 'auto', 'float64' or 'float32'")
    devices, gpu_free = [device], 0
    if device != "cpu":
        try:
            gpu_free = memory.available("cuda")
            devices = ["cuda", "cpu"] if device == "auto" else ["cuda"]
        except UserError:
            if device == "cuda":
                raise
            devices = ["cpu"]
    host_free = memory.available()
    places = [
        predict_memory(n, classes=classes, device=d, dtype=t)
        for t in (("float64", "float32") if dtype == "auto" else (dtype,))
        for d in devices
    ]
    for p in places:
        if p.gpu <= gpu_free and (host_free is None or p.host <= host_free):
            return p
    p = places[-1]
    where = "this machine" if p.gpu <= gpu_free else "the GPU"
    needed, free = (p.host, host_free) if p.gpu <= gpu_free else (p.gpu, gpu_free)
    raise UserError(
        f"solving {n} training images in {p.dtype} needs {needed / memory.GIB:.1f} GiB and {where} has "
        f"{free / memory.GIB:.1f} GiB free: use fewer training images"
        + (", float32" if p.dtype == "float64" else "")
        + " or more memory"
    )


def predict_memory(n: int, *, classes: int, device: str, dtype: str) -> Place:
    """Peak memory of `solve(..., overwrite=True)`, the Gram matrix included, as a `Place`."""
    itemsize = np.dtype(dtype).itemsize
    panel = n * min(n, cholesky.BLOCK)
    columns = 8 * n * classes
    if device == "cpu":
        return Place(device, dtype, itemsize * (n * n + 4 * panel + columns) + BLAS_BUFFERS, 0)
    # The Gram matrix waits on the host as float32, as it is stored. On the GPU CuPy copies the
    # operands of products, and the CUDA libraries take about 1 GiB for themselves.
    host = 4 * (n * n + 2 * panel) + itemsize * columns + BLAS_BUFFERS
    return Place(device, dtype, host, itemsize * (n * n + 6 * panel + columns) + memory.GIB)


def ridges(value: float | str | Sequence[float]) -> tuple[float, ...]:
    """The relative ridges that a setting stands for: a number, a list, or "loo" (`LOO_RIDGES`)."""
    if isinstance(value, str):
        if value != "loo":
            raise UserError(f"ridge {value!r} is unknown: use a number, a list of numbers or 'loo'")
        return LOO_RIDGES
    values = list(value) if isinstance(value, Sequence | np.ndarray) else [value]
    if not values:
        raise UserError("the list of ridges is empty: name at least one, such as [0]")
    for r in values:
        number = isinstance(r, int | float | np.number) and not isinstance(r, bool)
        if not (number and np.isfinite(r) and r >= 0):
            raise UserError(f"ridge {r!r} is not possible: use finite numbers >= 0, or 'loo'")
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
    steps of 1/n; of equal errors the larger ridge wins. Nothing here sees a test image.

    Parameters
    ----------
    gram : array (n, n), float
        The symmetric Gram matrix of the training images. For a GPU leave it float32, as stored: it
        is widened there.
    labels : array (n,), int
        Their classes, 0 .. classes - 1.
    classes : int
        Number of classes k, at least 2.
    ridge : float, sequence of float, or "loo"
        Relative to the mean diagonal; 0, the paper's, by default. A sequence or "loo" is a path.
    device, dtype : str
        As decided by `place`.
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
    values = ridges(ridge)
    mean_diagonal, norm = _inspect(gram)
    hardware = Device.named(device)
    factor = Cholesky(_load(gram, hardware.xp, np.dtype(dtype), overwrite), hardware)

    best, path = None, []
    for value in values:
        alpha, fit = _fit(factor, labels, classes, value, mean_diagonal, norm)
        path.append(fit)
        if best is None or (fit.loo_error, -fit.ridge) < (best.chosen.loo_error, -best.chosen.ridge):
            best = Solution(alpha, fit, ())
    return Solution(best.alpha, best.chosen, tuple(path))


def predict(alpha, blocks: Iterable) -> np.ndarray:
    """Classes (m,), int64, of test images whose Gram rows (h, n) come in blocks, in order."""
    classes = []
    for block in blocks:
        scores = np.asarray(block) @ alpha
        if not np.isfinite(scores).all():
            raise UserError("the test Gram matrix holds NaN or infinity: verify and repair what it came from")
        classes.append(scores.argmax(axis=1))
    return np.concatenate(classes)


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


def _inspect(gram):
    """Mean diagonal and 1-norm of a Gram matrix, once it is known to be finite."""
    norm = 0.0
    for start in range(0, len(gram), cholesky.BLOCK):
        sums = np.abs(gram[start : start + cholesky.BLOCK]).sum(axis=1, dtype=np.float64)
        if not np.isfinite(sums).all():
            row = start + int(np.flatnonzero(~np.isfinite(sums))[0])
            raise UserError(
                f"the train Gram matrix holds NaN or infinity (first in row {row}): "
                "verify and repair what it came from"
            )
        norm = max(norm, sums.max())
    mean_diagonal = float(gram.diagonal().mean(dtype=np.float64))
    if not mean_diagonal > 0:
        raise UserError(f"the train Gram matrix has mean diagonal {mean_diagonal:g}: a kernel's is positive")
    return mean_diagonal, float(norm)


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
    started = time.perf_counter()
    jitter, pivot = _factor(factor, ridge, mean_diagonal)
    shift = (ridge + jitter) * mean_diagonal
    y = targets(labels, classes, factor.matrix.dtype)
    alpha = factor.solve(y)
    inverse_diagonal = factor.inverse_diagonal()
    left_out = alpha / inverse_diagonal[:, None]  # y_i - f_{-i}(x_i)
    residual = factor.times(alpha) + alpha * alpha.dtype.type(shift) - y
    return alpha, Fit(
        ridge=ridge,
        jitter=jitter,
        loo_error=float((left_out**2).mean()),
        loo_accuracy=float(((y - left_out).argmax(axis=1) == labels).mean()),
        condition=(norm + shift) * _inverse_norm(factor, inverse_diagonal),
        residual=float(np.linalg.norm(residual) / np.linalg.norm(y)),
        smallest_pivot=pivot / mean_diagonal,
        seconds=time.perf_counter() - started,
    )


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


def _factor(factor, ridge, mean_diagonal):
    """Factor with the least jitter that suffices: (jitter, smallest pivot)."""
    # Rounding errors in a pivot add up like a random walk of n steps of size eps.
    eps = np.finfo(factor.matrix.dtype).eps
    tolerance = len(factor.matrix) ** 0.5 * eps * mean_diagonal
    for jitter in (0.0, *(j for j in JITTERS if j > 4 * eps)):
        try:
            return jitter, factor.factor((ridge + jitter) * mean_diagonal, tolerance)
        except NotPositiveDefinite as error:
            pivot = error.pivot / mean_diagonal
    raise UserError(
        f"the train Gram matrix is not positive definite: with ridge {ridge:g} and jitter {jitter:g} of "
        f"its mean diagonal the smallest pivot is {pivot:.2g} of it; raise solve.ridge to "
        f"{10 * (ridge + jitter):g}"
    )
