"""Full-batch gradient descent at a constant rate for a given time, after which kernel drift is measured."""

import torch
from torch import Tensor
from torch.func import grad

from cntk_bench.networks.architecture import Architecture, Weights


def descend(net: Architecture, weights: Weights, x: Tensor, y: Tensor, rate: float, steps: int) -> dict:
    """The weights after `steps` steps on half the sum of squares, |f(x) - y|^2 / 2, over images and outputs.

    After the time t = rate * steps they approximate gradient flow; the infinitely wide network's outputs on
    these images are then y + exp(-Theta t) (f_0 - y), Theta its kernel. Stable if the rate is below 2 over
    the largest eigenvalue of the empirical kernel; else the weights grow, even beyond finite numbers.

    Parameters
    ----------
    net : Architecture
    weights : mapping of str to Tensor
        Initial weights, which are not changed.
    x : Tensor (n, C, P, P)
    y : Tensor (n, k)
    rate : float
    steps : int

    Returns
    -------
    dict of str to Tensor
        All weights; those that are not trained are the given ones.
    """

    def loss(trained: Weights) -> Tensor:
        return ((net.forward({**weights, **trained}, x) - y) ** 2).sum() / 2

    trained = {name: weights[name] for name in net.trained}
    for _ in range(steps):
        step = grad(loss)(trained)
        trained = {name: w - rate * step[name] for name, w in trained.items()}
    return {**weights, **trained}


def movement(before: Weights, after: Weights) -> float:
    """Relative change of the weights, |w_t - w_0| / |w_0|, over all tensors of `before` together."""
    changed = sum(float(torch.linalg.vector_norm(after[name] - w)) ** 2 for name, w in before.items())
    whole = sum(float(torch.linalg.vector_norm(w)) ** 2 for w in before.values())
    return (changed / whole) ** 0.5
