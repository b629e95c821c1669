"""Checkpoints of conjugate gradients, so that a solve of hours can resume after it was killed.

A file holds one whole state (`conjugate.State`), which replaces the one before. Its name has a digest of the
problem, that is of the matrix, the targets and the ridge: so solves of other problems in between leave it.
A damaged file is not used, and is overwritten. A file is removed once its problem is solved; of the problems
that are not, the `MOST` that were worked on last keep theirs.
"""

import glob
import logging
import os
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
MOST = 16  # files with the same `path`
DIGITS = 16  # of a problem's digest in the file's name


@dataclass
class Checkpoint:
    """The file of one problem.

    path : the file's name without the problem's digest; None keeps nothing.
    problem : digest of the problem, hexadecimal.
    """

    path: Path | None
    problem: str
    _last: float = field(default_factory=time.monotonic)

    @property
    def file(self) -> Path | None:
        """Where this problem's state is kept."""
        return self.path and self.path.with_name(f"{self.path.stem}-{self.problem[:DIGITS]}.npz")

    def load(self, shape: tuple[int, int]) -> tuple[float, int, State] | None:
        """(jitter, rank of the preconditioner, state) of this problem; None where the file has none.

        `shape` is that of the targets, (n, k).
        """
        file = self.file
        if file is None or not file.exists():
            return None
        try:
            found = read_arrays(file)
            if str(found["problem"]) != self.problem:
                log.info("%s is of another problem: it is not used", short(str(file)))
                return None
            arrays = {name: found[name] for name in ("x", "residual", "direction", "products")}
            jitter, begun = float(found["jitter"]), float(found["begun"])
            rank, iteration = int(found["rank"]), int(found["iteration"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            log.warning("%s cannot be read (%s): it is not used", short(str(file)), short(str(error), 80))
            return None
        shapes = {"x": shape, "residual": shape, "direction": shape, "products": shape[1:]}
        for name, array in arrays.items():
            if array.shape != shapes[name] or array.dtype != np.float64 or not np.isfinite(array).all():
                log.warning("%s is damaged: it is not used", short(str(file)))
                return None
        return jitter, rank, State(**arrays, iteration=iteration, begun=begun)

    def keep(self, jitter: float, rank: int, state: State, now: bool = False) -> None:
        """Save a state if `SECONDS` have passed, or `now`; if it cannot be written, warn."""
        file = self.file
        if file is None or not (now or time.monotonic() - self._last >= SECONDS):
            return
        self._last = time.monotonic()
        try:
            self._write(file, jitter, rank, state)
        except UserError as error:
            log.warning("the solve goes on, but its state is not kept: %s", error)
        self._remove_oldest()

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
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)

    def _remove_oldest(self) -> None:
        """Remove the files of problems that were left unsolved, but those of the last `MOST`."""
        assert self.path is not None
        name = f"{glob.escape(self.path.stem)}-{'[0-9a-f]' * DIGITS}.npz"
        with suppress(OSError):  # another process may remove some, too
            for old in sorted(self.path.parent.glob(name), key=os.path.getmtime)[:-MOST]:
                log.info("%s is removed: %d later states of other problems are kept", short(str(old)), MOST)
                old.unlink(missing_ok=True)
