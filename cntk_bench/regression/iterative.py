"""Kernel regression by conjugate gradients, where a float64 factor of the matrix does not fit in memory.

Both solvers solve (K + r I) alpha = Y as `ridge` does, in float64 against the stored K, to a relative
residual of `tolerance` for each class. They differ in the preconditioner, and so in memory:

    refined   the Cholesky factor of K + r I in float32, K beside it: 4 n^2 bytes. If it cannot be factored in
              float32, a jitter is added to the factor, not to what is solved.
    cg        a partial Cholesky factor of the rank that fits (`partial`); K is streamed, once per iteration.

`attempts` says how singular matrices are treated.

They solve one ridge only: leave-one-out, which chooses among several, needs the diagonal of the inverse, and
so a factor. `refined` reports the leave-one-out error if its factor is that of the matrix solved, `cg` never.

**Scales.** S (K + r S^-2) S is the matrix of kernels s_i K_ij s_j with ridge r. So a scale s, as
`normalize.unit_diagonal` gives, changes what is added to the diagonal, the targets and the coefficients, and
no entry of K is rounded again.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial as partial_of
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression import attempts, checks, fit, partial, stream
from cntk_bench.regression.attempts import Found, How, Problem
from cntk_bench.regression.checkpoint import Checkpoint
from cntk_bench.regression.cholesky import Cholesky
from cntk_bench.regression.conjugate import Product
from cntk_bench.regression.fit import Fit
from cntk_bench.regression.loading import loaded
from cntk_bench.regression.ridge import Solution, ridges
from cntk_bench.regression.sensitivity import KERNEL_ERROR
from cntk_bench.regression.stream import Piece, Stream
from cntk_bench.regression.targets import shifted_one_hot

USUAL = How()


def cg(
    matrix: Stream,
    labels: np.ndarray,
    *,
    classes: int,
    ridge: float | str | Sequence[float] = 0.0,
    rank: int,
    scale: np.ndarray | None = None,
    how: How = USUAL,
    error: float = KERNEL_ERROR,
) -> Solution:
    """Solve one ridge on a streamed matrix.

    Parameters
    ----------
    matrix : Stream
        The Gram matrix of the training images (n, n).
    labels, classes, ridge
        As for `ridge.solve`, but one ridge.
    rank : int
        Maximum rank of the preconditioner.
    scale : array (n,), optional
        s > 0: the kernels are s_i K_ij s_j.
    how : How
    error : float
        As for `ridge.solve`.

    Returns
    -------
    Solution
        Leave-one-out figures, condition and smallest pivot are NaN: they would need a factor.

    Raises
    ------
    UserError
        As `ridge.solve`; and if there are several ridges.
    """
    started, value = time.perf_counter(), one_ridge(ridge, "cg")
    labels = checks.labels(labels, matrix.n, classes)
    own = stream.diagonal(matrix)
    y = shifted_one_hot(labels, classes)
    problem = _problem(matrix, partial_of(stream.times, matrix), y, own, scale, value, error)
    told = hashlib.sha256(f"{matrix.identity} {classes} {value!r} ".encode())
    told.update(labels.astype("<i8").tobytes() + problem.scale.tobytes())
    kept = Checkpoint(how.file, told.hexdigest())
    found = attempts.solved(problem, lambda shift: partial.factor(matrix, own, shift, rank), how, kept)
    if found.outcome.ended != "limit":
        kept.remove()
    alpha = found.outcome.x / problem.scale[:, None]
    return _solution(problem, found, how, alpha, started, solver="cg", rank=found.rank)


def refined(
    gram: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    ridge: float | str | Sequence[float] = 0.0,
    device: str = "cpu",
    overwrite: bool = False,
    leave_one_out: bool = True,
    scale: np.ndarray | None = None,
    how: How = USUAL,
    error: float = KERNEL_ERROR,
) -> Solution:
    """Solve one ridge with a factor in float32.

    Parameters, errors: as for `ridge.solve` and `cg`. `how.file` is not used: a factor is not kept.

    Returns
    -------
    Solution
        Leave-one-out figures, condition and smallest pivot are those of the float32 factor; NaN where it
        needed a jitter that the solution has not, or where they are not wanted. The condition is that of
        K + r S^-2, which is factored; the smallest pivot that of S K S + r I.
    """
    started, value = time.perf_counter(), one_ridge(ridge, "refined")
    with loaded(gram, device, "float32", overwrite) as matrix:
        factor, unit = matrix.factor, matrix.unit
        labels = checks.labels(labels, len(factor.matrix), classes)
        own = fit.diagonal(factor)
        if scale is not None:
            scale = scale * unit**0.5  # of a power of four: exact
        held = _InMemory(factor)
        problem = _problem(held, factor.times, shifted_one_hot(labels, classes), own, scale, value, error)
        jitter, shift, _ = next(fit.factored(factor, value, problem.mean, problem.scale))
        found = attempts.solved(problem, lambda _: _of(factor), how, Checkpoint(None, ""))
        alpha, more = found.outcome.x, {"solver": "refined", "factor_jitter": jitter}
        if jitter == found.jitter:
            inverse = factor.inverse_diagonal() if leave_one_out else None
            if inverse is not None:
                left_out = problem.scale[:, None] * alpha / inverse[:, None]  # y_i - f_{-i}(x_i)
                more["loo_error"] = float((left_out**2).mean())
                more["loo_accuracy"] = fit.accuracy(problem.y * problem.scale[:, None], left_out, labels)
            more["condition"] = (matrix.norm + float(shift.max())) * fit.inverse_norm(factor, inverse)
            # S times the factor of K + r S^-2 is that of S K S + r I.
            more["smallest_pivot"] = float((factor.pivots() * problem.scale**2).min()) / problem.mean
        alpha = alpha / unit if scale is None else alpha / scale[:, None]
        return _solution(problem, found, how, alpha, started, **more)


def one_ridge(value: float | str | Sequence[float], solver: str) -> float:
    """The ridge of a setting; UserError if there are several, which only leave-one-out could choose from."""
    found = ridges(value)
    if len(found) > 1:
        raise UserError(
            f"{solver} solves one ridge: leave-one-out, which chooses among several, needs the whole "
            "factor: give one, such as 1e-4, or use cholesky"
        )
    return found[0]


def _problem(
    matrix: Stream,
    times: Callable[..., np.ndarray],
    y: np.ndarray,
    own: np.ndarray,
    scale: np.ndarray | None,
    ridge: float,
    error: float,
) -> Problem:
    scale = np.ones(len(own)) if scale is None else np.asarray(scale, np.float64)
    mean = float((own * scale**2).mean())
    around = np.where(own > 0, own, mean / scale**2) + ridge * mean / scale**2
    largest, closest = float((around * scale**2).max()), stream.closest(matrix, around)
    return Problem(times, y / scale[:, None], own, scale, ridge, mean, largest, closest, error)


@dataclass(frozen=True)
class _InMemory:
    """The matrix beside a factor as a stream."""

    factor: Cholesky
    identity: str = ""
    leader: None = None

    @property
    def n(self) -> int:
        return len(self.factor.matrix)

    def pieces(self, diagonal: bool = False) -> Iterator[Piece]:
        host = self.factor.device.to_host
        for rows, left, corner in self.factor.rows():
            if rows.start and not diagonal:
                yield rows, slice(0, rows.start), host(left)
            yield rows, rows, host(corner)


def _of(factor: Cholesky) -> Product:
    """The preconditioner of a float32 factor; columns are scaled so that no residual leaves its range."""

    def apply(b: np.ndarray) -> np.ndarray:
        size = np.abs(b).max(axis=0)
        size[size == 0] = 1
        with np.errstate(over="ignore", invalid="ignore"):
            return factor.solve(b / size).astype(np.float64) * size

    return apply


def _solution(
    problem: Problem, found: Found, how: How, alpha: np.ndarray, started: float, **more: Any
) -> Solution:
    """The `Solution` of what was found; `more` are figures of a factor, and further facts."""
    figures = dict.fromkeys(("loo_error", "loo_accuracy", "condition", "smallest_pivot"), float("nan"))
    chosen = Fit(
        ridge=problem.ridge,
        jitter=found.jitter,
        **(figures | {name: more.pop(name) for name in figures if name in more}),
        residual=float(np.linalg.norm(found.residual) / np.linalg.norm(problem.scale[:, None] * problem.y)),
        largest_residual=found.largest,
        seconds=time.perf_counter() - started,
        doubt=found.doubt(how),
        moved=found.moved,
    )
    facts: dict[str, Any] = {"iterations": found.outcome.iterations}
    facts |= {"relative_residual": found.outcome.relative}
    if (note := found.note(how)) is not None:
        facts["note"] = note
    return Solution(alpha, chosen, (chosen,), None, facts | more)
