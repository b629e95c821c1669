"""Choice among a cell's candidates, with the score of each; training curves with test scores."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from cntk_bench.columns import Cell, Curve
from cntk_bench.regression.targets import shifted_one_hot


def shown(cell: Cell, y_test: np.ndarray, score: Callable[[Cell, np.ndarray], dict]) -> tuple[Cell, dict]:
    """Choose the cell to show, and score it.

    Parameters
    ----------
    cell : Cell
        With or without candidates.
    y_test : (m,) int64
    score : callable
        Scores a cell without candidates.

    Returns
    -------
    Cell
        The cell itself, or one of its candidates with the facts and arrays of both.
    dict
        Its score; if there are several candidates, "candidates" has the score of each, in order, and
        "chosen" the index of the one shown.
    """
    if not cell.candidates:
        return cell, score(cell, y_test)
    scores = [score(candidate, y_test) for candidate in cell.candidates]
    chosen = cell.chosen
    if chosen is None:  # the first of the best
        chosen = max(range(len(scores)), key=lambda i: scores[i]["accuracy"])
    one = cell.candidates[chosen]
    merged = replace(one, facts={**one.facts, **cell.facts}, arrays={**cell.arrays, **one.arrays})
    found = score(merged, y_test)
    return merged, found | ({"candidates": scores, "chosen": chosen} if len(scores) > 1 else {})


def drawn(curve: Curve, y_test: np.ndarray, classes: int) -> str:
    """Convert a curve to the JSON that `report.flow.network_curve` reads.

    Losses are mean squared errors over images and classes against one-hot - 0.1; accuracies are in percent.
    Those on test images are null if the outputs for them were not kept.
    """
    nothing = [None] * len(curve.time)
    found: dict[str, Any] = {
        "label": curve.label,
        "time": list(curve.time),
        "train_loss": list(curve.train_loss),
        "train_accuracy": [100 * accuracy for accuracy in curve.train_accuracy],
        "test_loss": nothing,
        "test_accuracy": nothing,
    }
    if curve.outputs is not None:
        errors = curve.outputs - shifted_one_hot(y_test, classes)
        found["test_loss"] = np.square(errors).mean((1, 2)).tolist()
        found["test_accuracy"] = (100 * (curve.outputs.argmax(2) == y_test).mean(1)).tolist()
    return json.dumps(found, allow_nan=False) + "\n"
