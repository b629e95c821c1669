"""A run for whoever works with its matrices: in Python, or in files of other formats."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cntk_bench.columns import find
from cntk_bench.errors import UserError
from cntk_bench.grams import matrix, store
from cntk_bench.grams.store import Store
from cntk_bench.runs import record
from cntk_bench.runs.directory import Run
from cntk_bench.system import paths
from cntk_bench.text import short


@dataclass(frozen=True)
class Gram:
    """The matrices of one column and depth, and what belongs to their rows.

    train : (n, n) float64, symmetric.
    test : (m, n) float64; rows are test images.
    y_train, y_test : (n,) and (m,) int64.
    train_index, test_index : the images' places in the data set, int64; None where they are not known.
    """

    train: np.ndarray
    test: np.ndarray
    y_train: np.ndarray
    y_test: np.ndarray
    train_index: np.ndarray | None
    test_index: np.ndarray | None

    def arrays(self) -> dict[str, np.ndarray]:
        """Those that are there, by their names."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class OpenRun:
    """A computed run; `open_run` makes one."""

    run: Run
    store: Store
    sizes: tuple[int, int]

    @property
    def columns(self) -> tuple[tuple[str, int], ...]:
        """(column, depth) of every cell that the run's config names."""
        return self.run.config().kernel.cells

    def gram(self, column: str, depth: int) -> Gram:
        """The matrices of a column and depth, whole, in float64.

        Parameters
        ----------
        column : str
            Such as "CNTK-GAP".
        depth : int
            Number of 3x3 convolutions plus one.

        Raises
        ------
        UserError
            If the column has no Gram matrix, or several, or the run does not hold it, or not all of it.
        """
        if not isinstance(column, str):
            raise UserError(f"column {short(repr(column))} is not possible: give a name, such as 'CNTK-GAP'")
        needed = find(column).needs(depth)
        if not needed:
            raise UserError(f"column {short(column)} has no Gram matrix: choose a kernel column")
        if len(needed) > 1:
            names = short(", ".join(map(str, needed)))
            raise UserError(
                f"column {short(column)} has {len(needed)} Gram matrices ({names}), of which none is the "
                "column's: choose a column of one of them"
            )
        matrix.require_done(self.store, needed[0], self.sizes)
        known = self.store.images(self.sizes)
        return Gram(
            matrix.matrix(self.store, "train", needed[0], sizes=self.sizes),
            matrix.matrix(self.store, "test", needed[0], sizes=self.sizes),
            *known.labels,
            *(known.indices or (None, None)),
        )


def open_run(path: str | Path) -> OpenRun:
    """Open a run directory, to work with its matrices.

    Parameters
    ----------
    path : path-like
        The --output of a run; ~ stands for the home directory.

    Returns
    -------
    OpenRun
        Of as many images as were asked for last.

    Raises
    ------
    UserError
        If there is no computed run.

    Examples
    --------
    >>> run = cntk_bench.open_run("runs/quickstart")
    >>> gram = run.gram("CNTK-V", 3)
    >>> gram.train.shape
    (200, 200)
    """
    run = Run(Path(paths.expanded(str(path))))
    facts = record.computed(record.load(run.record))
    return OpenRun(run, store.open(run.gram), (facts["n_train"], facts["n_test"]))
