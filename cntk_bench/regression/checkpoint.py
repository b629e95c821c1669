"""Checkpoints of conjugate gradients, so that a solve of hours can resume after it was killed.

The file holds one whole state (`conjugate.State`), which replaces the one before, and says which problem it
belongs to: the matrix, the targets, the ridge. A file of another problem, or a damaged one, is not used, and
is overwritten.
"""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression.conjugate import State
from cntk_bench.system import files
from cntk_bench.system.arrays import read_arrays
from cntk_bench.text import short

log = logging.getLogger(__name__)

SECONDS = 30.0  # between two saved states


@dataclass
class Checkpoint:
    """The file of one problem.

    path : where; None keeps nothing.
    problem : text that identifies the problem.
    """

    path: Path | None
    problem: str
    _last: float = field(default_factory=time.monotonic)

    def load(self, shape: tuple[int, int]) -> tuple[float, int, State] | None:
        """(jitter, rank of the preconditioner, state) of this problem; None where the file has none.

        `shape` is that of the targets, (n, k).
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            found = read_arrays(self.path)
            if str(found["problem"]) != self.problem:
                log.info("%s is of another problem: it is not used", short(str(self.path)))
                return None
            arrays = {name: found[name] for name in ("x", "residual", "direction", "products")}
            jitter, begun = float(found["jitter"]), float(found["begun"])
            rank, iteration = int(found["rank"]), int(found["iteration"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            log.warning(
                "%s cannot be read (%s): it is not used", short(str(self.path)), short(str(error), 80)
            )
            return None
        shapes = {"x": shape, "residual": shape, "direction": shape, "products": shape[1:]}
        for name, array in arrays.items():
            if array.shape != shapes[name] or array.dtype != np.float64 or not np.isfinite(array).all():
                log.warning("%s is damaged: it is not used", short(str(self.path)))
                return None
        return jitter, rank, State(**arrays, iteration=iteration, begun=begun)

    def keep(self, jitter: float, rank: int, state: State, now: bool = False) -> None:
        """Save a state if `SECONDS` have passed, or `now`; if it cannot be written, warn."""
        if self.path is None or not (now or time.monotonic() - self._last >= SECONDS):
            return
        self._last = time.monotonic()
        try:
            self._write(self.path, jitter, rank, state)
        except UserError as error:
            log.warning("the solve goes on, but its state is not kept: %s", error)

    def _write(self, path: Path, jitter: float, rank: int, state: State) -> None:
        with files.writing(path.parent):
            path.parent.mkdir(exist_ok=True)
        with files.atomic_file(path) as file:
            np.savez(
                file,
                problem=np.array(self.problem),
                jitter=jitter,
                rank=rank,
                iteration=state.iteration,
                begun=state.begun,
                x=state.x,
                residual=state.residual,
                direction=state.direction,
                products=state.products,
            )

    def remove(self) -> None:
        """Remove the file, if that is allowed, once the problem is solved."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
