"""Measure how long a training step of a network takes on this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch

from cntk_bench.networks.architecture import Architecture
from cntk_bench.networks.recipe import Recipe
from cntk_bench.networks.training import Images, begin, outputs, update

LEAST, MOST = 3, 20  # repetitions


@dataclass(frozen=True)
class Timing:
    """Median seconds of a step, and of one image's outputs; both measured with `images` images at once.

    If a batch is larger, the seconds of a step are scaled up in proportion.
    """

    step: float
    output: float
    images: int


def timed(net: Architecture, recipe: Recipe, images: Images, seconds: float = 1.0) -> Timing:
    """Time training steps, with a rate of 0 so that they leave the weights unchanged.

    Parameters
    ----------
    net : Architecture
    recipe : Recipe
        A batch of more than all `images` counts as all of them.
    images : Images
        As many as a batch, or fewer; `others` are not used.
    seconds : float
        The batch is enlarged until a step takes about half as long, or it is whole.
    """
    still = replace(recipe, rate=0.0)
    state, device = begin(net, still, images.x.device), images.x.device
    for name in net.trained:
        state.weights[name].requires_grad_()
    whole = min(recipe.batch or len(images.x), len(images.x))

    def step(size: int) -> Callable[[], None]:
        part = Images(images.x[:size], images.targets[:size], images.labels[:size], images.x[:0])
        places = torch.arange(size)
        return lambda: update(net, still, part, state, places)

    _seconds(step(1), device)  # warm-up: what libraries prepare when first called
    size = 1
    while (elapsed := _seconds(step(size), device)) < seconds / 2 and size < whole:
        size = min(2 * size, whole)
        _seconds(step(size), device)
    runs = min(max(LEAST, int(seconds / 2 / max(elapsed, 1e-9))), MOST)
    found = median(_seconds(step(size), device) for _ in range(runs))
    tried = median(
        _seconds(lambda: outputs(net, state.weights, images.x[:size]), device) for _ in range(runs)
    )
    return Timing(found * whole / size, tried / size, size)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
