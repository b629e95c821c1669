"""The folder of one network, with the state and the results of its training.

    lock          held by the process that trains it
    checkpoint    the whole state, written now and then, and when training stops; removed when it is
                  finished and no higher limit of epochs could continue it
    result        predictions, and how training went; there once it is finished
    progress.json the progress, in a few bytes, for status displays

The files are written atomically. A checkpoint or result has a SHA-256, which shows whether it is intact, and
the identity of the recipe, which shows what it belongs to.
"""

import errno
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.networks.archive import Damaged, pack, unpack
from cntk_bench.system.files import PARTIAL, read_plain, write_atomic
from cntk_bench.text import short

if TYPE_CHECKING:
    import torch

    from cntk_bench.networks.training import State

log = logging.getLogger(__name__)

NO_FILE = (errno.ELOOP, errno.EISDIR, errno.EINVAL)  # a link to itself, a folder, a pipe or a device
KEPT = ("weights", "velocity", "predicted", "outputs")  # fields of a `State` that are dicts of arrays


@dataclass(frozen=True)
class Result:
    """How the training of one network went.

    epoch : epochs done.
    reached : the first epoch with full training accuracy; None if it was not reached.
    history : for epoch 0, 1, ...: mean squared error and accuracy (0 to 1) on the training images.
    failure : {"step", "reason"} if training failed, else None.
    predicted : (r, m) int16, classes of the other images, at the end of each of the last epochs, from 1.
    outputs : epoch -> (m, k) float32.
    made : versions and devices used.
    """

    epoch: int
    reached: int | None
    history: list[tuple[float, float]]
    failure: dict[str, Any] | None
    predicted: np.ndarray
    outputs: dict[int, np.ndarray]
    made: dict[str, Any]


@dataclass(frozen=True)
class Folder:
    """One network's folder.

    Parameters
    ----------
    path : Path
    identity : str
        That of the recipe, the network and the data.
    """

    path: Path
    identity: str

    def result(self) -> Result | None:
        """The result; None before training is finished.

        Raises
        ------
        Damaged
            If the file is not as it was written, or belongs to another identity.
        """
        found = self._read("result")
        if found is None:
            return None
        arrays, about = found
        # Earlier versions kept epoch 0, too, before the first step, where the limit of epochs was low.
        rows = [
            arrays[name]
            for name in sorted(arrays)
            if name.startswith("predicted/") and int(name.partition("/")[2]) > 0
        ]
        drawn = {int(name.partition("/")[2]): a for name, a in arrays.items() if name.startswith("outputs/")}
        return Result(
            about["epoch"],
            about["reached"],
            [tuple(point) for point in about["history"]],
            about["failure"],
            np.stack(rows) if rows else np.empty((0, 0), np.int16),
            drawn,
            about["made"],
        )

    def prepare(self) -> None:
        """Remove files half written by a killed process; to be called while holding the lock.

        Raises
        ------
        UserError
            If a folder has the name of one of the files, which could then not be written at the end.
        """
        for name in ("checkpoint", "result", "progress.json"):
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                raise UserError(f"{short(str(path))} is a folder, where a file is to be: remove it")
            for leftover in self.path.glob(f".{name}-*{PARTIAL}"):
                leftover.unlink(missing_ok=True)

    def save(self, state: "State", made: Mapping[str, Any]) -> None:
        """Write a checkpoint."""
        self._write("checkpoint", state, made, KEPT)
        self.tell(state)

    def finish(self, state: "State", made: Mapping[str, Any]) -> None:
        """Write the result; the checkpoint is kept only if training could continue with more epochs.

        The result is written last: if the process is killed before, the next one removes whatever was left
        half written.
        """
        ended = state.reached is not None or state.failure is not None
        if ended:
            self.tell(state)
        else:
            self.save(state, made)
        self._write("result", state, made, ("predicted", "outputs"))
        if ended:
            (self.path / "checkpoint").unlink(missing_ok=True)

    def resumed(self, device: "torch.device") -> tuple["State", dict[str, Any]] | None:
        """The state in the checkpoint, and what made it; None if there is no usable checkpoint."""
        import torch

        from cntk_bench.networks.training import Failure, State

        try:
            found = self._read("checkpoint")
        except Damaged as fault:
            log.warning(
                "the checkpoint in %s is damaged (%s): training begins anew", short(str(self.path)), fault
            )
            return None
        if found is None:
            return None
        arrays, about = found
        kept: dict[str, dict] = {name: {} for name in KEPT}
        for name, array in arrays.items():
            kind, _, key = name.partition("/")
            # Copied into PyTorch's alignment: products of arrays aligned otherwise may round differently.
            tensors = kind in ("weights", "velocity")
            kept[kind][key if tensors else int(key)] = (
                torch.tensor(array, device=device) if tensors else array
            )
        failure = about["failure"] and Failure(**about["failure"])
        state = State(
            weights=kept["weights"],
            velocity=kept["velocity"],
            predicted=kept["predicted"],
            outputs=kept["outputs"],
            epoch=about["epoch"],
            step=about["step"],
            history=[tuple(point) for point in about["history"]],
            reached=about["reached"],
            failure=failure,
        )
        return state, about["made"]

    def tell(self, state: "State") -> None:
        """Write the progress file."""
        error, accuracy = state.history[-1] if state.history else (None, None)
        said = {
            "epoch": state.epoch,
            "loss": error if error is not None and np.isfinite(error) else None,
            "accuracy": accuracy,
        }
        write_atomic(self.path / "progress.json", json.dumps(said) + "\n")

    def progress(self) -> dict[str, Any] | None:
        """The progress: epoch, loss and accuracy (0 to 1); None if no valid progress file is there."""
        try:
            found = json.loads(read_plain(self.path / "progress.json", 2**16))
            return {
                "epoch": int(found["epoch"]),
                "loss": None if found["loss"] is None else float(found["loss"]),
                "accuracy": None if found["accuracy"] is None else float(found["accuracy"]),
            }
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None

    def _write(self, name: str, state: "State", made: Mapping[str, Any], kinds: tuple[str, ...]) -> None:
        arrays = {}
        for kind in kinds:
            for key, value in getattr(state, kind).items():
                label = f"{kind}/{key:09d}" if isinstance(key, int) else f"{kind}/{key}"
                arrays[label] = value if isinstance(value, np.ndarray) else value.detach().cpu().numpy()
        about = {
            "identity": self.identity,
            "epoch": state.epoch,
            "step": state.step,
            "history": state.history,
            "reached": state.reached,
            "failure": state.failure and asdict(state.failure),
            "made": dict(made),
        }
        write_atomic(self.path / name, pack(arrays, about))

    def _read(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        try:
            size = (self.path / name).stat().st_size
            arrays, about = unpack(read_plain(self.path / name, size + 1))
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            raise Damaged(f"it cannot be read: {error.strerror}") from None
        if about["identity"] != self.identity:
            raise Damaged("it is of another network, or of other settings or images")
        return arrays, about
