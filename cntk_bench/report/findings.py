"""What a page shows of a solve beyond its record, as plain data from the code that computes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

FIGURES = ("curves", "ridges", "confusion", "mistakes", "spectra")  # those that need more than a record
AGAIN = "solve again"  # ends a reason why something is absent that nothing else removes


@dataclass(frozen=True)
class Mistakes:
    """A sample of misclassified test images.

    pixels : (s, C, P, P) float, from 0 to 1 where the source has bytes.
    true, predicted : (s,) int64, classes.
    margins : (s,) float64, by how much the output of the predicted class exceeds that of the true one.
    places : (s,) int64, the images' places in the data set's own test set.
    wrong, of : how many images are misclassified, of how many.
    """

    pixels: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    margins: np.ndarray
    places: np.ndarray
    wrong: int
    of: int


@dataclass(frozen=True)
class Eigenvalues:
    """The eigenvalues of a cell's training matrix, as it is solved, without ridge and jitter.

    values : (n,) float64, descending, in the kernel's units.
    mean_diagonal : trace / n, the unit of relative ridges.
    zeros : how many are zero within rounding.
    noise : approximately how far they may be off because the kernel is stored in float32.
    ridge : of the cell's solution, relative to mean_diagonal; None where it has no single one.
    draws : how many draws of the training images there are; the matrix is that of the first.
    kept : whether they are those kept by an earlier `page --spectrum`, not computed for this page.
    jitter : of the first draw's solution, relative to mean_diagonal.
    """

    column: str
    depth: int | None
    values: np.ndarray
    mean_diagonal: float
    zeros: int
    noise: float
    ridge: float | None = None
    draws: int = 1
    kept: bool = False
    jitter: float = 0.0

    @property
    def absolute_ridge(self) -> float | None:
        """The ridge in the kernel's units."""
        return None if self.ridge is None else self.ridge * self.mean_diagonal


@dataclass(frozen=True)
class Tried:
    """One of several ridges that were tried.

    Accuracies, by leave-one-out and of the test images, and their standard errors are in percent; each may be
    None. error : the leave-one-out mean squared error, which chooses. doubt : why it cannot be trusted.
    jitter : what the solver had to add to the ridge, in its unit, the most of all draws; all
        numbers are of the sum.
    """

    ridge: float
    loo_accuracy: float | None
    loo_standard_error: float | None
    error: float | None
    accuracy: float | None
    standard_error: float | None
    doubt: str | None = None
    jitter: float = 0.0


@dataclass(frozen=True)
class RidgePath:
    """The ridges tried for a cell, ascending, and the one chosen.

    For several draws, these are the ridges that all draws tried; `chosen` is None if each draw has its own.
    """

    column: str
    depth: int | None
    tried: tuple[Tried, ...]
    chosen: float | None


@dataclass(frozen=True)
class Findings:
    """Everything that is shown of a solve beyond its record.

    config : YAML that repeats the run.
    cell : the solution whose mistakes are shown; None where none is.
    among : of which cells it is the most accurate, in words.
    counts : (k, k) int64, how many test images of each class (row) were taken for which; None without `cell`.
    repeats : how many predictions of each test image `counts` has: of draws, trained networks, epochs.
    mistakes : a sample of misclassified images; None if there are none, or `absent` says why.
    spectra, paths : of each cell that has one.
    curves : results of `analyses.curve` for the same images.
    absent : some of `FIGURES` -> a sentence: why it is not shown, and what shows it. "confusion" also stands
        for the cell, without which there are no mistakes either.
    """

    config: str = ""
    cell: dict | None = None
    among: str = "cells"
    counts: np.ndarray | None = None
    repeats: int = 1
    mistakes: Mistakes | None = None
    spectra: tuple[Eigenvalues, ...] = ()
    paths: tuple[RidgePath, ...] = ()
    curves: tuple[dict, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
