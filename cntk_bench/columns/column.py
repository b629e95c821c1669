"""What a column of the table is: the contract between those who fill cells and those who ask for them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from cntk_bench.kernels.spec import Readout


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
        cannot be trusted, and is None or absent where it can.
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
    """One column of the table."""

    @property
    def name(self) -> str:
        """As in the config and in the table."""

    def needs(self, depth: int) -> tuple[Readout, ...]:
        """The readouts of which Gram matrices are needed at a depth; UserError if the depth is impossible."""

    def fill(self, depth: int, given: Given) -> Cell:
        """Fill the cell of a depth."""
