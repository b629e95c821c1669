"""What a column of the table is: the contract between those who fill cells and those who ask for them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

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


class Material(Protocol):
    """What a cell may be trained from.

    classes : number of classes k.
    y_train : (n,) int64.
    """

    @property
    def classes(self) -> int: ...  # noqa: D102

    @property
    def y_train(self) -> np.ndarray: ...  # noqa: D102

    def section(self, name: str) -> Any:
        """A section of the config that a family of columns added (`section`), checked."""

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """(x_train, x_test), float32 (n, C, P, P), preprocessed; loaded when they are first asked for."""

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all pixels and labels, by which what was trained on others can be told."""

    def folder(self, name: str, depth: int) -> Path:
        """The run's folder for what training leaves of a cell; it may not be there yet."""


class Given(Material, Protocol):
    """What a cell may be filled from.

    how : the config's section `solve`.
    """

    how: Any

    @property
    def device(self) -> str:
        """Where matrices are to be solved: "cpu" or "cuda"."""

    @property
    def dtype(self) -> str:
        """In which precision matrices are to be solved: "float64" or "float32"."""

    @property
    def place(self) -> Any:
        """Where and how matrices are to be solved (`regression.placement.Place`)."""

    def train(self, readout: Readout) -> np.ndarray:
        """The train x train Gram matrix (n, n), the caller's own; only its lower triangle is filled."""

    def stream(self, readout: Readout) -> Any:
        """The same, read piece by piece (`regression.stream.Stream`), for a method that asks for it."""

    def kept(self, readout: Readout) -> Path:
        """The file in which an iterative solve of it may keep its state."""

    def tell(self, words: str) -> None:
        """Say how far a solve is."""

    def test(self, readout: Readout) -> Iterable[np.ndarray]:
        """The test x train matrix, float64, a block (h, n) of test images at a time."""


@dataclass(frozen=True)
class Curve:
    """How the training of one network went, point by point.

    label : what it is of, in words.
    time : of the points; of networks, in the units of t in f_t = (I - exp(-K t)) Y, K the exact kernel.
    train_loss : mean over images and classes of the squared error on the training images.
    train_accuracy : 0 to 1.
    outputs : (points, m, k) for the test images, of which whoever scores makes test_loss and test_accuracy;
        None where they were not kept.
    """

    label: str
    time: Sequence[float]
    train_loss: Sequence[float]
    train_accuracy: Sequence[float]
    outputs: np.ndarray | None = None


@dataclass(frozen=True)
class Cell:
    """What fills one cell.

    Parameters
    ----------
    predicted : array (m,), int64
        The classes of the test images; or (r, m) of r predictions, such as of several trained networks, whose
        accuracies are averaged. With r = 0 there is no accuracy: "doubt" says why.
    facts : mapping
        What the record is to say, plain numbers and strings; "doubt" says in a sentence why the cell cannot
        be trusted, and is None or absent where it can; "note" says in a sentence what else a reader of the
        table must know.
    undecided : int
        How many predictions the errors of stored kernels alone could change.
    arrays : mapping
        What is to be kept beside the predictions.
    repeat : tuple of int, optional
        Of r predictions, which repetition (seed, draw) each belongs to, one for each by default; the
        deviation between repetitions is the cell's spread.
    candidates : tuple of Cell
        Cells of which one is shown, such as of several learning rates; each one's score is recorded, and
        `predicted` and `repeat` of this one are not used.
    chosen : int, optional
        Which of them, where the column has chosen; None: the one with the best accuracy on the test images,
        which a fact "chosen_by" must let the table say.
    curves : mapping of str to Curve
        How training went.
    remedy : str
        What a user can do where too many predictions are undecided to trust the accuracy.
    """

    predicted: np.ndarray
    facts: Mapping[str, Any]
    undecided: int = 0
    arrays: Mapping[str, Any] = field(default_factory=dict)
    repeat: tuple[int, ...] | None = None
    candidates: "tuple[Cell, ...]" = ()
    chosen: int | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    remedy: str = "raise solve.ridge"


class Column(Protocol):
    """One column of the table.

    Three more members may be left out (the functions `has_depth`, `decides` and `require` of this room read
    them):

    has_depth : bool
        False for a column that knows no depth, such as a linear model. It then has one cell, whose depth is
        None in `needs`, `fill`, the record (null) and the table's rows, and which stands apart from the rows
        of the depths: the same number in each of them would look as if it depended on the depth. True where
        it is left out.
    keys : sequence of str
        The keys of the config, or what they begin with, that decide its cells beside the images, such as
        ("solve.ridge", "mine."). A sweep over any other is refused, and a comparison does not tell it. All of
        `solve` and of the sections that columns add where it is left out.
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


@dataclass(frozen=True)
class Done:
    """How far a `Job` is.

    finished : whether nothing is left to do.
    words : how far it is, for people, such as "epoch 3, loss 0.02"; empty before it was begun.
    damage : what is wrong with what it left; None where nothing is.
    """

    finished: bool
    words: str = ""
    damage: str | None = None


@dataclass(frozen=True)
class Effort:
    """What a `Job` takes at most, begun anew: the steps of networks that never fit all training images.

    epochs, steps : in all.
    batch : images of a step.
    step_seconds : of one step, on this machine.
    seconds : of all, in one process of this machine.
    memory : bytes that a process which does it needs; of the GPU where it is done there.
    disk : bytes of what it leaves.
    checkpoint : bytes of what is written beside that from time to time.
    basis : what was timed, such as "128 images at once on the CPU, 2 threads".
    """

    epochs: int
    steps: int
    batch: int
    step_seconds: float
    seconds: float
    memory: int
    disk: int
    checkpoint: int
    basis: str


class Job(Protocol):
    """A piece of training that one process does at a time; others may do other pieces at once.

    label : what it is, in words that are like no other's of the run.
    folder : its own, where it keeps what is to survive; the caller makes it and holds the lock in it.

    One more member may be left out: `effort`, a method that returns the `Effort` of it, which is asked for
    one of a cell's jobs, after a second or two of trying; `plan` then cannot tell what training will take.
    """

    @property
    def label(self) -> str: ...  # noqa: D102

    @property
    def folder(self) -> Path: ...  # noqa: D102

    def done(self) -> Done:
        """How far it is, by what is in its folder."""

    def do(self, report: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        """Go on from what is there, to the end, or until `stopped`; what is damaged is done anew.

        `report` is to be called with how far it is, as often as is convenient.
        """


@runtime_checkable
class Trained(Column, Protocol):
    """A column whose cells have to be trained before they can be filled: between computing and solving.

    `fill` is called only when all jobs of the cell are finished. Whatever decides what is trained (settings,
    `Material.fingerprint`) belongs into the folders' names, so that what others trained is left alone.
    """

    def require_training(self, section: Callable[[str], Any]) -> None:
        """UserError if a library or device that training needs is missing; `section` as in `Given`."""

    def jobs(self, depth: int, material: Material) -> Sequence[Job]:
        """The pieces of training of a cell; always the same for the same config and images."""
