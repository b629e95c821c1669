"""Measure one finite network against its limit: how far its kernels are off, and how lazily it trains.

Every measure is dimensionless, so it does not depend on the scale of kernel or output:

    error       |Theta_0 - Theta| / |Theta|                 Theta_0 empirical, Theta exact NTK, on the images
    nngp_error  |Sigma_0 - Sigma| / |Sigma|                 the same for the NNGP kernels
    drift       |Theta_t - Theta_0| / |Theta_0|             after gradient descent for the time t
    movement    |w_t - w_0| / |w_0|                         over all weights that are trained
    layer       the largest movement of a tensor of weights
    kappa       |f_0 - y| |D^2 f| / |D f|^2                 Chizat and Bach's, initially (`networks.lazy`)

Norms of matrices are Frobenius norms. The output is scaled so that f_0 has variance 1, averaged over the
images, in the limit of infinite width, whatever the kind; y are the targets, one-hot minus 0.1. Every width
trains for the same time t = steps x rate / largest eigenvalue of the exact kernel.

Scaling expected at large widths n (`expected`): A kernel is a mean over n channels, so errors scale as
n^(-1/2). A layer's change has norm O(1), for the outputs must change by O(1) and |D f| is O(1); a tensor of
n x n weights N(0, 1) has norm n, one of n x constant weights n^(1/2). So `movement` scales as n^(-1) if an
n x n layer is trained, as is every layer that GAP trains, and `layer` as n^(-1/2) if the first or last layer
is. `drift` scales as n^(-1) (Lee et al. 2019, figure 1; Dyer and Gur-Ari 2020): its first order in the
weights' change is a sum of n terms n^(-3/2) of random sign, its second order one of n terms n^(-2) of the
same sign. |D^2 f| scales as n^(-1/2), hence so does kappa.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cntk_bench.config.sections import Converge
from cntk_bench.data import Dataset
from cntk_bench.errors import UserError
from cntk_bench.grams import direct
from cntk_bench.kernels.spec import Readout
from cntk_bench.regression.targets import shifted_one_hot
from cntk_bench.system import memory

if TYPE_CHECKING:
    from cntk_bench.networks.architecture import Architecture

COPIES = 4  # of the weights during training: initial, before and after a step, and its gradient
MEASURES = ("error", "nngp_error", "drift", "movement", "layer", "kappa")


@dataclass(frozen=True, eq=False)
class Limit:
    """The exact kernels of one architecture on the images: ntk and nngp, (n, n) float64."""

    ntk: np.ndarray
    nngp: np.ndarray

    @property
    def output_factor(self) -> float:
        """The factor that gives the output a variance of 1, averaged over the images."""
        return float(self.nngp.diagonal().mean() ** -0.5)

    @property
    def largest(self) -> float:
        """The largest eigenvalue of the NTK of the output scaled by `output_factor`."""
        return float(np.linalg.eigvalsh(self.ntk)[-1]) * self.output_factor**2


def limit(x: np.ndarray, kind: str, depth: int, beta: float, backend: str = "auto") -> Limit:
    """Compute the exact kernels of images (n, C, P, P), for "V", "GAP" or "FC"."""
    if kind == "FC":
        readouts = [Readout(kernel, "", depth, bias=beta) for kernel in ("fc-ntk", "fc-nngp")]
    else:
        readouts = [Readout(kernel, kind.lower(), depth) for kernel in ("ntk", "nngp")]
    return Limit(*direct.gram(x, readouts=readouts, backend=backend).astype(np.float64))


def expected(measure: str, kind: str, depth: int) -> float | None:
    """Return the slope of log(measure) against log(width) at large widths; None if the measure is zero."""
    if measure == "drift":
        return -1.0
    if measure == "movement":
        return -1.0 if depth > 2 else -0.5
    if measure == "layer":
        return -1.0 if kind == "GAP" else -0.5
    if measure == "kappa" and kind == "GAP" and depth == 3:  # linear in its one trained layer, but for kinks
        return None
    return -0.5


def seed_of(kind: str, depth: int, width: int, seed: int) -> int:
    """Return the seed of a network's weights; if two widths shared one, their weights would begin alike."""
    place = ("V", "GAP", "FC").index(kind)
    return int(
        np.random.SeedSequence((seed, place, depth, width)).generate_state(1, np.uint64)[0] >> np.uint64(1)
    )


def network(
    kind: str, depth: int, width: int, images: Dataset, how: Converge, factor: float = 1.0
) -> "Architecture":
    """Return the network to be measured; `factor` scales its output (`Limit.output_factor`)."""
    from cntk_bench.networks.architecture import Architecture

    channels, size = images.x_train.shape[1:3]
    beta = how.beta if kind == "FC" else 0.0
    return Architecture(kind.lower(), depth, width, channels, size, how.outputs, factor, beta)


def require(kind: str, depth: int, width: int, images: Dataset, how: Converge) -> None:
    """Raise UserError if a network does not fit into memory; call it before measuring narrower ones."""
    from cntk_bench.networks import empirical

    net, itemsize = network(kind, depth, width, images, how), np.dtype(how.dtype).itemsize
    empirical.plan(net, net.trained, len(images.x_train), itemsize, round(how.memory * memory.GIB))
    copies = COPIES if how.trained and (how.steps or how.iterations) else 1
    need, free = copies * itemsize * sum(map(math.prod, net.shapes.values())), memory.available()
    if need > free:
        raise UserError(
            f"{kind} at depth {depth}, width {width:,} needs {need / memory.GIB:.3g} GiB for its weights, "
            f"and {free / memory.GIB:.3g} GiB of memory are free: use smaller converge.widths"
        )


def measure(
    kind: str, depth: int, width: int, seed: int, images: Dataset, exact: Limit, how: Converge
) -> dict[str, float | None]:
    """Measure one network.

    Parameters
    ----------
    kind : {"V", "GAP", "FC"}
    depth, width, seed : int
        If seed is below how.trained, the network is trained, and kappa measured.
    images : Dataset
        Its training images and their labels are used.
    exact : Limit
        The exact kernels of these images.
    how : Converge
        Number of outputs, training, precision and memory.

    Returns
    -------
    dict of str to float
        `MEASURES`, None for those not asked for; the parts of kappa (distance, first, second) and the loss
        before and after training. Values are not finite if training diverged, or if no output depends on
        the weights before or after it, as in narrow networks without an active unit.

    Raises
    ------
    UserError
        If there is too little memory for the width.
    """
    import torch

    from cntk_bench.networks import descent, empirical, lazy

    factor = exact.output_factor
    net = network(kind, depth, width, images, how, factor)
    dtype, most = getattr(torch, how.dtype), round(how.memory * memory.GIB)
    first_seed = seed_of(kind, depth, width, seed)
    weights = net.weights(first_seed, dtype)
    trained = {name: weights[name] for name in net.trained}
    x = torch.tensor(images.x_train, dtype=dtype)
    y = torch.tensor(shifted_one_hot(images.y_train, images.classes)[:, : how.outputs], dtype=dtype)
    before = empirical.ntk(net, weights, x, memory=most).numpy()
    found: dict[str, float | None] = dict.fromkeys(MEASURES)
    found["error"] = _relative(before, factor**2 * exact.ntk)
    found["nngp_error"] = _relative(
        empirical.nngp(net, weights, x, memory=most).numpy(), factor**2 * exact.nngp
    )
    if seed < how.trained and how.iterations:
        lazily = lazy.laziness(
            lambda some: net.forward({**weights, **some}, x),
            trained,
            y,
            first_seed,
            iterations=how.iterations,
        )
        found |= {"distance": lazily.distance, "first": lazily.first, "second": lazily.second}
        found["kappa"] = lazily.kappa
    if seed < how.trained and how.steps:
        after = descent.descend(net, weights, x, y, how.rate / exact.largest, how.steps)
        kernel = empirical.ntk(net, after, x, memory=most).numpy()
        found["drift"] = _relative(kernel, before) if kernel.any() else math.nan
        found["movement"] = descent.movement(trained, after)
        found["layer"] = max(descent.movement({name: trained[name]}, after) for name in trained)
        for name, at in (("loss_before", weights), ("loss_after", after)):
            found[name] = float(((net.forward(at, x) - y) ** 2).sum() / 2)
    return found


def _relative(found: np.ndarray, true: np.ndarray) -> float:
    """|found - true| / |true|; NaN where the true one is zero."""
    norm = float(np.linalg.norm(true))
    return float(np.linalg.norm(found - true)) / norm if norm else math.nan
