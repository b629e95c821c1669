"""Access to a run's matrices, in Python or to write them in other formats."""

from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

import numpy as np

from cntk_bench.columns import find, has_depth
from cntk_bench.errors import UserError
from cntk_bench.grams import image_facts, matrix, store
from cntk_bench.grams.store import Store
from cntk_bench.kernels.spec import Readout, is_integer
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.system import paths
from cntk_bench.text import short


@dataclass(frozen=True)
class Gram:
    """The matrices of one column and depth, with the labels and indices of their images.

    train : (n, n) float64, symmetric.
    test : (m, n) float64; rows are test images.
    y_train, y_test : (n,) and (m,) int64.
    train_index, test_index : the images' indices in the data set, int64; None if they are not known.
    """

    train: np.ndarray
    test: np.ndarray
    y_train: np.ndarray
    y_test: np.ndarray
    train_index: np.ndarray | None
    test_index: np.ndarray | None

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class OpenRun:
    """A computed run, as `open_run` returns it.

    sizes : numbers of training images in one draw, and of test images.
    draws : number of draws of training images; methods use the first one by default.
    """

    run: Run
    store: Store
    sizes: tuple[int, int]
    draws: int = 1

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """(y_train, y_test), int64."""
        return self.store.images(self.sizes).labels

    @property
    def columns(self) -> tuple[tuple[str, int | None], ...]:
        """(column, depth) of every cell in the run's config; depth is None for a column without depths."""
        return self.run.config().kernel.cells

    def gram(self, column: str, depth: int, draw: int = 1) -> Gram:
        """Read the whole matrices of a column and depth, in float64.

        Parameters
        ----------
        column : str
            For example "CNTK-GAP".
        depth : int
            Number of 3x3 convolutions plus one.
        draw : int
            The draw of the training images, 1 .. `draws`.

        Raises
        ------
        UserError
            If the column has no Gram matrix or several, or the run does not hold all of it.
        """
        if not isinstance(draw, Integral) or not 1 <= draw <= self.draws:
            raise UserError(f"draw {short(draw)}: {short(str(self.run.path))} has draws 1 to {self.draws}")
        readout = self.readout(column, depth)
        known, n = self.store.images(self._all), self.sizes[0]
        which, images, index = (draw - 1, self.draws), slice((draw - 1) * n, draw * n), known.indices
        return Gram(
            matrix.matrix(self.store, "train", readout, sizes=self._all, draw=which),
            matrix.matrix(self.store, "test", readout, sizes=self._all, draw=which),
            known.labels[0][images],
            known.labels[1],
            *((index[0][images], index[1]) if index else (None, None)),
        )

    @property
    def _all(self) -> tuple[int, int]:
        """Numbers of training images of all draws, and of test images."""
        return self.sizes[0] * self.draws, self.sizes[1]

    def readout(self, column: str, depth: int) -> Readout:
        """The readout of a column at a depth, with all of its tiles computed; UserError as for `gram`."""
        if not isinstance(column, str):
            raise UserError(f"column {short(repr(column))} is not possible: give a name, such as 'CNTK-GAP'")
        found = find(column)
        if has_depth(found) and not is_integer(depth, 1):
            raise UserError(
                f"depth {short(repr(depth))} is not possible for column {short(column)}: give an integer of "
                "at least 1, such as one of those that `columns` of the run lists"
            )
        needed = found.needs(depth)
        if not needed:
            raise UserError(f"column {short(column)} has no Gram matrix: choose a kernel column")
        if len(needed) > 1:
            names = short(", ".join(map(str, needed)))
            raise UserError(
                f"column {short(column)} has {len(needed)} Gram matrices ({names}), of which none is the "
                "column's: choose a column of one of them"
            )
        matrix.require_done(self.store, needed[0], self._all, self.draws)
        return needed[0]

    def first(self, train: int) -> "OpenRun":
        """The same run with only the first training images of the first draw, balanced if its order is.

        Raises
        ------
        UserError
            If there are fewer images.
        """
        if not isinstance(train, Integral) or not 2 <= train <= self.sizes[0]:
            where = short(str(self.run.path))
            raise UserError(f"{short(train)} training images: use 2 to {self.sizes[0]:,}, which {where} has")
        return replace(self, sizes=(train, self.sizes[1]), draws=1)


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
        If there is no computed run, or its columns have no Gram matrices.

    Examples
    --------
    >>> run = cntk_bench.open_run("runs/quickstart")
    >>> gram = run.gram("CNTK-V", 3)
    >>> gram.train.shape
    (300, 300)
    """
    run = Run(Path(paths.expanded(str(path))))
    facts = record.computed(record.load(run.record))
    if not run.gram.exists() and not run.config().kernel.readouts:
        where = short(str(run.path))
        raise UserError(f"the columns of {where} need no Gram matrix: compute one that does, such as CNTK-V")
    sizes = facts["n_train"], facts["n_test"]
    opened = OpenRun(run, store.open(run.gram), sizes, record.draws(facts))
    require_images_of_record(opened.store, facts, record.sizes(facts))
    return opened


def require_images_of_record(grams: Store, facts: dict, sizes: tuple[int, int]) -> None:
    """Refuse a store whose images are not the record's (`has_images`)."""
    if not has_images(grams, facts, sizes):
        raise UserError(
            f"{short(str(grams.path))} holds another computation: its images are not those that the run's "
            "record.json tells of: run `compute` again"
        )


def has_images(grams: Store, facts: dict, sizes: tuple[int, int]) -> bool:
    """Whether a store's first images are those of a record; also for format 1, which has no digests.

    Parameters
    ----------
    grams : Store
    facts : dict
        What the record, or one of its solves, says of the images.
    sizes : (int, int)
        Numbers of training images of all draws, and of test images.

    Raises
    ------
    VerificationError
        If what the store keeps of its images is damaged.
    """
    here, there = facts.get("images"), grams.images(sizes).fingerprint
    if here is not None and there is None and image_facts.KEPT in grams.attributes:
        grams.require_images()  # says that its digests are damaged
    if here is None or there is None:
        here, there = facts["fingerprint"], grams.attributes.get("data", facts["fingerprint"])
    return here == there
