"""Training, step by step: it can stop between any two steps and resume from its state with the same bits.

Each epoch ends with an evaluation of all training images. Training ends `epochs_after` epochs after the first
at whose end every one is classified correctly, or at a limit of epochs (set by the caller: it affects no
weight), or when it fails: the loss is not finite or above `BOUND`, or every output is zero, and with it every
gradient.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from torch import Tensor

from cntk_bench.networks.architecture import Architecture
from cntk_bench.networks.recipe import Recipe, in_curve
from cntk_bench.system import memory

# Mean squared error beyond which a network has diverged. It usually begins near one; at a rate above what is
# stable it may rise by some hundreds and come back, but outputs of a hundred times the targets do not.
BOUND = 1e4
LOOK = 64  # steps on a GPU between two checks of the losses; on a CPU each is checked
# Values of a hidden layer that are computed at once when nothing is trained, by the kind of device.
BLOCK = {"cpu": 2**22, "cuda": 2**28}


@dataclass(frozen=True)
class Images:
    """The images that a network is trained and tested on, on the device that trains.

    x : (n, channels, size, size) float32.
    targets : (n, k) float32.
    labels : (n,) int64.
    others : (m, channels, size, size) float32, for which only predictions are wanted.
    """

    x: Tensor
    targets: Tensor
    labels: Tensor
    others: Tensor


@dataclass(frozen=True)
class Failure:
    """Why the training of a network failed: the step (from 1, over all epochs) and the reason in words."""

    step: int
    reason: str


@dataclass
class State:
    """The whole state of training.

    weights : name -> tensor; those that are trained require gradients.
    velocity : name -> tensor of momentum; empty without momentum.
    epoch, step : whole epochs done, and steps done of the current one.
    history : for epoch 0, 1, ...: mean squared error and accuracy (0 to 1) on the training images at its end.
    reached : the first epoch with full training accuracy.
    predicted : epoch, from 1 -> (m,) int16, classes of the other images.
    outputs : epoch -> (m, k) float32, outputs for them.
    """

    weights: dict[str, Tensor]
    velocity: dict[str, Tensor] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    history: list[tuple[float, float]] = field(default_factory=list)
    reached: int | None = None
    failure: Failure | None = None
    predicted: dict[int, np.ndarray] = field(default_factory=dict)
    outputs: dict[int, np.ndarray] = field(default_factory=dict)
    unseen: list[Tensor] = field(default_factory=list)  # losses of the last steps, not checked yet

    def last(self, epochs: int, after: int) -> int:
        """The last epoch of training, if full training accuracy has to be reached within `epochs`."""
        return epochs if self.reached is None else self.reached + after

    def finished(self, epochs: int, after: int) -> bool:
        """Whether nothing is left to do."""
        return self.failure is not None or self.epoch >= self.last(epochs, after)


def begin(net: Architecture, recipe: Recipe, device: torch.device) -> State:
    """The state before the first step.

    Raises
    ------
    MemoryError
        If the weights, their gradient and their velocity need more than is free: the system would kill the
        process without a message.
    """
    need = 4 * sum(map(prod, net.shapes.values()))
    need += 4 * (2 if recipe.momentum else 1) * sum(prod(net.shapes[name]) for name in net.trained)
    if device.type == "cpu" and need > (free := memory.available()):
        raise MemoryError(f"it needs {need / memory.GIB:.3g} GiB, and {free / memory.GIB:.3g} GiB are free")
    weights = {name: w.to(device) for name, w in net.weights(recipe.weights_seed).items()}
    velocity = {name: torch.zeros_like(weights[name]) for name in net.trained} if recipe.momentum else {}
    return State(weights, velocity)


def steps(net: Architecture, recipe: Recipe, images: Images, state: State, epochs: int) -> Iterator[None]:
    """Train until the end; yields after every step, when `state` is consistent.

    Parameters
    ----------
    net : Architecture
    recipe : Recipe
    images : Images
    state : State
        Changed in place.
    epochs : int
        The limit.
    """
    n = len(images.x)
    for name in net.trained:
        state.weights[name].requires_grad_()
    if not state.history:
        _look_back(net, recipe, images, state, epochs)
    while not state.finished(epochs, recipe.epochs_after):
        batches = torch.as_tensor(recipe.order(n, state.epoch)).split(recipe.batch or n)
        for batch in batches[state.step :]:
            update(net, recipe, images, state, batch)
            state.step += 1
            if len(state.unseen) >= (1 if images.x.device.type == "cpu" else LOOK):
                look(state, recipe, n)
            if state.step == len(batches):
                look(state, recipe, n)
                if state.failure is None:
                    state.epoch, state.step = state.epoch + 1, 0
                    _look_back(net, recipe, images, state, epochs)
            yield
            if state.failure is not None:
                return


def look(state: State, recipe: Recipe, n: int) -> None:
    """Check the losses that have not been checked yet; the first that is too large ends training."""
    if not state.unseen:
        return
    losses = torch.stack(state.unseen).tolist()
    first = state.epoch * recipe.steps(n) + state.step - len(losses) + 1
    state.unseen = []
    for step, loss in enumerate(losses, first):
        if not loss <= BOUND:  # NaN, too
            state.failure = state.failure or Failure(step, _too_large(loss))


def _too_large(loss: float) -> str:
    return f"its mean squared error was {loss:.2g}"


def update(net: Architecture, recipe: Recipe, images: Images, state: State, batch: Tensor) -> None:
    """One step of gradient descent, on the images with the indices `batch`."""
    whole = len(batch) == len(images.x)
    batch = batch.to(images.x.device)
    x, targets = (images.x, images.targets) if whole else (images.x[batch], images.targets[batch])
    residuals = net.forward(state.weights, x).float() - targets
    error = residuals.square().mean()
    loss = error if recipe.loss == "mean" else residuals.square().sum() / 2
    gradients = torch.autograd.grad(loss, [state.weights[name] for name in net.trained])
    state.unseen.append(error.detach())
    with torch.no_grad():
        for name, gradient in zip(net.trained, gradients, strict=True):
            if recipe.momentum:
                gradient = state.velocity[name].mul_(recipe.momentum).add_(gradient)
            state.weights[name].sub_(gradient, alpha=recipe.rate)


def _look_back(net: Architecture, recipe: Recipe, images: Images, state: State, epochs: int) -> None:
    """Evaluate the network at the end of an epoch, and record the results in `state`."""
    found = outputs(net, state.weights, images.x)
    error = float((found.double() - images.targets).square().mean())
    right = int((found.argmax(1) == images.labels).sum())
    state.history.append((error, right / len(images.x)))
    step = state.epoch * recipe.steps(len(images.x))
    if not error <= BOUND:
        state.failure = Failure(step, _too_large(error))
    elif not found.count_nonzero():
        state.failure = Failure(step, "every output was zero, and with it every gradient")
    if state.failure is not None:
        return
    if state.reached is None and right == len(images.x) and state.epoch:
        state.reached = state.epoch
        state.predicted = {}
    begins = max(0, state.last(epochs, recipe.epochs_after) - recipe.epochs_after)  # epoch 0 is no training
    state.predicted = {epoch: kept for epoch, kept in state.predicted.items() if epoch > begins}
    drawn = recipe.curve and in_curve(state.epoch)
    if drawn or state.epoch > begins:
        tried = outputs(net, state.weights, images.others)
        if state.epoch > begins:
            state.predicted[state.epoch] = tried.argmax(1).to("cpu", torch.int16).numpy()
        if drawn:
            state.outputs[state.epoch] = tried.cpu().numpy()


def outputs(net: Architecture, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Outputs (n, k), float32, of images (n, channels, size, size), computed in parts."""
    rows = max(1, BLOCK[x.device.type] // (net.width * (1 if net.kind == "fc" else net.size**2)))
    with torch.no_grad():
        return torch.cat([net.forward(weights, part).float() for part in x.split(rows)])
