"""The cells of several draws of training images as one: means over the draws, and what each of them says."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def merged(scored: Sequence[Mapping[str, Any]], n_test: int) -> dict[str, Any]:
    """One solution of the solutions of several draws.

    accuracy is their mean, standard_error its binomial one over the test images, which all draws share, and
    spread the deviation between draws (dividing by one less than their number), of the accuracies listed.
    What all draws say alike is said once; what differs stands under `draws`, and only there where one number
    could not stand for all, such as ridges chosen for each draw. The cell is in doubt where a draw is.
    """
    count = len(scored)
    accuracies = [one["accuracy"] for one in scored]
    mean = float(np.mean(accuracies))
    found = {
        key: value
        for key, value in scored[0].items()
        if all(key in other and _equal(value, other[key]) for other in scored[1:])
    }
    found |= {
        "accuracy": mean,
        "standard_error": (mean * (100 - mean) / n_test) ** 0.5,
        "accuracies": accuracies,
        "spread": float(np.std(accuracies, ddof=1)),
        "undecided": float(np.mean([one["undecided"] for one in scored])),
        "trusted": all(one["trusted"] for one in scored),
        "doubt": None,
    }
    for number, one in reversed(list(enumerate(scored, 1))):
        if one["doubt"] is not None:
            found["doubt"] = f"draw {number} of {count}: {one['doubt']}"
        if one.get("note"):
            found["note"] = one["note"]
        if one.get("edge"):
            found["edge"] = one["edge"]
    for key, combine in (("jitter", max), ("train_accuracy", np.mean), ("seconds", sum)):
        if all(isinstance(one.get(key), int | float) for one in scored):
            found[key] = float(combine([one[key] for one in scored]))
    return found | {"draws": [dict(one) for one in scored]}


def together(kept: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Arrays of several draws: under their names, a draw along the first axis, where their shapes agree."""
    found: dict[str, Any] = {}
    for name in kept[0]:
        values = [np.asarray(one[name]) for one in kept if name in one]
        if len(values) == len(kept) and len({value.shape for value in values}) == 1:
            found[name] = np.stack(values)
        else:
            found |= {f"{name}-{draw}": one[name] for draw, one in enumerate(kept, 1) if name in one}
    return found


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(np.all(one == other))
