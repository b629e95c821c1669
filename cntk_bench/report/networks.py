"""Notes on trained networks, which stand below a table."""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import Any

from cntk_bench.report.rows import draws_of, name_of, number
from cntk_bench.text import exact, short

CHOICES = {
    "test": "the one that is best on the test images, as in the paper; so the choice uses test labels",
    "validation": "the one that is best on training images that were held out",
    "train": "the one that is best on the training images",
}
MOST = 5  # failures that are listed
LARGE = 1.5  # root mean square of initial outputs that is noted; targets of different classes differ by 1


def notes(solutions: list[dict]) -> list[str]:
    """Notes under a table on those of its cells that are trained networks.

    Parameters
    ----------
    solutions : list of dict
        Those of a record, from a source that is not trusted.
    """
    found = []
    widths = sorted({s["width"] for s in solutions if type(s.get("width")) is int})
    if widths:
        columns = dict.fromkeys(short(s["column"], 40) for s in solutions if type(s.get("width")) is int)
        several = any(isinstance(s.get("draws"), list) for s in solutions)
        over = "draws (repeats), their trials" if several else "trials (repeats)"
        counted = sorted({epochs for s in solutions for one in draws_of(s) for epochs in _counted(one)})
        epochs = f"{_and(counted) if counted else 'some'} epoch{'s' * (counted != [1])}"
        found.append(
            f"{_and(list(columns))}: trained networks of width {_and(widths)}; each accuracy is the mean "
            f"over {over} and over {epochs} each: {_which_epochs(solutions)}."
        )
    found += _initial(solutions)
    for count in sorted({s["held_out"] for s in solutions if type(s.get("held_out")) is int}):
        columns = dict.fromkeys(short(s["column"], 40) for s in solutions if s.get("held_out") == count)
        found.append(
            f"{_and(list(columns))}: {count} of the training images are held out (network.choose: "
            "validation), and no network is trained on them; kernels use all."
        )
    for way, words in CHOICES.items():
        chosen = [s for s in solutions if is_chosen_by(s, way)]
        if chosen:
            lists = [one.get("candidates") for s in chosen for one in draws_of(s)]
            tried = max(len(some) if isinstance(some, list) else 0 for some in lists)
            each = "; each draw has its own" * any(isinstance(s.get("draws"), list) for s in chosen)
            found.append(f"rate: of {tried} learning rates, {words}{each}.")
    failures = [
        f"{name_of(s)}, rate {_number(one, 'rate')}, "
        f"trial {_number(one, 'trial')}{which} (step {_number(one, 'step')}: "
        f"{short(str(one.get('reason')), 60)})"
        for s in solutions
        for place, draw in enumerate(draws_of(s), 1)
        for which in [f", draw {place}" if draw is not s else ""]
        for one in (draw["failures"] if isinstance(draw.get("failures"), list) else [])
        if isinstance(one, dict)
    ]
    if failures:
        more = f" and {len(failures) - MOST} more" if len(failures) > MOST else ""
        found.append(f"Networks that failed, left out of all accuracies: {'; '.join(failures[:MOST])}{more}.")
    return found


def _initial(solutions: list[dict]) -> list[str]:
    """A sentence on columns whose outputs were large before training, if there are any.

    In the limit of infinite width a trained network predicts what its kernel does, plus f0(x) - K(x, X)
    K(X, X)^-1 f0(X), where f0 are its initial outputs: the part that the training images X do not determine.
    """
    large = [
        (short(s["column"], 40), sqrt(loss))
        for s in solutions
        for loss in (number(one.get("initial_loss")) for one in draws_of(s))
        if loss is not None and loss > LARGE**2
    ]
    if not large:
        return []
    columns = dict.fromkeys(column for column, _ in large)
    sizes = dict.fromkeys(f"{end(size for _, size in large):,.1f}" for end in (min, max))
    return [
        f"{_and(list(columns))}: before training, the root-mean-square difference of outputs and targets was "
        f"{' to '.join(sizes)}, while targets of different classes differ by 1. Part of these initial "
        "outputs remains in the predictions for test images. A smaller network.kappa makes them smaller, "
        "with rates larger by 1 / kappa^2."
    ]


def is_chosen_by(solution: Mapping[str, Any], way: str) -> bool:
    """Whether a cell's rate, or that of any of its draws, was chosen in a way of `CHOICES`.

    A draw in which only one rate did not fail had nothing to choose, so that draws may differ in this.
    """
    return any(one.get("chosen_by") == way for one in (solution, *draws_of(solution)))


def favoured(solutions: list[dict]) -> str:
    """A sentence on the columns whose learning rates the test images chose; empty where there are none."""
    columns = dict.fromkeys(short(s["column"], 40) for s in solutions if is_chosen_by(s, "test"))
    return (
        f"Learning rates of {_and(list(columns))}: those that are best on the test images." if columns else ""
    )


def _which_epochs(solutions: list[dict]) -> str:
    """Which epochs accuracies are averaged over, by how many networks reached full training accuracy."""
    scored = [s for s in solutions if type(s.get("width")) is int and s.get("accuracy") is not None]
    lists = [one.get("reached") for s in scored for one in draws_of(s) if one.get("accuracy") is not None]
    reached = [epoch for some in lists if isinstance(some, list) for epoch in some]
    known = all(isinstance(some, list) and some for some in lists)
    if not reached or not known or any(epoch is not None and type(epoch) is not int for epoch in reached):
        return "those after full training accuracy, or the last ones of a network that does not reach it"
    never = reached.count(None)
    if never == len(reached):
        return "the last ones, as no network reached full training accuracy"
    if never:
        return (
            f"those after full training accuracy, or the last ones of the {never:,} of {len(reached):,} "
            "networks that did not reach it"
        )
    return "those after full training accuracy"


def _counted(solution: Mapping[str, Any]) -> set[int]:
    """The numbers of epochs that its networks' accuracies are averaged over.

    All epochs, if there are fewer than asked for.
    """
    after, took = solution.get("epochs_after"), solution.get("epochs")
    if type(after) is not int or solution.get("accuracy") is None:
        return set()
    every = [epochs for epochs in took if type(epochs) is int] if isinstance(took, list) else []
    return {min(epochs, after) for epochs in every} or {after}


def draws_in_words(draws: Sequence[int]) -> str:
    """Draws 1, 2, ... in words, such as "draw 2" and "draws 1, 2 and 4"."""
    return f"draw{'s' * (len(draws) > 1)} {_and(list(draws))}"


def _and(values: list[Any], show: Callable[[Any], str] = str) -> str:
    """Values listed in words, such as "1, 2 and 3"."""
    *first, last = map(show, values)
    return f"{', '.join(first)} and {last}" if first else last


def _number(mapping: dict, key: str) -> str:
    value = number(mapping.get(key))
    return short(str(mapping.get(key)), 20) if value is None else exact(value)
