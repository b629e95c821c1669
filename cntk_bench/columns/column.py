"""Protocols of the table's columns: the contract between those who fill cells and those who ask for them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from cntk_bench.kernels.spec import Readout


@dataclass(frozen=True)
class Request:
    """What is known about a table before anything is computed.

    Parameters
    ----------
    n_train, features, classes : int
        Training images, numbers of one image (C P P), classes.
    memory : float or None
        The config's `solve.memory` in GiB; None for all that is free.
    section : callable
        As `Inputs.section`.
    """

    n_train: int
    features: int
    classes: int
    memory: float | None
    section: Callable[[str], Any]


class Material(Protocol):
    """The data that a cell may be trained from.

    Attributes
    ----------
    classes : int
        Number of classes k.
    y_train : array (n,), int64
        Labels 0 .. k-1 of the training images.
    """

    @property
    def classes(self) -> int: ...  # noqa: D102

    @property
    def y_train(self) -> np.ndarray: ...  # noqa: D102

    def section(self, name: str) -> Any:
        """Return a section of the config that a family of columns added (`section`), checked."""

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (x_train, x_test), float32 (n, C, P, P), preprocessed; loaded on first use."""

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of all pixels and labels, to recognise what was trained on others."""

    def folder(self, name: str, depth: int) -> Path:
        """Return the run's folder for what training leaves of a cell; it may not exist yet."""


class Inputs(Material, Protocol):
    """The data and matrices that a cell may be filled from.

    Attributes
    ----------
    how : object
        The config's section `solve`; its keys are attributes, such as `how.ridge`.
    """

    how: Any

    @property
    def device(self) -> str:
        """Where matrices are to be solved: "cpu" or "cuda"."""

    @property
    def dtype(self) -> str:
        """The precision in which matrices are to be solved: "float64" or "float32"."""

    @property
    def place(self) -> Any:
        """Where and how matrices are to be solved (`regression.placement.Place`)."""

    def train(self, readout: Readout) -> np.ndarray:
        """Return the train x train Gram matrix (n, n), free to overwrite; only the lower triangle is set."""

    def stream(self, readout: Readout) -> Any:
        """Return the same matrix, read piece by piece (`regression.stream.Stream`)."""

    def kept(self, readout: Readout) -> Path:
        """Return `Checkpoint.path`, where an iterative solve of this matrix may keep its state."""

    def tell(self, words: str) -> None:
        """Report the progress of a solve."""

    def test(self, readout: Readout) -> Iterable[np.ndarray]:
        """Return the test x train matrix, float64, a block (h, n) of test images at a time."""


@dataclass(frozen=True)
class Curve:
    """How the training of one network went, point by point.

    Parameters
    ----------
    label : str
        Which network, in words.
    time : sequence of float
        Of each point; for networks, in the units of t in f_t = (I - exp(-K t)) Y, K the exact kernel.
    train_loss : sequence of float
        Mean over images and classes of the squared error on the training images.
    train_accuracy : sequence of float
        From 0 to 1.
    outputs : array (points, m, k), optional
        Outputs for the test images, from which the caller gets test_loss and test_accuracy; None if they were
        not kept.
    """

    label: str
    time: Sequence[float]
    train_loss: Sequence[float]
    train_accuracy: Sequence[float]
    outputs: np.ndarray | None = None


@dataclass(frozen=True)
class Cell:
    """The result that fills one cell.

    Parameters
    ----------
    predicted : array (m,), int64
        The predicted classes of the test images; or (r, m), r predictions, such as of several trained
        networks, whose accuracies are averaged. With r = 0 there is no accuracy: "doubt" says why.
    facts : mapping
        Plain numbers and strings for the record. "doubt" says in a sentence why the cell cannot be trusted,
        and is None or absent if it can; "note" says in a sentence what else a reader of the table must know.
    undecided : int
        How many predictions the errors of stored kernels alone could change.
    arrays : mapping
        Arrays to keep beside the predictions.
    repeat : tuple of int, optional
        The repetition (seed, draw) of each of r predictions; by default each is its own. The deviation
        between repetitions is the cell's spread.
    candidates : tuple of Cell
        Cells of which one is shown, such as one for each learning rate. All their scores are recorded;
        `predicted` and `repeat` of this cell itself are not used.
    chosen : int, optional
        Index of the candidate that the column has chosen; None for the one with the best accuracy on the
        test images, which a fact "chosen_by" must let the table say.
    curves : mapping of str to Curve
        How training went.
    remedy : str
        What a user can do if too many predictions are undecided to trust the accuracy.
    black : int
        How many test images have no kernel but 0, so that nothing can classify them.
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
    black: int = 0


class Column(Protocol):
    """One column of the table.

    Three more members are optional (the functions `has_depth`, `decides` and `require` of this package read
    them):

    has_depth : bool
        False for a column without depths, such as a linear model; by default True. Such a column has one
        cell, whose depth is None in `needs`, `fill`, the record (null) and the table's rows. It stands apart
        from the rows of the depths: the same number in each would look as if it depended on the depth.
    keys : sequence of str
        Keys of the config, or their prefixes, that decide its cells, images aside, such as ("solve.ridge",
        "mine."). A sweep over any other key is refused, and a comparison does not show it. By default, all
        of `solve` and of the sections that columns add.
    require : callable (request) -> None
        Is given a `Request`, and raises a UserError if the column's cells cannot be filled here: a library is
        missing, or there are too many images. It is called before anything is computed, and again before
        anything is solved, so that no hours are lost.
    """

    @property
    def name(self) -> str:
        """Its name in the config and in the table."""

    def needs(self, depth: int | None) -> tuple[Readout, ...]:
        """Return the readouts whose Gram matrices a depth needs; UserError if the depth is impossible."""

    def fill(self, depth: int | None, inputs: Inputs) -> Cell:
        """Fill the cell of a depth; None stands for the only cell of a column without depths."""


@dataclass(frozen=True)
class Done:
    """The progress of a `Job`.

    Parameters
    ----------
    finished : bool
        Whether nothing is left to do.
    words : str
        How far it is, for people, such as "epoch 3, loss 0.02"; empty before it was begun.
    damage : str or None
        What is wrong with its files; None if nothing is.
    """

    finished: bool
    words: str = ""
    damage: str | None = None


@dataclass(frozen=True)
class Effort:
    """What a `Job` takes at most if begun anew, as a network may never fit all training images.

    Parameters
    ----------
    epochs, steps : int
        Their numbers in all.
    batch : int
        Images of a step.
    step_seconds : float
        Time of one step on this machine.
    seconds : float
        Time of all steps in one process of this machine.
    memory : int
        Bytes that its process needs; of GPU memory if it is done there.
    disk : int
        Bytes of what it leaves.
    checkpoint : int
        Bytes of a checkpoint, which is written from time to time.
    basis : str
        What was timed, such as "128 images at once on the CPU, 2 threads".
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
    """A piece of training, done by one process at a time; others may do other pieces meanwhile.

    One more member is optional: `effort`, a method without parameters that returns its `Effort` after a
    second or two of timing. It is called for one of a cell's jobs. Without it, `plan` cannot say what
    training costs.

    Attributes
    ----------
    label : str
        What it is, in words that are unique within the run.
    folder : pathlib.Path
        Its own folder, for what has to persist; the caller creates it and holds the lock in it.
    """

    @property
    def label(self) -> str: ...  # noqa: D102

    @property
    def folder(self) -> Path: ...  # noqa: D102

    def done(self) -> Done:
        """Return its progress, judged by what is in its folder."""

    def do(self, report: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        """Resume from what is there, to the end, or until `stopped`; what is damaged is done anew.

        Call `report` with the progress in words, as often as is convenient.
        """


@runtime_checkable
class Trained(Column, Protocol):
    """A column whose cells have to be trained before they can be filled: between computing and solving.

    `fill` is called only when all jobs of the cell are finished. Everything that decides what is trained
    (settings, `Material.fingerprint`) must enter the folders' names, so that other results are left alone.
    """

    def require_training(self, section: Callable[[str], Any]) -> None:
        """Raise UserError if a library or device for training is missing; `section` as in `Inputs`."""

    def jobs(self, depth: int, material: Material) -> Sequence[Job]:
        """Return the pieces of training of a cell; always the same for the same config and images."""
