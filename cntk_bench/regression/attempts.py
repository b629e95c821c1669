"""Conjugate gradients on a problem that may be singular: tries increasing jitters, with a checkpoint.

The rule is that of `fit`: if K + r I is not numerically positive definite, the smallest jitter that suffices
is added to what is solved, and reported. Four observations prove that it is not: a diagonal entry is 0; two
images' kernels agree up to rounding (the pivot of the second, relative to its own entry, is not above sqrt(n)
eps); an entry of a partial factor's Schur complement is no larger; or a direction has no positive curvature,
which also tells how much jitter is needed at least. A larger jitter is tried, too, if rounding keeps the
residual too large, or if
errors of stored kernels decide the solution. A matrix that is singular in a way that none of these shows is
not solved within the limit of iterations, which is reported as a doubt.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cntk_bench.regression import ITERATIONS, TOLERANCE, conjugate, fit, partial, sensitivity
from cntk_bench.regression.checkpoint import Checkpoint
from cntk_bench.regression.cholesky import NotPositiveDefinite
from cntk_bench.regression.conjugate import Outcome, Product, State

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class How:
    """The limits of a solve, and where its state and its progress go.

    tolerance : the norm of Y - (K + r I) alpha relative to that of Y, for each class.
    iterations : at most, over all attempts.
    file : `Checkpoint.path`, where the state is saved now and then, and resumed from; None saves nothing.
    tell : called with the progress, in words, after each iteration.
    """

    tolerance: float = TOLERANCE
    iterations: int = ITERATIONS
    file: Path | None = None
    tell: Callable[[str], None] = lambda words: None


@dataclass(frozen=True)
class Problem:
    """The system (K + r S^-2) x = S^-1 Y; alpha = S^-1 x solves that of s_i K_ij s_j with ridge r.

    times : K b for b (n, j); with squared=True, the same for the squares of K's entries.
    y : (n, k), S^-1 Y.
    own : (n,), K's diagonal.
    scale : (n,), s.
    ridge, mean : r relative to the mean diagonal of S K S, and that mean.
    largest : the largest diagonal entry of S K S + r I.
    closest : `stream.closest` for the diagonal without jitter.
    error : relative error of K's entries.
    """

    times: Callable[..., np.ndarray]
    y: np.ndarray
    own: np.ndarray
    scale: np.ndarray
    ridge: float
    mean: float
    largest: float
    closest: float
    error: float

    def shift(self, jitter: float) -> np.ndarray:
        """What is added to K's diagonal, (n,)."""
        return fit.shifted(len(self.own), self.ridge, self.mean, jitter, self.scale)

    def pivot(self, jitter: float) -> float:
        """The pivot of the second of the two closest images, relative to its diagonal entry.

        The brightest decide, as a jitter tells others apart sooner.
        """
        return 1 - self.closest / (1 + jitter * self.mean / self.largest) ** 2

    def jitters(self) -> list[float]:
        """Jitters, from 0 up, with which any two images differ beyond rounding, as Cholesky pivots must.

        Nor may a diagonal entry be 0, as a black image's is without ridge and jitter.
        """
        least = len(self.y) ** 0.5 * np.finfo(np.float64).eps
        apart = [j for j in (0.0, *fit.JITTERS) if self.pivot(j) > least]
        return [j for j in apart if (self.own + self.shift(j) > 0).all()]


@dataclass(frozen=True)
class Found:
    """The result of one attempt.

    rank : of the preconditioner, if it is partial.
    residual : (n, k), Y - (S K S + r I) alpha.
    moved : how far errors of stored kernels move it (`sensitivity.moved`).
    largest : the residual's largest entry, infinite if that is NaN.
    """

    outcome: Outcome
    jitter: float
    rank: int | None
    residual: np.ndarray
    moved: float

    @property
    def largest(self) -> float:
        return float(np.nan_to_num(np.abs(self.residual).max(), nan=np.inf))

    def doubt(self, how: How) -> str | None:
        """Why it cannot be trusted; None where it can."""
        if self.outcome.ended == "limit":
            return (
                f"not solved: after {self.outcome.iterations} iterations a relative residual of "
                f"{self.outcome.relative:.2g} is left, above solve.tolerance ({how.tolerance:g}); "
                "raise solve.iterations or solve.ridge"
            )
        if not self.largest <= fit.RESIDUAL:
            return f"not solved: residuals of up to {self.largest:.2g} of a target; raise solve.ridge"
        return sensitivity.doubt(self.moved)

    @property
    def distance(self) -> float:
        """As `fit.distance`."""
        return fit.distance(self.largest, self.moved)

    def note(self, how: How) -> str | None:
        """Anything else that a reader must know."""
        if self.outcome.ended == "rounding":
            return (
                f"rounding leaves a relative residual of {self.outcome.relative:.2g}, above {how.tolerance:g}"
            )
        return None


def solved(problem: Problem, make: Callable[[np.ndarray], Product], how: How, kept: Checkpoint) -> Found:
    """Solve with the smallest jitter whose solution can be trusted; else return the solution nearest to it.

    `make` returns a preconditioner for what is added to the diagonal, (n,), or raises NotPositiveDefinite.

    Raises
    ------
    UserError
        If not even the largest jitter makes it positive definite.
    """
    attempt = _Attempts(problem, make, how, kept)
    best, refused = None, (fit.JITTERS[-1], problem.pivot(fit.JITTERS[-1]))  # a jitter, and its pivot
    for jitter in problem.jitters():
        if jitter <= attempt.too_small:
            continue
        try:
            found = attempt(jitter)
        except NotPositiveDefinite as error:
            refused = jitter, error.pivot
            log.info("with jitter %g the matrix is not positive definite (%.2g)", *refused)
            continue
        if best is None or found.distance < best.distance:
            best = found
        if best.distance <= 1 or found.outcome.ended == "limit":
            break
    if best is None:
        raise fit.indefinite(problem.ridge, *refused)
    return best


class _Attempts:
    """Solves with one jitter after another, resuming from the state in a file."""

    def __init__(
        self, problem: Problem, make: Callable[[np.ndarray], Product], how: How, kept: Checkpoint
    ) -> None:
        self.problem, self.make, self.how, self.kept = problem, make, how, kept
        self.before = kept.load(problem.y.shape)
        self.too_small = np.nextafter(self.before[0], -1) if self.before else -1.0
        self.iterations = 0  # of all attempts

    def __call__(self, jitter: float) -> Found:
        shift = self.problem.shift(jitter)

        def times(b: np.ndarray) -> np.ndarray:
            return self.problem.times(b) + shift[:, None] * b

        precondition = self.make(shift)
        rank = len(precondition.pivots) if isinstance(precondition, partial.Partial) else None
        latest = state = self._begin(jitter, rank, times, precondition)

        def report(state: State, relative: float) -> None:
            nonlocal latest
            latest, self.iterations = state, state.iteration
            largest = f"{relative:.1e} (largest of {len(state.products)} classes)"
            self.how.tell(f"iteration {state.iteration}: relative residual {largest}")
            self.kept.keep(jitter, rank or 0, state)

        try:
            outcome = conjugate.solve(
                times,
                precondition,
                self.problem.y,
                tolerance=self.how.tolerance,
                limit=self.how.iterations,
                weight=self.problem.scale[:, None],
                unit=self.problem.mean / self.problem.scale[:, None] ** 2,
                state=state,
                report=report,
            )
        except NotPositiveDefinite as error:
            self.too_small = jitter - error.pivot
            raise
        except BaseException:  # interrupted
            self.kept.keep(jitter, rank or 0, latest, now=True)
            raise
        if outcome.ended == "limit":  # a later call may have a larger limit
            self.kept.keep(jitter, rank or 0, latest, now=True)
        of, scale = self.problem, self.problem.scale[:, None]
        moved = sensitivity.moved(of.times, outcome.x, of.own, of.error, scale)
        return Found(outcome, jitter, rank, scale * outcome.residual, moved)

    def _begin(self, jitter: float, rank: int | None, times: Product, precondition: Product) -> State:
        """The state to start from: the one kept, or only its x if the preconditioner's rank has changed."""
        before, self.before = self.before, None
        y = self.problem.y
        if before is None or before[0] != jitter:
            return conjugate.start(precondition, np.zeros(y.shape), y, self.iterations, np.inf)
        _, old, state = before
        self.iterations = state.iteration
        log.info("going on after %d iterations", state.iteration)
        if old == (rank or 0):
            return state
        return conjugate.start(precondition, state.x, y - times(state.x), state.iteration, np.inf)
