"""How lazily a model trains: kappa of Chizat and Bach, with operator norms found by power iteration.

    kappa(w) = |h(w) - y| |D^2 h(w)| / |D h(w)|^2          (Chizat, Oyallon, Bach 2019, equation 3)

h takes weights to the outputs on all training images, a vector with the Euclidean norm; multiplying that norm
by a constant, such as for a mean over images, leaves kappa as it is. kappa far below 1 means that the model
stays close to its linearisation while it is fitted to y. A network's |D^2 h| falls as width^(-1/2) and the
other two stay, so kappa falls as width^(-1/2).

|D h| is the largest singular value of the Jacobian: v <- J^T J v, normalised, with a jvp and a vjp.

|D^2 h| = max of g . D^2 h(u, v) over unit vectors u, v (weights) and g (outputs). In turn, each of the three
is set to the best one given the other two, with H_g the Hessian of g . h:

    u <- H_g v,   v <- H_g u,   g <- D^2 h(u, v),      each normalised

(H_g v: grad of g . jvp; D^2 h(u, v): jvp of jvp). The value never falls, and converges to a stationary one,
which is the norm or below it: the largest of several random starts is taken. So |D^2 h| is a lower bound;
kappa is not, because |D h|, by which it is divided, is a lower bound, too. With the defaults an iteration
ends within about three per cent of where it would converge; on digits, at widths 32 and 128, three starts
came within four per cent of each other in 40 iterations. Tiny networks have stationary values further apart
(seven per cent in a network of width 4 that the tests look at).

u and v are kept apart because a ReLU network's H_g has no blocks on its diagonal, so its eigenvalues come in
pairs +- lambda, between which v <- H_g v would oscillate. Where ReLU has a kink it has no second derivative;
D^2 h is that of the linear pieces, as in PyTorch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp

Point = dict[str, Tensor]
Model = Callable[[Point], Tensor]
ITERATIONS, STARTS, TOLERANCE = 50, 2, 3e-3


@dataclass(frozen=True)
class Laziness:
    """|h(w) - y|, |D h(w)| and |D^2 h(w)| of a model at its weights."""

    distance: float
    first: float
    second: float

    @property
    def kappa(self) -> float:
        """Chizat and Bach's kappa; infinite where the outputs do not depend on the weights."""
        return self.distance * self.second / self.first**2 if self.first else float("inf")


def laziness(
    h: Model,
    w: Point,
    y: Tensor,
    seed: int = 0,
    *,
    iterations: int = ITERATIONS,
    starts: int = STARTS,
    tolerance: float = TOLERANCE,
) -> Laziness:
    """Estimate the three norms that determine a model's kappa at its weights.

    Parameters
    ----------
    h : callable
        Weights -> outputs, a Tensor of any shape.
    w : dict of str to Tensor
        The weights that are trained.
    y : Tensor
        Targets, of the outputs' shape.
    seed : int
        Seed of the random vectors from which the iterations start.
    iterations : int
        Maximum number of iterations from each start.
    starts : int
        Number of random starts for |D^2 h|.
    tolerance : float
        An iteration ends when the norm grows by less than this fraction.
    """
    source = torch.Generator().manual_seed(seed)
    return Laziness(
        distance=float(torch.linalg.vector_norm(h(w) - y)),
        first=_first(h, w, source, iterations, tolerance),
        second=max(_second(h, w, y.shape, source, iterations, tolerance) for _ in range(starts)),
    )


def _first(h: Model, w: Point, source: torch.Generator, iterations: int, tolerance: float) -> float:
    v = _unit(_random(w, source))[0]
    before = value = 0.0
    back = vjp(h, w)[1]
    for _ in range(iterations):
        forth = jvp(h, (w,), (v,))[1]
        before, value = value, float(torch.linalg.vector_norm(forth))
        if not value > before * (1 + tolerance):
            break
        v, _ = _unit(back(forth)[0])
    return max(before, value)


def _second(
    h: Model, w: Point, shape: torch.Size, source: torch.Generator, iterations: int, tolerance: float
) -> float:
    def along(u: Point, v: Point) -> Tensor:
        return jvp(lambda p: jvp(h, (p,), (v,))[1], (w,), (u,))[1]

    def hessian(g: Tensor, v: Point) -> Point:
        def weighted(p: Point) -> Tensor:
            return (g * jvp(h, (p,), (v,))[1]).sum()

        return grad(weighted)(w)

    one = next(iter(w.values()))
    g = torch.randn(shape, generator=source, dtype=torch.float64).to(one)
    v = _unit(_random(w, source))[0]
    before = value = 0.0
    for _ in range(iterations):
        u, _ = _unit(hessian(g, v))
        v, size = _unit(hessian(g, u))
        if not size:  # linear, as far as this direction goes
            return value
        g = along(u, v)
        before, value = value, float(torch.linalg.vector_norm(g))
        if not value:
            break
        g = g / value
        if not value > before * (1 + tolerance):
            break
    return max(before, value)


def _random(w: Point, source: torch.Generator) -> Point:
    return {name: torch.randn(t.shape, generator=source, dtype=torch.float64).to(t) for name, t in w.items()}


def _unit(v: Point) -> tuple[Point, float]:
    """A vector divided by its norm (left as it is where that is zero), and the norm."""
    norm = float(sum(torch.linalg.vector_norm(t, dtype=torch.float64) ** 2 for t in v.values())) ** 0.5
    return {name: t / norm for name, t in v.items()} if norm else v, norm
