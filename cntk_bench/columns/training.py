"""The training of one network of a column, a `columns.Job`: begin it, resume it, read its result."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cntk_bench.columns.column import Done, Effort, Material
from cntk_bench.errors import UserError
from cntk_bench.networks.archive import Damaged
from cntk_bench.networks.folder import Folder, Result
from cntk_bench.networks.recipe import Recipe
from cntk_bench.text import short

if TYPE_CHECKING:
    from cntk_bench.networks.training import State

log = logging.getLogger(__name__)

CHECKPOINT = 60.0  # seconds between two checkpoints, the most that a kill loses
TOLD = 5.0  # seconds between updates of progress.json


@dataclass(frozen=True)
class Training:
    """One network to be trained.

    Parameters
    ----------
    label : str
        In words, unique within the run.
    kind, depth, kappa
        As for `networks.architecture.Architecture`.
    how : columns.network.Network
        The config's section.
    recipe : Recipe
    material : Material
    place : Path
        The folder of the cell.
    """

    label: str
    kind: str
    depth: int
    kappa: float
    how: Any
    recipe: Recipe
    material: Material
    place: Path

    @cached_property
    def identity(self) -> str:
        """SHA-256 of everything that determines the weights."""
        network = {"kind": self.kind, "depth": self.depth, "width": self.how.width, "kappa": self.kappa}
        if self.kind == "fc":
            network["beta"] = self.how.beta
        data = {"images": self.material.fingerprint(), "held_out": []}
        if self.how.choose == "validation":  # else no images have to be loaded for it
            data["held_out"] = self.how.held_out(len(self.material.y_train)).tolist()
        return self.recipe.identity(network, data)

    @property
    def folder(self) -> Path:
        """As `columns.Job`; training with other settings, or on other images, has another folder."""
        return self.place / f"rate-{self.recipe.rate:g}-trial-{self.recipe.trial}-{self.identity[:12]}"

    @property
    def _files(self) -> Folder:
        return Folder(self.folder, self.identity)

    def done(self) -> Done:
        """As `columns.Job`."""
        try:
            found = self._files.result()
        except Damaged as fault:
            return Done(False, damage=str(fault))
        if found is not None:
            words = _words(found.epoch, *found.history[-1])
            if found.failure is not None:
                words = f"failed at step {found.failure['step']}: {found.failure['reason']}"
            return Done(self._of_this_limit(found), words)
        past = self._files.progress()
        return Done(False, _words(past["epoch"], past["loss"], past["accuracy"]) if past else "")

    def _of_this_limit(self, found: Result) -> bool:
        """Whether the config's limit of epochs leads to this result.

        A result of a lower limit can be trained further; one that took more epochs belongs to another limit.
        """
        limit = self.how.epochs
        if found.reached is not None:
            return found.reached <= limit
        if found.failure is None:
            return found.epoch == limit
        if found.epoch == limit:  # it failed at the end of that epoch, or in the next one
            return self._epoch_of(found.failure["step"]) <= limit
        return found.epoch < limit

    def _epoch_of(self, step: int) -> int:
        """Return the epoch of a step, both counted from 1."""
        return -(-step // self.recipe.steps(self._trained_on()))

    def _trained_on(self) -> int:
        """Return the number of images that are trained on."""
        n = len(self.material.y_train)
        return n - len(self.how.held_out(n))

    def result(self) -> Result:
        """Return the result of the training.

        Raises
        ------
        UserError
            If it is not finished, or damaged.
        """
        try:
            found = self._files.result()
        except Damaged as fault:
            raise UserError(f"{self.label}: its result is damaged ({fault}): run `train` again") from None
        if found is None:
            raise UserError(f"{self.label} is not trained yet: run `train` first")
        return found

    def epoch_time(self) -> float:
        """Return the length of an epoch in the kernel's time (`networks.recipe`)."""
        return self.recipe.time(self._trained_on(), self.material.classes, self.kappa)

    def effort(self) -> Effort:
        """As `columns.Job`."""
        from cntk_bench.columns import effort

        return effort.effort(self)

    def do(self, report: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        """As `columns.Job`."""
        from cntk_bench.networks import device as devices

        device = devices.choose(self.how.device, self.recipe.precision)
        with (
            devices.fitting(self.label, "use a smaller network.batch or network.width"),
            devices.arithmetic(device, self.recipe.precision),
        ):
            self._do(device, report, stopped)

    def _do(self, device: Any, report: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        import torch

        from cntk_bench.networks import training

        files = self._files
        files.prepare()
        self._require_higher_limit()
        net, images = self.network(), self.images(device)
        resumed = files.resumed(device)
        state, made = resumed or (training.begin(net, self.recipe, device), {"devices": []})
        if resumed:
            self._require_predictions(state)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        now_made = {
            "devices": list(dict.fromkeys([*made["devices"], name])),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        if resumed and (other := [key for key, value in now_made.items() if made.get(key) != value]):
            log.warning(
                "%s was begun with %s=%s, and goes on with %s: its last bits may be others",
                self.label,
                other[0],
                short(str(made.get(other[0]))),
                short(str(now_made[other[0]])),
            )
        made = now_made
        saved = told = time.monotonic()
        for _ in training.steps(net, self.recipe, images, state, self.how.epochs):
            if state.history:
                report(_words(state.epoch, *state.history[-1]))
            now = time.monotonic()
            if stopped() or now - saved > CHECKPOINT:
                training.look(state, self.recipe, len(images.x))
                if state.failure is None:
                    files.save(state, made)
                    saved = now
                if stopped() and state.failure is None:
                    return
            if now - told > TOLD:
                files.tell(state)
                told = now
        files.finish(state, made)
        log.info("%s: %s", self.label, self.done().words)

    def _require_higher_limit(self) -> None:
        """Refuse a limit of epochs that an existing result exceeds, which is left as it is."""
        try:
            found = self._files.result()
        except Damaged:
            return
        if found is None or self._of_this_limit(found):
            return
        if found.reached is not None:
            raise self._too_far(found.epoch, f"{found.reached} at least")
        if found.failure is not None:
            raise self._too_far(found.epoch, f"{self._epoch_of(found.failure['step'])} at least")
        if found.epoch > self.how.epochs:
            more = found.epoch + self.recipe.epochs_after
            raise self._too_far(found.epoch, f"{found.epoch}, or {more} and more")

    def _require_predictions(self, state: "State") -> None:
        """Refuse a limit of epochs that needs predictions of past epochs that were not kept."""
        after = self.recipe.epochs_after
        if state.reached is not None:
            if state.reached > self.how.epochs:
                raise self._too_far(state.epoch, f"{state.reached} at least")
            return
        wanted = range(max(self.how.epochs - after, 0) + 1, state.epoch + 1)
        if state.epoch > self.how.epochs or not set(wanted) <= set(state.predicted):
            raise self._too_far(state.epoch, f"{state.epoch + after} at least")

    def _too_far(self, epochs: int, remedy: str) -> UserError:
        return UserError(
            f"{self.label}: trained for {epochs} epochs already, too many for network.epochs = "
            f"{self.how.epochs}: use {remedy}, or another network.seed"
        )

    def network(self) -> Any:
        """Return the network's `networks.architecture.Architecture`."""
        from cntk_bench.networks.architecture import Architecture

        x, _ = self.material.images()
        beta = self.how.beta if self.kind == "fc" else 0.0
        shape = x.shape[1], x.shape[2]
        return Architecture(
            self.kind, self.depth, self.how.width, *shape, self.material.classes, self.kappa, beta
        )

    def images(self, device: Any) -> Any:
        """Return images and targets on the device: trained on, held out, and of the test set."""
        import torch

        from cntk_bench.networks.training import Images
        from cntk_bench.regression.targets import shifted_one_hot

        (x, z), y = self.material.images(), self.material.y_train
        held_out = self.how.held_out(len(y))
        kept = np.setdiff1d(np.arange(len(y)), held_out)
        arrays = (
            x[kept],
            shifted_one_hot(y[kept], self.material.classes, "float32"),
            y[kept],
            np.concatenate([x[held_out], z]),
        )
        tensors = [torch.tensor(array, device=device) for array in arrays]
        if self.kind != "fc" and (device.type == "cpu" or self.recipe.precision != "float32"):
            # In this memory order convolutions are faster: by up to a sixth on a CPU, and on tensor cores.
            for place in (0, 3):
                tensors[place] = tensors[place].contiguous(memory_format=torch.channels_last)
        return Images(*tensors)


def _words(epoch: int, loss: float | None, accuracy: float | None) -> str:
    if loss is None or accuracy is None:
        return f"epoch {epoch}"
    return f"epoch {epoch}, loss {loss:.3g}, training accuracy {100 * accuracy:.1f} %"
