"""What a column of the table is: the contract between those who fill cells and those who ask for them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from cntk_bench.kernels.spec import Readout


@dataclass(frozen=True)
class Asked:
    """What is known of a table before anything is computed.

    n_train, features, classes : int
        Training images, numbers of one image (C P P), classes.
    memory : float or None
        The config's `solve.memory`, GiB; None for what is free.
    section : callable
        As `Given.section`.
    """

    n_train: int
    features: int
    classes: int
    memory: float | None
    section: Callable[[str], Any]


class Given(Protocol):
    """What a cell may be filled from.

    classes : number of classes k.
    y_train : (n,) int64.
    how : the config's section `solve`.
    """

    classes: int
    y_train: np.ndarray
    how: Any

    @property
    def device(self) -> str:
        """Where matrices are to be solved: "cpu" or "cuda"."""

    @property
    def dtype(self) -> str:
        """In which precision matrices are to be solved: "float64" or "float32"."""

    def section(self, name: str) -> Any:
        """A section of the config that a family of columns added (`section`), checked."""

    def train(self, readout: Readout) -> np.ndarray:
        """The train x train Gram matrix (n, n), the caller's own; only its lower triangle is filled."""

    def test(self, readout: Readout) -> Iterable[np.ndarray]:
        """The test x train matrix, float64, a block (h, n) of test images at a time."""

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """(x_train, x_test), float32 (n, C, P, P), preprocessed; loaded when they are first asked for."""


@dataclass(frozen=True)
class Cell:
    """What fills one cell.

    predicted : (m,) int64, the classes of the test images; or (r, m) of r predictions, such as of several
        trained networks, whose accuracies are averaged.
    facts : what the record is to say, plain numbers and strings; "doubt" says in a sentence why the cell
        cannot be trusted, and is None or absent where it can; "note" says in a sentence what else a reader
        of the table must know.
    undecided : how many predictions the errors of stored kernels alone could change.
    arrays : what is to be kept beside the predictions.
    repeat : of r predictions, which repetition (seed, draw) each belongs to, one for each by default; the
        deviation between repetitions is the cell's spread.
    """

    predicted: np.ndarray
    facts: Mapping[str, Any]
    undecided: int = 0
    arrays: Mapping[str, Any] = field(default_factory=dict)
    repeat: tuple[int, ...] | None = None


class Column(Protocol):
    """One column of the table.

    Two more members may be left out (the functions `has_depth` and `require` of this room read them):

    has_depth : bool
        False for a column that knows no depth, such as a linear model. It then has one cell, whose depth is
        None in `needs`, `fill`, the record (null) and the table's rows, and which stands apart from the rows
        of the depths: the same number in each of them would look as if it depended on the depth. True where
        it is left out.
    require : callable (asked : Asked) -> None
        Raises a UserError if the column's cells cannot be filled here: a library is missing, or there are
        more images than it can do. It is called before anything is computed, and again before anything is
        solved, so that no hours are lost.
    """

    @property
    def name(self) -> str:
        """As in the config and in the table."""

    def needs(self, depth: int | None) -> tuple[Readout, ...]:
        """The readouts of which Gram matrices are needed at a depth; UserError if the depth is impossible."""

    def fill(self, depth: int | None, given: Given) -> Cell:
        """Fill the cell of a depth; of depth None, the only one of a column without depths."""
