"""Published accuracies to compare with.

The CIFAR-10 table of Arora et al., "On Exact Computation with an Infinitely Wide Neural Net"
(NeurIPS 2019, arXiv 1904.11955) exists in several versions with different numbers. Here is the one
on the authors' blog; `VERSION` names it in every report.
"""

VERSION = "Arora et al. 2019, CIFAR-10, the version of the table on the authors' blog"
N_TRAIN, N_TEST = 50_000, 10_000

# Test accuracy in percent by depth. CNN-V and CNN-GAP are finite networks, trained; the tool does
# not compute them.
_CIFAR10 = {
    "CNTK-V": {3: 64.67, 4: 65.52, 6: 66.03, 11: 65.90, 21: 64.09},
    "CNTK-GAP": {3: 70.47, 4: 75.93, 6: 76.73, 11: 77.43, 21: 77.08},
    "CNN-V": {3: 61.97, 4: 62.12, 6: 64.03, 11: 70.97, 21: 80.56},
    "CNN-GAP": {3: 57.96, 4: 80.58, 6: 80.97, 11: 75.45, 21: 81.23},
}
FINITE = ("CNN-V", "CNN-GAP")


def published(dataset: str, column: str, depth: int) -> float | None:
    """Published test accuracy in percent of one cell, or None where none was published.

    Parameters
    ----------
    dataset : str
        Name of the data set; only "cifar10" has published numbers.
    column : str
        A column of the table: CNTK-V, CNTK-GAP, or one of `FINITE`.
    depth : int
        Number of 3x3 convolutions plus one.
    """
    return _CIFAR10.get(column, {}).get(depth) if dataset == "cifar10" else None
