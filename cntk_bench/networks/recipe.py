"""How one network is trained: everything that decides its weights, and nothing else.

The paper (Arora et al. 2019, v2, appendices A and H) states stochastic gradient descent at a constant rate
out of {0.1, 1, 10}, the squared loss on one-hot - 0.1, no decay and no augmentation, and that training stops
at full training accuracy. What it leaves open is a field here: the batch, the order of the batches, momentum,
and what the loss is divided by. With residuals r = f - y, (b, k) for a batch of b images and k outputs, the
loss is

    "mean"   sum of r^2 / (b k)      as the libraries' mean squared error
    "sum"    sum of r^2 / 2          as in the theory of the kernels' gradient flow

**Time.** Gradient flow at rate 1 on half the sum of squares over all n images moves the outputs of a wide
network by df/dt = -K (f - y), where K is the kernel of `cntk_bench.kernels`, if kappa is 1. kappa multiplies
the gradients' products by kappa^2; a step of "sum" on a batch follows, on average, the share b / n of the
whole sum; a step of "mean" follows 2 / (n k) of it; momentum m lengthens every step by a factor 1 / (1 - m)
in the long run. So a step is

    "mean"   rate kappa^2 2 / (n k) / (1 - m)        "sum"   rate kappa^2 (b / n) / (1 - m)

of the kernel's time, and predictions of the network can be compared with those of the kernel's flow at
t = steps times that. Without momentum, gradient descent on the whole training set is stable at first
while a step is shorter than 2 / (largest eigenvalue of K).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

VERSION = 1  # raise it when the same recipe gives other weights


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Parameters
    ----------
    rate : float
        Learning rate, for the weights as they are drawn from N(0, 1).
    trial : int
        Which of the repetitions; trials of a seed differ in initial weights and in the order of batches, and
        are the same for every rate.
    seed : int
    batch : int or None
        Images per step; None for all of them. The last batch of an epoch has the remaining ones.
    loss : {"mean", "sum"}
    momentum : float
        As m in v <- m v + gradient, w <- w - rate v.
    epochs_after : int
        Number of epochs after the first with full training accuracy whose predictions are kept; if that is
        never reached, those of the last epochs.
    precision : {"float32", "tf32", "bf16"}
        Precision of products; weights and sums are always float32.
    curve : bool
        Whether outputs for the test images are kept at `in_curve` epochs.
    """

    rate: float
    trial: int = 0
    seed: int = 0
    batch: int | None = 128
    loss: str = "mean"
    momentum: float = 0.0
    epochs_after: int = 10
    precision: str = "float32"
    curve: bool = False

    def steps(self, n: int) -> int:
        """Number of steps in an epoch over n images."""
        return -(-n // (self.batch or n))

    def order(self, n: int, epoch: int) -> np.ndarray:
        """The order of n images in an epoch, (n,) int64: a permutation of its own for each seed, trial and
        epoch.

        It does not depend on earlier epochs, so no generator's state has to be kept. If a batch is the whole
        set, the images are not permuted.
        """
        if self.steps(n) == 1:
            return np.arange(n)
        return np.random.default_rng([self.seed, self.trial, 1 + epoch]).permutation(n)

    @property
    def weights_seed(self) -> int:
        """The seed of the initial weights."""
        return int(np.random.SeedSequence([self.seed, self.trial]).generate_state(1, np.uint64)[0]) >> 1

    def time(self, n: int, outputs: int, kappa: float) -> float:
        """The duration of an epoch over n images in the kernel's time."""
        share = 1.0 if self.loss == "sum" else self.steps(n) * 2 / (n * outputs)
        return self.rate * kappa**2 * share / (1 - self.momentum)

    def identity(self, network: Mapping[str, Any], data: Mapping[str, Any]) -> str:
        """SHA-256 (hex) of all that decides the weights: network, recipe and data."""
        whole = {"version": VERSION, "network": dict(network), "recipe": asdict(self), "data": dict(data)}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def in_curve(epoch: int) -> bool:
    """Whether a curve has a point at an epoch: at 0, and about four times in every doubling."""
    return epoch < 1 or epoch in _quarters(epoch)


def points(epochs: int) -> int:
    """How many of the epochs 0, 1, ..., `epochs` have a point in a curve."""
    return 1 + sum(1 <= epoch <= epochs for epoch in _quarters(epochs))


def _quarters(epoch: int) -> set[int]:
    return {round(2 ** (quarters / 4)) for quarters in range(4 * epoch.bit_length() + 1)}
