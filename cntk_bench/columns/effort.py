"""Upper bounds on what training a network takes, from some timed steps on this machine."""

from math import prod
from typing import Any

from cntk_bench.columns.column import Effort
from cntk_bench.columns.training import Training
from cntk_bench.networks.recipe import points
from cntk_bench.system import memory

CHECKPOINTS = 3  # copies of a checkpoint in memory while it is written
FILE, ARRAY = 4096, 320  # approximate overhead in bytes of a file, and of each array in it
POINT = 48  # bytes of an epoch's loss and accuracy, written as text
COPIES = 3  # of a layer's outputs while images are classified


def effort(job: Training, seconds: float = 1.0) -> Effort:
    """Time a network's steps for some seconds, and return what its whole training takes at most.

    Parameters
    ----------
    job : Training
        It is counted as not begun; nothing is written.
    seconds : float
        As for `networks.timing.timed`.
    """
    import torch

    from cntk_bench.networks import device as devices
    from cntk_bench.networks import empirical, timing, training

    recipe, device = job.recipe, devices.choose(job.how.device, job.recipe.precision)
    remedy = "use a smaller network.batch or network.width"
    with devices.fitting(job.label, remedy), devices.arithmetic(device, recipe.precision):
        net, images = job.network(), job.images(device)
        found = timing.timed(net, recipe, images, seconds)
    n, m = len(images.x), len(images.others)
    epochs, after = job.how.epochs + recipe.epochs_after, recipe.epochs_after
    drawn = points(epochs) * recipe.curve
    looked = n * (epochs + 1) + m * (after + drawn)
    sizes = {name: prod(shape) for name, shape in net.shapes.items()}
    moved = net.trained if recipe.momentum else ()
    about = POINT * epochs + FILE
    kept = after * (2 * m + ARRAY) + drawn * (4 * m * net.outputs + ARRAY)
    state = sum(4 * sizes[name] + ARRAY for name in (*sizes, *moved))
    result, checkpoint = kept + about, state + kept + about
    layer = net.width * (1 if net.kind == "fc" else net.size**2)
    left = empirical.ACTIVATIONS * (net.depth - 1) * layer * (min(recipe.batch or n, n) - found.images)
    blocks = COPIES * min(training.BLOCK[device.type], layer * max(n, m))
    so_far = memory.peak()
    if device.type == "cuda":
        so_far = torch.cuda.max_memory_allocated(device)
    return Effort(
        epochs=epochs,
        steps=epochs * recipe.steps(n),
        batch=min(recipe.batch or n, n),
        step_seconds=found.step,
        seconds=epochs * recipe.steps(n) * found.step + looked * found.output,
        memory=so_far + 4 * (left + blocks) + CHECKPOINTS * checkpoint * (device.type == "cpu"),
        disk=result + checkpoint,
        checkpoint=checkpoint,
        basis=f"{found.images} images at once on {_name(device)}",
    )


def _name(device: Any) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"the CPU, {threads} thread{'s' * (threads != 1)}"
