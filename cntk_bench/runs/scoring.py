"""Scores of predictions: accuracy, its standard error, and doubt about it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cntk_bench.columns import Cell
from cntk_bench.regression.accuracy import standard_error


def accuracy(right: np.ndarray) -> tuple[float, float]:
    """Mean of `right` (..., m), bool, in percent, and its standard error.

    The error is that of a proportion among m independent images.
    """
    share = float(right.mean())
    return 100 * share, standard_error(share, right.shape[-1])


def spread(accuracies: Sequence[float]) -> float | None:
    """Standard deviation between repetitions (ddof=1); None if there are fewer than two."""
    return float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None


def doubt(undecided: float, error: float, n: int, remedy: str, black: int = 0) -> str | None:
    """Say why the accuracy over n test images cannot be trusted; None if it can.

    Parameters
    ----------
    undecided : float
        Number of predictions that errors of stored kernels could change (`regression.prediction`).
    error : float
        Standard error of the accuracy, in percent.
    n : int
    remedy : str
        What a user can do about it.
    black : int
        How many test images are black, with kernels that are 0 (`regression.prediction`), whatever the rest.
    """
    share = 100 * max(undecided, black) / n
    if share <= max(2 * error, 100 / n):
        return None
    if 2 * black >= undecided:
        return (
            f"{black} of {n} test images are black as prepared, so their kernels are 0 and nothing can "
            "classify them; remove them, or change dataset.preprocess"
        )
    errors = f"the errors of stored kernels alone could change the class of {share:.3g} % of the test images"
    return f"{errors}; {remedy}"


def scored(cell: Cell, y_test: np.ndarray) -> dict[str, Any]:
    """The score of a cell without candidates, whether it can be trusted, and its facts."""
    if not len(cell.predicted):
        return {"accuracy": None, "standard_error": None, **cell.facts} | {"undecided": 0.0, "trusted": False}
    right = np.atleast_2d(cell.predicted == y_test)  # (r, m)
    repeat = np.arange(len(right)) if cell.repeat is None else np.array(cell.repeat)
    of_each = np.stack([right[repeat == one].mean(axis=0) for one in np.unique(repeat)])  # (R, m)
    percent, error = accuracy(of_each)
    score: dict[str, Any] = {"accuracy": percent, "standard_error": error}
    if cell.predicted.ndim == 2:
        means = (100 * of_each.mean(axis=1)).tolist()
        score |= {"accuracies": means, "spread": spread(means)}
    n, why = right.shape[1], cell.facts.get("doubt")
    if why is None:
        why = doubt(cell.undecided, error, n, cell.remedy, cell.black)
    found = {"undecided": 100 * cell.undecided / n, "trusted": why is None, "doubt": why}
    return {**score, **cell.facts} | found
