"""Published accuracies, each with the version, data and sizes that it belongs to.

A number is compared only with a run of the same data set, classes, number of training images and
number of test images. Where several versions of a table hold the same cell, the first table below
counts: the NeurIPS version (arXiv v2) before the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass

NEURIPS = "Arora et al. 2019, arXiv:1904.11955v2 (NeurIPS)"
FIRST = "Arora et al. 2019, arXiv:1904.11955v1"
BLOG = "Arora et al. 2019, the table on the authors' blog"
LOW_DATA = "Arora et al. 2019b, arXiv:1910.01663, mean over draws of the training images"

CIFAR10, CIFAR2 = ("cifar10", None), ("cifar10", (0, 1))
FINITE = ("CNN-V", "CNN-GAP")  # trained networks
DEPTHS = (3, 4, 6, 11, 21)


@dataclass(frozen=True)
class Table:
    """One published table.

    Parameters
    ----------
    source : str
        Paper and version.
    data : tuple
        Name of the data set, and the classes used (None: all).
    n_train, n_test : int
    columns : mapping
        Column -> depth -> test accuracy in percent.
    """

    source: str
    data: tuple[str, tuple[int, ...] | None]
    n_train: int
    n_test: int
    columns: Mapping[str, Mapping[int, float]]


def _by_depth(**columns: tuple[float, ...]) -> Mapping[str, Mapping[int, float]]:
    return {
        name.replace("_", "-"): dict(zip(DEPTHS, values, strict=True)) for name, values in columns.items()
    }


def _low_data(n: int, fourteen: float, five: float) -> Table:
    """Depth counts the convolutions plus one: 14 and 5 convolutions are depth 15 and 6."""
    return Table(LOW_DATA, CIFAR10, n, 10_000, {"CNTK-GAP": {15: fourteen, 6: five}})


TABLES = (
    Table(
        NEURIPS,
        CIFAR10,
        50_000,
        10_000,
        _by_depth(
            CNN_V=(59.97, 60.20, 64.11, 69.48, 75.57),
            CNTK_V=(64.47, 65.52, 66.03, 65.90, 64.09),
            CNN_GAP=(63.81, 80.93, 83.75, 82.92, 83.30),
            CNTK_GAP=(70.47, 75.93, 76.73, 77.43, 77.08),
        ),
    ),
    Table(  # which 2,000 images is not said
        NEURIPS,
        CIFAR10,
        2_000,
        10_000,
        _by_depth(
            CNTK_V=(40.94, 42.54, 43.43, 43.42, 42.53),
            CNTK_GAP=(49.71, 51.06, 51.73, 51.92, 52.22),
        ),
    ),
    Table(
        NEURIPS,
        CIFAR2,
        10_000,
        2_000,
        _by_depth(
            CNTK_V=(92.15, 92.80, 93.10, 93.05, 91.95),
            CNTK_GAP=(71.05, 94.50, 95.25, 95.40, 95.70),
        ),
    ),
    Table(
        FIRST,
        CIFAR10,
        50_000,
        10_000,
        _by_depth(
            CNN_V=(61.97, 62.12, 64.03, 70.97, 80.56),
            CNTK_V=(64.47, 65.52, 66.03, 65.90, 64.09),
            CNN_GAP=(57.96, 80.58, 80.97, 75.45, 81.23),
            CNTK_GAP=(70.47, 75.93, 76.73, 77.43, 77.08),
        ),
    ),
    Table(
        BLOG,
        CIFAR10,
        50_000,
        10_000,
        _by_depth(
            CNN_V=(61.97, 62.12, 64.03, 70.97, 80.56),
            CNTK_V=(64.67, 65.52, 66.03, 65.90, 64.09),
            CNN_GAP=(57.96, 80.58, 80.97, 75.45, 81.23),
            CNTK_GAP=(70.47, 75.93, 76.73, 77.43, 77.08),
        ),
    ),
    _low_data(10, 15.33, 15.08),
    _low_data(20, 18.79, 18.03),
    _low_data(40, 21.34, 20.83),
    _low_data(80, 25.48, 24.82),
    _low_data(160, 30.48, 29.63),
    _low_data(320, 36.57, 35.26),
    _low_data(640, 42.63, 41.24),
    _low_data(1280, 48.86, 47.21),
)


@dataclass(frozen=True)
class Run:
    """What decides which published numbers a run may be compared with.

    Parameters
    ----------
    dataset : str
        The data set's name; it is the name of the published one only where its images are.
    n_train, n_test : int
    classes : tuple of int, optional
        The classes used, where not all were.
    """

    dataset: str
    n_train: int
    n_test: int
    classes: tuple[int, ...] | None = None

    def is_alike(self, table: Table) -> bool:
        """Whether the table is for the same data and sizes."""
        same = (self.dataset, self.classes) == table.data
        return same and (self.n_train, self.n_test) == (table.n_train, table.n_test)


def published(run: Run, column: str, depth: int, source: str | None = None) -> tuple[float, str] | None:
    """Published test accuracy in percent of one cell, and its source; None where there is none alike.

    Parameters
    ----------
    run : Run
    column : str
        CNTK-V, CNTK-GAP, or one of `FINITE`.
    depth : int
        Number of 3x3 convolutions plus one.
    source : str, optional
        One version; by default the first that has the cell.
    """
    for table in TABLES:
        if run.is_alike(table) and source in (None, table.source):
            accuracy = table.columns.get(column, {}).get(depth)
            if accuracy is not None:
                return accuracy, table.source
    return None


def sizes(run: Run, columns: tuple[str, ...]) -> list[tuple[int, int]]:
    """The sizes (n_train, n_test) at which these columns were published for the run's data."""
    found = {
        (table.n_train, table.n_test)
        for table in TABLES
        if table.data == (run.dataset, run.classes) and set(columns) & set(table.columns)
    }
    return sorted(found)
