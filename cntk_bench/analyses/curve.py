"""Learning curve of a cell of a computed run: accuracy against the number of training images.

With several draws of the training images there is a curve for each, and the results are means over draws.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cntk_bench.analyses import analysis, extrapolation
from cntk_bench.errors import UserError
from cntk_bench.regression import nested, placement, prediction
from cntk_bench.regression.ridge import ridges, shown
from cntk_bench.runs import draws, images, scoring
from cntk_bench.runs.access import OpenRun


def sizes(n: int, classes: int) -> list[int]:
    """Return the default sizes of a curve: n, halved repeatedly, down to two images per class."""
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
    extrapolate: int | None = None,
) -> dict:
    """Solve a cell on the first m training images for several m, from one factor (`regression.nested`).

    Training images are in a seeded order (`data.order`). In a balanced order, every prefix is as balanced
    over the classes as the data allow. So is every prefix of a draw whose number of images is a multiple of
    the number of classes; any other draw may begin in the middle of a round of all classes, and its counts of
    two classes then differ by at most two, unless a class runs out of images. Draws share no image. Since a
    curve's training sets are nested and its test images the same, its errors are correlated.

    Parameters
    ----------
    opened : OpenRun
    column, depth : str, int
    listed : sequence of int, optional
        By default `sizes`.
    ridge : float, optional
        Relative to the mean diagonal of each draw's whole matrix; by default the config's.
    extrapolate : int, optional
        Number of training images to extrapolate the curve to.

    Returns
    -------
    dict
        Plain numbers, by these names: ridge, jitter, device, precision, and points, one for each size:
        train (m), accuracy and standard_error in percent, ridge (relative to the mean diagonal of these m),
        undecided in percent, largest_residual, doubt, and published, an accuracy for as many training images,
        or None, with its source. Points of several draws are merged (`draws.merged`), and also have all
        draws' accuracies, their spread, and under draws each draw's own values; published_spread, the
        published deviation between draws; and elsewhere, what was published for another number of test
        images, or None. With `extrapolate`, also extrapolation, from `extrapolation.extrapolated`, with
        published and its source.

    Raises
    ------
    UserError
        If the config has several ridges and none is given; if the matrix does not fit into memory
        or is not computed; or if an argument is invalid.
    """
    started = time.perf_counter()
    how, n = opened.run.config().solve, opened.sizes[0]
    if ridge is None:
        several = ridges(how.ridge)
        if len(several) > 1:
            raise UserError(
                f"solve.ridge of the run is {shown(how.ridge)}, not one number, as a learning curve needs: "
                "give --ridge"
            )
        (ridge,) = several
    _, _, classes = analysis.truth(opened)
    chosen = sizes(n, classes) if listed is None else list(listed)
    if extrapolate is not None:
        extrapolation.require(chosen, extrapolate)
    place = placement.choose(n, classes=classes, device=how.device, dtype=how.precision, limit=how.memory)
    facts = analysis.begun(opened, "curve", {"sizes": chosen, "ridge": ridge}, every=True)
    stored = np.float32 if place.device == "cuda" else place.dtype
    known, scored, right = opened.store.images((n * opened.draws, opened.sizes[1])).labels, [], []
    jitter = 0.0
    for number in range(opened.draws):
        draw = number, opened.draws
        parts = nested.solve(
            analysis.lower(opened, column, depth, stored, draw),
            known[0][images.of_draw(number, n)],
            classes=classes,
            sizes=chosen,
            ridge=ridge,
            device=place.device,
            dtype=place.dtype,
            overwrite=True,
        )
        jitter = max(jitter, parts[0].jitter)
        hits, undecided, black = _tested(opened, column, depth, parts, draw)
        right.append(hits)
        scored.append([_scored(*one, black) for one in zip(parts, hits, undecided, strict=True)])
    points = [_merged(of_draws, opened.sizes[1]) for of_draws in zip(*scored, strict=True)]
    points = [_beside(opened, column, depth, point) for point in points]
    doubts = [point["doubt"] for point in points]
    if opened.draws > 1:
        facts["data"]["draws"] = opened.draws
    if extrapolate is not None:
        beyond = extrapolation.extrapolated(points, np.array(right), extrapolate)
        there = analysis.compared(opened, column, depth, extrapolate, opened.draws) or {}
        beyond |= {"published": there.get("accuracy"), "source": there.get("source")}
        doubts.append(beyond["doubt"])
        facts["extrapolation"] = beyond
    facts |= {
        "column": column,
        "depth": depth,
        "ridge": ridge,
        "jitter": jitter,
        "device": place.device,
        "precision": place.dtype,
        "points": points,
        "doubt": next((doubt for doubt in doubts if doubt), None),
    }
    facts["made"]["seconds"] = time.perf_counter() - started
    return facts


def _tested(
    opened: OpenRun, column: str, depth: int, parts: Sequence[nested.Part], draw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return which test images each part gets right (k, m), how many are undecided (k,), how many black."""
    _, y_test = opened.labels
    right = np.zeros((len(parts), len(y_test)), bool)
    undecided, black, first = np.zeros(len(parts), np.int64), 0, 0
    for block in analysis.blocks(opened, column, depth, draw):
        rows = slice(first, first := first + len(block))
        black += prediction.black(block)
        for i, part in enumerate(parts):
            some = block[:, : part.train]
            scores, together = prediction.scored(part.alpha, some)
            right[i, rows] = scores.argmax(axis=1) == y_test[rows]
            undecided[i] += int(prediction.unsure(scores, together, some, part.largest_residual).sum())
    return right, undecided, black


def _scored(part: nested.Part, right: np.ndarray, undecided: int, black: int) -> dict[str, Any]:
    """Return the point of a part, as one draw gives it."""
    accuracy, error = scoring.accuracy(right)
    unsolved = part.doubt and part.doubt.replace("solve.ridge", "--ridge")
    return {
        "train": part.train,
        "accuracy": accuracy,
        "standard_error": error,
        "ridge": part.ridge,
        "largest_residual": part.largest_residual,
        "undecided": 100 * undecided / len(right),
        "doubt": unsolved or scoring.doubt(undecided, error, len(right), "raise --ridge", black),
    }


def _merged(of_draws: Sequence[dict], n_test: int) -> dict[str, Any]:
    """Merge the points of several draws into one; a single draw's is returned as it is."""
    if len(of_draws) == 1:
        return of_draws[0]
    found = draws.merged([one | {"trusted": one["doubt"] is None} for one in of_draws], n_test)
    found["ridge"] = float(np.mean([one["ridge"] for one in of_draws]))  # each has its own mean diagonal
    found["largest_residual"] = max(one["largest_residual"] for one in of_draws)
    return found


def _beside(opened: OpenRun, column: str, depth: int, point: dict) -> dict[str, Any]:
    """Add to a point what was published for as many training images."""
    where = opened, column, depth, point["train"], opened.draws
    known = analysis.compared(*where) or {}
    found = point | {"published": known.get("accuracy"), "source": known.get("source")}
    if opened.draws > 1:
        found["published_spread"] = known.get("spread")
        found["elsewhere"] = None if known else analysis.compared_elsewhere(*where)
    return found
