"""Conjugate gradients: A x = y for all columns of y at once, A symmetric positive definite.

Each column has its own steps, exactly as if it were solved alone, and all share each product with A: one
pass over a matrix on disk serves all classes. That is why it is not `scipy.sparse.linalg.cg`, which has one
right-hand side. Block conjugate gradients (O'Leary 1980), with one search space for all columns, would need
fewer passes but need columns that are independent; one-hot targets minus 0.1 of ten classes add up to zero,
and residuals become dependent as columns converge at different speeds.

Steps have the numerator of Polak and Ribiere instead of Fletcher and Reeves'. With an exact preconditioner
both are the same, but this one tolerates a float32 preconditioner that rounding makes slightly unsymmetric
(Golub and Ye 1999; Notay 2000). The residual updated by the recursion falls whatever rounding does to x. So
when it indicates convergence, the residual is computed from x, and the recursion restarts from there as long
as that halves it: iterative refinement.

Source: Hestenes and Stiefel 1952; Saad, "Iterative Methods for Sparse Linear Systems", section 9.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cntk_bench.regression.cholesky import NotPositiveDefinite

Product = Callable[[np.ndarray], np.ndarray]
Ended = Literal["solved", "rounding", "limit"]
VECTORS = 16  # arrays (n, k), float64, that a solve takes at its peak, the targets included
SAFETY = 0.5  # the recursion's residual must fall to this share of the tolerance


@dataclass(frozen=True)
class State:
    """All that an iteration needs of those before.

    x, residual, direction : (n, k) float64.
    products : (k,), inner products of residual and preconditioned residual.
    iteration : number of iterations done.
    begun : largest relative residual, computed from x, when the recursion last restarted; infinite at first.
    """

    x: np.ndarray
    residual: np.ndarray
    direction: np.ndarray
    products: np.ndarray
    iteration: int = 0
    begun: float = np.inf


@dataclass(frozen=True)
class Outcome:
    """The result of a solve.

    x, residual : (n, k) float64; y - A x, computed from x.
    iterations : number of iterations done.
    relative : the largest of the residual's columns' norms, each relative to that of y.
    ended : "solved" to the tolerance, "rounding" if rounding prevents that, or "limit" of iterations.
    """

    x: np.ndarray
    residual: np.ndarray
    iterations: int
    relative: float
    ended: Ended


def start(precondition: Product, x: np.ndarray, residual: np.ndarray, iteration: int, begun: float) -> State:
    """The state from which the recursion begins at x, whose residual is given."""
    direction, products = _preconditioned(precondition, residual)
    return State(x, residual, direction, products, iteration, begun)


def solve(
    times: Product,
    precondition: Product,
    y: np.ndarray,
    *,
    tolerance: float,
    limit: int,
    weight: np.ndarray | float = 1.0,
    unit: np.ndarray | float = 1.0,
    state: State | None = None,
    report: Callable[[State, float], None] = lambda state, relative: None,
) -> Outcome:
    """Solve A x = y.

    Parameters
    ----------
    times : callable
        A b for b (n, j), 1 <= j <= k: columns that are solved are left out.
    precondition : callable
        Approximates A^-1 b, for b of the same shapes.
    y : array (n, k), float64
    tolerance : float
        The norm of y - A x, relative to that of y, that each column is to reach.
    limit : int
        Iterations at most, those of `state` included.
    weight : array (n, 1) or float
        Factor of residuals and of y before their norms are taken.
    unit : array (n, 1) or float
        The diagonal matrix to which pivots are relative.
    state : State, optional
        Where to resume; by default x = 0.
    report : callable
        Called after each iteration with its state and the largest relative residual.

    Raises
    ------
    NotPositiveDefinite
        If a direction p with p^T A p <= 0 is met; `pivot` is p^T A p / p^T unit p.
    """

    def relative_to_y(residual: np.ndarray) -> np.ndarray:
        return _norms(residual * weight) / size

    size = _norms(y * weight)
    size[size == 0] = 1
    if state is None:
        state = start(precondition, np.zeros(y.shape), y, 0, np.inf)
    while True:
        open_ = np.flatnonzero(relative_to_y(state.residual) > SAFETY * tolerance)
        if len(open_) and state.iteration < limit:
            state = _step(times, precondition, state, open_, unit)
            report(state, float(relative_to_y(state.residual).max()))
            continue
        residual = y - times(state.x)
        relative = float(relative_to_y(residual).max())
        solved, at_limit = relative <= tolerance, state.iteration >= limit
        if solved or at_limit or not relative < state.begun / 2:
            ended: Ended = "solved" if solved else "limit" if at_limit else "rounding"
            return Outcome(state.x, residual, state.iteration, relative, ended)
        state = start(precondition, state.x, residual, state.iteration, relative)


def _step(
    times: Product, precondition: Product, state: State, open_: np.ndarray, unit: np.ndarray | float
) -> State:
    """One iteration of some columns; the others stay as they are."""
    p = state.direction[:, open_]
    q = times(p)
    curvature = (p * q).sum(axis=0)
    if not (curvature > 0).all():
        worst = int(np.argmin(np.nan_to_num(curvature, nan=-np.inf)))
        raise NotPositiveDefinite(float(curvature[worst] / (unit * p[:, [worst]] ** 2).sum()))
    step = state.products[open_] / curvature
    x, residual = state.x.copy(), state.residual.copy()
    x[:, open_] += step * p
    q *= step
    residual[:, open_] -= q
    z, after = _preconditioned(precondition, residual[:, open_])
    p *= -(q * z).sum(axis=0) / state.products[open_]  # z^T (residual before - after) / products before
    p += z
    direction, products = state.direction.copy(), state.products.copy()
    direction[:, open_], products[open_] = p, after
    return State(x, residual, direction, products, state.iteration + 1, state.begun)


def _preconditioned(precondition: Product, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Approximate A^-1 residual, and its inner products with the residual.

    Where rounding makes a product non-positive or not finite, the residual itself is taken instead.
    """
    z = precondition(residual)
    products = (residual * z).sum(axis=0)
    spoilt = ~(np.isfinite(products) & (products > 0))
    if spoilt.any():
        z[:, spoilt] = residual[:, spoilt]
        products[spoilt] = (residual[:, spoilt] ** 2).sum(axis=0)
    return z, products


def _norms(columns: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("ij,ij->j", columns, columns))
