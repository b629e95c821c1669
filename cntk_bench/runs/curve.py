"""Learning curve of a cell of a computed run: accuracy against the number of training images."""

import time
from collections.abc import Sequence

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression import nested, placement, prediction
from cntk_bench.runs import analysis, scoring
from cntk_bench.runs.opened import OpenRun


def sizes(n: int, classes: int) -> list[int]:
    """Numbers of training images that a curve shows by default: n halved, down to two per class."""
    found = [n]
    while found[-1] // 2 >= max(2, 2 * classes):
        found.append(found[-1] // 2)
    return found[::-1]


def follow(
    opened: OpenRun,
    column: str,
    depth: int,
    *,
    listed: Sequence[int] | None = None,
    ridge: float | None = None,
) -> dict:
    """Solve a cell on the first m training images for several m, from one factor (`regression.nested`).

    Training images are in a seeded order of which every prefix is as balanced over the classes as the data
    allow (`data.order`). The accuracies of a curve are of nested sets and of the same test images: their
    errors are correlated.

    Parameters
    ----------
    opened : OpenRun
    column, depth : str, int
    listed : sequence of int, optional
        By default `sizes`.
    ridge : float, optional
        Relative to the mean diagonal of the whole; by default the config's.

    Returns
    -------
    dict
        Plain numbers, by these names: ridge, jitter, device, precision, and points, one for each size:
        train (m), accuracy and standard_error in percent, ridge (relative to the mean diagonal of these m),
        undecided in percent, largest_residual, doubt, and published, an accuracy for as many training images,
        or None, with its source.

    Raises
    ------
    UserError
        If the config's ridge is no single number and none is given; if it does not fit into memory, is not
        computed, or a value is not possible.
    """
    started = time.perf_counter()
    how, n = opened.run.config().solve, opened.sizes[0]
    if ridge is None:
        if not isinstance(how.ridge, float):
            raise UserError(
                "solve.ridge of the run is not one number, as a learning curve needs: give --ridge"
            )
        ridge = how.ridge
    _, y_test, classes = analysis.truth(opened)
    chosen = sizes(n, classes) if listed is None else list(listed)
    place = placement.choose(n, classes=classes, device=how.device, dtype=how.precision, limit=how.memory)
    facts = analysis.begun(opened, "curve", {"sizes": chosen, "ridge": ridge})
    stored = np.float32 if place.device == "cuda" else place.dtype
    parts = nested.solve(
        analysis.lower(opened, column, depth, stored),
        opened.labels[0],
        classes=classes,
        sizes=chosen,
        ridge=ridge,
        device=place.device,
        dtype=place.dtype,
        overwrite=True,
    )
    points = _scored(opened, column, depth, parts, y_test)
    facts |= {
        "column": column,
        "depth": depth,
        "ridge": ridge,
        "jitter": parts[0].jitter,
        "device": place.device,
        "precision": place.dtype,
        "points": points,
        "doubt": next((point["doubt"] for point in points if point["doubt"]), None),
    }
    facts["made"]["seconds"] = time.perf_counter() - started
    return facts


def _scored(
    opened: OpenRun, column: str, depth: int, parts: Sequence[nested.Part], y_test: np.ndarray
) -> list[dict]:
    """What is said of each part; one pass over the test images."""
    right = np.zeros((len(parts), len(y_test)), bool)
    undecided, first = np.zeros(len(parts), np.int64), 0
    for block in analysis.blocks(opened, column, depth):
        rows = slice(first, first := first + len(block))
        for i, part in enumerate(parts):
            scores, noise = prediction.scored(part.alpha, block[:, : part.train])
            right[i, rows] = scores.argmax(axis=1) == y_test[rows]
            undecided[i] += int(prediction.unsure(scores, noise, part.largest_residual).sum())
    points = []
    for i, part in enumerate(parts):
        accuracy, error = scoring.accuracy(right[i])
        known = analysis.compared(opened, column, depth, part.train)
        unsolved = part.doubt and part.doubt.replace("solve.ridge", "--ridge")
        points.append(
            {
                "train": part.train,
                "accuracy": accuracy,
                "standard_error": error,
                "ridge": part.ridge,
                "largest_residual": part.largest_residual,
                "undecided": 100 * undecided[i] / len(y_test),
                "published": known and known["accuracy"],
                "source": known and known["source"],
                "doubt": unsolved or scoring.doubt(undecided[i], error, len(y_test), "raise --ridge"),
            }
        )
    return points
