"""Merging of the cells of several draws of training images: means over the draws, and each draw's facts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cntk_bench.columns import Cell, Curve
from cntk_bench.regression.accuracy import standard_error
from cntk_bench.report.networks import draws_in_words
from cntk_bench.runs import scoring


def merged(scored: Sequence[Mapping[str, Any]], n_test: int) -> dict[str, Any]:
    """Merge the solutions of several draws into one.

    accuracy is their mean, standard_error its binomial error over the test images, which all draws share, and
    spread the standard deviation of the accuracies between draws (dividing by one less than their number).
    Facts equal in all draws are given once; those that differ are under `draws`, and only there if no single
    number can represent them, such as ridges chosen for each draw. The cell is in doubt if any draw is. Its
    note has those of all draws; its edge is a list if draws chose ridges at both ends. A draw without an
    accuracy (None), because every network failed, does not count in the mean.
    """
    count = len(scored)
    accuracies = [one["accuracy"] for one in scored if one["accuracy"] is not None]
    mean = float(np.mean(accuracies)) if accuracies else None
    found = {
        key: value
        for key, value in scored[0].items()
        if all(key in other and _equal(value, other[key]) for other in scored[1:])
    }
    found |= {
        "accuracy": mean,
        "standard_error": None if mean is None else standard_error(mean / 100, n_test),
        "accuracies": accuracies,
        "spread": scoring.spread(accuracies),
        "undecided": float(np.mean([one["undecided"] for one in scored])),
        "trusted": all(one["trusted"] for one in scored),
        "doubt": None,
    }
    for number, one in reversed(list(enumerate(scored, 1))):
        if one.get("doubt") is not None:
            found["doubt"] = f"draw {number} of {count}: {one['doubt']}"
    if note := _notes([one.get("note") for one in scored]):
        found["note"] = note
    if edges := sorted({one["edge"] for one in scored if isinstance(one.get("edge"), str)}):
        found["edge"] = edges[0] if len(edges) == 1 else edges
    for key, combine in (("jitter", max), ("train_accuracy", np.mean), ("seconds", sum)):
        if all(isinstance(one.get(key), int | float) for one in scored):
            found[key] = float(combine([one[key] for one in scored]))
    return found | {"draws": [dict(one) for one in scored]}


def _notes(notes: Sequence[Any]) -> str | None:
    """The draws' notes as one, each distinct one once; unless all draws share it, it says whose it is."""
    whose: dict[str, list[int]] = {}
    for draw, note in enumerate(notes, 1):
        if note and isinstance(note, str):  # another package's column may give anything
            whose.setdefault(note, []).append(draw)
    told = [note if len(of) == len(notes) else f"{draws_in_words(of)}: {note}" for note, of in whose.items()]
    return "; ".join(told) or None


def arrays(cells: Sequence[Cell]) -> dict[str, Any]:
    """The arrays to keep for a cell: the predictions of its draws, and the arrays of each draw.

    For several draws, predicted is (r, m), and draw (r,) has the draw 1, 2, ... of each row; repeat (r,) has
    its repetition, if cells tell it. Other arrays are stacked along a first axis of draws if their shapes
    agree; otherwise the draw is added to their names, as in alpha-2.
    """
    repeat = [number for cell in cells for number in cell.repeat or ()]
    told = {"repeat": np.array(repeat, np.int64)} if repeat else {}
    if len(cells) == 1:
        return {**cells[0].arrays, "predicted": cells[0].predicted} | told
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for cell in cells for name in cell.arrays):
        values = [np.asarray(cell.arrays[name]) for cell in cells if name in cell.arrays]
        if len(values) == len(cells) and len({value.shape for value in values}) == 1:
            found[name] = np.stack(values)
        else:
            found |= {
                f"{name}-{draw}": cell.arrays[name]
                for draw, cell in enumerate(cells, 1)
                if name in cell.arrays
            }
    lines = [(draw, line) for draw, cell in enumerate(cells, 1) if len(cell.predicted)
             for line in np.atleast_2d(cell.predicted)]  # fmt: skip
    found |= told if len(repeat) == len(lines) else {}
    return found | {
        "predicted": np.stack([line for _, line in lines]) if lines else np.empty((0, 0), np.int64),
        "draw": np.array([draw for draw, _ in lines], np.int64),
    }


def curves(of_draw: Mapping[str, Curve], draw: int, draws: int) -> dict[str, Curve]:
    """The curves of a draw 1 .. draws; if there are several, it is added to names and labels."""
    if draws == 1:
        return dict(of_draw)
    return {
        f"{name}-draw-{draw}": replace(curve, label=f"{curve.label}, draw {draw}")
        for name, curve in of_draw.items()
    }


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(np.all(one == other))
