"""Published accuracies, each with the version, data and sizes that it belongs to.

A number is compared only with a run of the same data set, classes, preparation of images, number of training
images and number of test images, and of networks of the same width. Where several versions of a table hold
the same cell, the first table below counts: the NeurIPS version (arXiv v2) before the others. A table of
another setting is kept, but compared with nothing unless its source is asked for.

Known and left out, because no run here is alike:

- CIFAR-2 (Arora et al. 2019), kernels estimated from random features, 128 channels, median of 10, depths 3,
  4, 6, 11, 21: V 87.25, 87.78, 88.73, 87.80, 85.35, GAP 51.10, 52.85, 53.98, 56.55, 90.65. All kernels here
  are exact.
- Low data (Arora et al. 2019b), ResNet-34 on 10, 20, 40, 80, 160, 320, 640, 1,280 images: 14.59, 17.50,
  19.52, 23.32, 28.30, 33.15, 41.66, 49.14. There is no column of residual networks.
- CIFAR-10 with flips (Li et al. 2019), the best CNTK: 81.40. Its depth and window were not noted.
- CIFAR-10 with random patches (Li et al. 2019): 88.36 and 88.92. There is no such preparation of images.
- Other kernels (Shankar et al. 2020; sketched ones: Zandieh et al. 2021), and more training images than there
  are (augmented ones: Adlam et al. 2023).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

NEURIPS = "Arora et al. 2019, arXiv:1904.11955v2 (NeurIPS)"
FIRST = "Arora et al. 2019, arXiv:1904.11955v1"
BLOG = "Arora et al. 2019, the table on the authors' blog"
TWO_THOUSAND = f"{NEURIPS}, which does not say which 2,000 images"
LOW_DATA = "Arora et al. 2019b, arXiv:1910.01663"
ENHANCED = "Li et al. 2019, arXiv:1911.00809"

# A setting that this tool has, too: solve.normalize unit_diagonal and solve.ridge 5e-5. One-hot targets and
# those less 0.1 give the same classes.
UNIT_DIAGONAL = "kernels scaled to a diagonal of one, ridge 5e-5"

# How the images of all these tables were prepared: each channel to mean 0 and deviation 1 over all training
# images. For classes 0 and 1 that may be those of all ten classes, whose numbers these are: means of red,
# green and blue, then their deviations, of pixels from 0 to 255.
PREPARED, FULL = "standardize", "full"
BALANCED = "balanced"  # of draws: as many training images of each class
OF_ALL_CLASSES = (125.306918046875, 122.950394140625, 113.86538318359375,
                  62.993219278136934, 62.08870764001416, 66.70489964063094)  # fmt: skip
ROUNDING = 2.0**-24  # relative; prepared images are float32, which cannot tell closer numbers apart
RIDGELESS = "Published kernels are solved without a ridge."
ALL = tuple(range(10))  # the classes of CIFAR-10, and of Fashion-MNIST
CIFAR10, CIFAR2 = ("cifar10", ALL), ("cifar10", (0, 1))
# Its images are known by their archive's checksums only: idx files in a folder are taken to be what they are
# called.
FASHION = ("fashion-mnist", ALL)
FINITE = ("CNN-V", "CNN-GAP")  # trained networks
WIDTH = 1024  # channels of their layers (v2, appendix A)
DEPTHS = (3, 4, 6, 11, 21)


@dataclass(frozen=True)
class Published:
    """A published accuracy of one cell.

    accuracy : on the test images, in percent.  source : paper and version.
    sizes : its numbers of training and test images.
    deviation : in percent between draws, of which the accuracy is the mean; None for one training set.
    """

    accuracy: float
    source: str
    sizes: tuple[int, int]
    deviation: float | None = None


@dataclass(frozen=True)
class Table:
    """One published table.

    Parameters
    ----------
    source : str
        Paper and version.
    data : tuple
        Name of the data set, and the classes used.
    n_train, n_test : int
    columns : mapping
        Column -> depth -> test accuracy in percent.
    setting : str
        How its setting differs from the defaults here; empty if it does not.
    deviations : mapping
        As columns: the deviation in percent between draws of the training images, of which the accuracies
        are means. Empty where they are of one training set. Draws are taken to be class-balanced.
    """

    source: str
    data: tuple[str, tuple[int, ...]]
    n_train: int
    n_test: int
    columns: Mapping[str, Mapping[int, float]]
    setting: str = ""
    deviations: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    def cell(self, column: str, depth: int) -> Published | None:
        """What the table holds for one column and depth; None where it holds nothing."""
        accuracy = self.columns.get(column, {}).get(depth)
        if accuracy is None:
            return None
        between = self.deviations.get(column, {}).get(depth)
        return Published(accuracy, self.source, (self.n_train, self.n_test), between)


def _by_depth(**columns: tuple[float, ...]) -> Mapping[str, Mapping[int, float]]:
    return {
        name.replace("_", "-"): dict(zip(DEPTHS, values, strict=True)) for name, values in columns.items()
    }


def _low_data(n: int, fourteen: tuple[float, float], five: tuple[float, float]) -> Table:
    """Mean and deviation over draws; depth is the number of convolutions, 14 and 5, plus one.

    That the draws are class-balanced was not checked. With 10 images, whether every class has one matters.
    """
    means, deviations = ({"CNTK-GAP": {15: fourteen[i], 6: five[i]}} for i in (0, 1))
    return Table(f"{LOW_DATA}, means over draws", CIFAR10, n, 10_000, means, deviations=deviations)


def _enhanced() -> Table:
    """Five convolutions, plain and with flips, by the half-width c of the pooling window; one of eight.

    The row of global average pooling trains all layers, as LAP31, whose windows are as large as the image,
    does; CNTK-GAP does not.
    """
    by_window = {  # CNTK, CNN-GP, and the same averaged over mirror images
        "V": (66.55, 63.53, 69.87, 67.90),
        "LAP4": (77.06, 76.35, 79.08, 78.79),
        "LAP8": (79.24, 79.48, 80.95, 81.32),
        "LAP12": (80.11, 80.40, 81.34, 82.13),
        "LAP16": (79.80, 80.36, 81.21, 81.73),
        "LAP20": (79.24, 79.87, 80.67, 81.50),
        "LAP24": (78.07, 78.60, 79.88, 79.98),
        "LAP28": (76.91, 77.18, 78.69, 78.84),
        "LAP31": (76.79, 77.00, 78.53, 78.49),
    }
    columns = {
        f"{kernel}-{pool}{flip}": {6: values[i]}
        for i, (flip, kernel) in enumerate(product(("", "-FLIP"), ("CNTK", "CNN-GP")))
        for pool, values in by_window.items()
    }
    columns["CNN-GP-LAP16-FLIP"][9] = 82.20  # their best CNN-GP, of eight convolutions
    return Table(ENHANCED, CIFAR10, 50_000, 10_000, columns, UNIT_DIAGONAL)


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
    Table(
        TWO_THOUSAND,
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
    _low_data(10, (15.33, 2.43), (15.08, 2.43)),
    _low_data(20, (18.79, 2.13), (18.03, 1.91)),
    _low_data(40, (21.34, 1.91), (20.83, 1.68)),
    _low_data(80, (25.48, 1.91), (24.82, 1.75)),
    _low_data(160, (30.48, 1.17), (29.63, 1.13)),
    _low_data(320, (36.57, 0.88), (35.26, 0.97)),
    _low_data(640, (42.63, 0.68), (41.24, 0.78)),
    _low_data(1280, (48.86, 0.68), (47.21, 0.49)),
    _enhanced(),
    Table(ENHANCED, FASHION, 60_000, 10_000, {"CNTK-LAP4-FLIP": {6: 94.07}}, UNIT_DIAGONAL),
)


@dataclass(frozen=True)
class Run:
    """What decides which published numbers a run may be compared with.

    Parameters
    ----------
    dataset : str
        The data set's name, which is that of a published one only if its images are the same.
    n_train, n_test : int
    classes : tuple of int
        The classes used, in ascending order.
    draws : int
        Of the training images, n_train each. A mean over draws is compared with means over draws.
    setting : str
        How the run's setting differs from the defaults, as a table says it; empty if it does not.
    preprocess : str
        How images were prepared.
    statistics : str or tuple of float
        By which statistics: "full", "subset", or the numbers themselves (`data.load`).
    width : int or None
        Channels of a layer of trained networks; None where it is not known, or there are no networks.
    order : str
        How training images were drawn: "balanced" over the classes, or otherwise.
    """

    dataset: str
    n_train: int
    n_test: int
    classes: tuple[int, ...] = ALL
    draws: int = 1
    setting: str = ""
    preprocess: str = PREPARED
    statistics: str | tuple[float | None, ...] = FULL
    width: int | None = None
    order: str = BALANCED

    def is_alike(self, table: Table) -> bool:
        """Whether the table is for the same data and sizes."""
        same = (self.dataset, self.classes) == table.data and self.fits(table)
        return same and (self.n_train, self.n_test) == (table.n_train, table.n_test)

    def is_of_another_width(self, column: str) -> bool:
        """Whether a column is of trained networks whose width differs from the published ones'."""
        return column in FINITE and self.width not in (None, WIDTH)

    def fits(self, table: Table) -> bool:
        """Whether images were prepared as for the table, and drawn alike if the table is of several draws.

        A table of a single training set fits a mean over draws as well, in any order.
        """
        prepared = self.preprocess == PREPARED and _are_of_all(self.statistics)
        drawn = self.draws > 1 and self.order == BALANCED
        return prepared and (drawn or not table.deviations)


def _are_of_all(statistics: str | tuple[float | None, ...]) -> bool:
    """Whether statistics are those of all training images, of the classes used or of all classes."""
    if isinstance(statistics, str):
        return statistics == FULL
    if len(statistics) != len(OF_ALL_CLASSES):
        return False
    pairs = zip(statistics, OF_ALL_CLASSES, strict=True)
    return all(one is not None and abs(one - known) <= ROUNDING * known for one, known in pairs)


def published(run: Run, column: str, depth: int, source: str | None = None) -> Published | None:
    """What was published of one cell for the same data and sizes; None where there is nothing alike.

    Parameters
    ----------
    run : Run
    column : str
        Such as CNTK-V, CNTK-GAP or CNTK-LAP4-FLIP, or one of `FINITE`.
    depth : int
        Number of 3x3 convolutions plus one.
    source : str, optional
        One version; by default the first of this tool's setting that has the cell.
    """
    if run.is_of_another_width(column):
        return None
    for table in TABLES:
        same = table.setting == run.setting if source is None else table.source == source
        if run.is_alike(table) and same and (found := table.cell(column, depth)):
            return found
    return None


def elsewhere(run: Run, column: str, depth: int, n_train: int | None = None) -> Published | None:
    """As `published`, for other numbers of images of the same data, solved in the same setting.

    With `n_train`, only for this number of training images: then only that of test images differs.
    """
    for table in TABLES:
        same = (run.dataset, run.classes) == table.data and run.setting == table.setting and run.fits(table)
        same = same and n_train in (None, table.n_train)
        if same and not run.is_alike(table) and (found := table.cell(column, depth)):
            return found
    return None


def sizes(run: Run, columns: tuple[str, ...]) -> list[tuple[int, int]]:
    """The sizes (n_train, n_test) at which these columns were published for the run's data, of any width."""
    found = {
        (table.n_train, table.n_test)
        for table in TABLES
        if table.data == (run.dataset, run.classes)
        and table.setting == run.setting
        and run.fits(table)
        and set(columns) & set(table.columns)
    }
    return sorted(found)
