"""Paired tests of solved cells on the test images that they have in common (`regression.paired`)."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from typing import Any

import numpy as np

from cntk_bench.comparisons import same_images
from cntk_bench.comparisons.alike import Alike, Predictions
from cntk_bench.errors import UserError
from cntk_bench.regression import paired
from cntk_bench.regression.paired import LEVEL, Paired
from cntk_bench.report.networks import is_chosen_by
from cntk_bench.report.rows import MOST, cell_name
from cntk_bench.text import short

CHOSEN = "its rate was chosen by test accuracy, which favours it: use network.choose=validation"


def tested(first: Alike, second: Alike) -> Paired | None:
    """Test one cell against another, on the test images that both have.

    If each cell has one prediction of each image, by McNemar's exact test; if both have several draws of the
    same training images, by Student's t over draws; otherwise several predictions of each image, such as of
    trained networks, are averaged, with Student's t over images. Cells of different training images have no
    p, since by how much others would change the difference is unknown; nor have those of which only one has
    draws.

    Returns
    -------
    Paired or None
        None if the predictions of one are not here, or they have no test image in common.
    """
    one, other = first.predictions, second.predictions
    if one is None or other is None:
        return None
    places = same_images.common(one.entry, other.entry)
    if places is None or not len(places[0]):
        return None
    if not np.array_equal(one.y_test[places[0]], other.y_test[places[1]]):
        return None  # then they are not the same images
    right = [of.right[:, some] for of, some in zip((one, other), places, strict=True)]
    whole = [_share(*some) for some in zip((one, other), right, strict=True)]
    same = same_images.same_training(one.entry, other.entry)
    if one.draw is None and other.draw is None:
        single = len(right[0]) == len(right[1]) == 1
        found = paired.mcnemar(right[0][0], right[1][0]) if single else paired.over_images(*whole)
        return found if same else _untested(found)
    if one.draw is not None and other.draw is not None and same:
        both = sorted(set(one.draw.tolist()) & set(other.draw.tolist()))
        if len(both) > 1:
            shares = [
                np.stack([_share(of, correct, of.draw == draw) for draw in both])
                for of, correct in zip((one, other), right, strict=True)
            ]
            return paired.over_draws(*shares)
    return _untested(paired.over_images(*whole))


def _untested(found: Paired) -> Paired:
    """A difference without interval and p."""
    return replace(found, low=None, high=None, p=None, test=paired.NONE)


def _share(of: Predictions, right: np.ndarray, some: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Return each image's share of correct predictions (m,) in some rows of right (r, m), by `weight`."""
    return np.average(right[some], axis=0, weights=of.weight[some])


def compare(found: Sequence[Alike], against: str | None = None) -> list[dict]:
    """Test every meaningful pair: columns of one solve at the same depth, and one cell of several solves.

    Parameters
    ----------
    found : sequence of Alike
        As `alike.cells` gives them.
    against : str, optional
        Only pairs that include this column.

    Returns
    -------
    list of dict
        first, second : {column, depth, runs, settings}, only settings in which both differ;
        and the fields of `Paired`; p is None for a pair in doubt, or of different training images
        p_holm : p by Holm's correction for all pairs of the list
        significant : bool, whether that is below 5 %
        doubt : why one of both is not to be trusted, or None

    Raises
    ------
    UserError
        If there is no pair, no predictions, or too many pairs.
    """
    chosen = [pair for pair in _pairs(found) if against is None or against in _columns(pair)]
    if against is not None and against not in {one.cell[0] for one in found}:
        known = ", ".join(dict.fromkeys(one.cell[0] for one in found))
        raise UserError(f"--against {short(against)}: no such column here: use one of {short(known, 200)}")
    if not chosen:
        raise UserError(
            "there is nothing to pair: name a run of several columns, or several solves of the same"
        )
    if len(chosen) > MOST:
        raise UserError(
            f"{len(chosen):,} pairs are too many: name fewer solves, or add --against COLUMN, for at most "
            f"{MOST:,}"
        )
    out = []
    for first, second in chosen:
        result = tested(first, second)
        if result is not None:
            out.append(_facts(first, second, result))
    if not out:
        raise UserError(
            "none of these can be paired: the predictions (RUN/solves/N/*.npz), or test images in common, "
            "are missing: name run directories of the same test images"
        )
    for one, p in zip(out, paired.holm([one["p"] for one in out]), strict=True):
        one["p_holm"], one["significant"] = p, p is not None and p < LEVEL
    return out


def count(found: Sequence[Alike], against: str | None = None) -> int:
    """How many pairs `compare` looks at, those that cannot be tested included."""
    return sum(against is None or against in _columns(pair) for pair in _pairs(found))


def _columns(pair: tuple[Alike, Alike]) -> tuple[str, str]:
    return pair[0].cell[0], pair[1].cell[0]


def _pairs(found: Sequence[Alike]) -> Iterator[tuple[Alike, Alike]]:
    """Yield the pairs to test: columns of one solve at the same depth, and solves of one cell.

    Of the latter, those that differ in just one setting or, if there are none, all that differ.
    """
    cells: dict[tuple, list[tuple[Alike, Alike]]] = {}
    for first, second in combinations(found, 2):
        (column, depth), (other, its) = first.cell, second.cell
        if column != other:
            together = any(one is two for one in first.entries for two in second.entries)
            if together and (depth == its or None in (depth, its)):
                yield first, second
        elif depth == its and _differing(first, second):
            cells.setdefault(first.cell, []).append((first, second))
    for some in cells.values():
        by_one = [pair for pair in some if len(_differing(*pair)) == 1]
        yield from by_one or some


def _differing(first: Alike, second: Alike) -> set[str]:
    """Return the settings that both know and differ in; {"images"} if only the training images may differ.

    The number of test images does not count, since it changes no prediction.
    """
    one, other = first.settings, second.settings
    found = {key for key in one.keys() & other.keys() - {"dataset.test"} if one[key] != other[key]}
    if not found and not same_images.same_training(first.entries[0], second.entries[0]):
        found = {"images"}
    return found


def _facts(first: Alike, second: Alike, result: Paired) -> dict[str, Any]:
    doubts = [why for one in (first, second) if (why := _doubt(one))]
    found = asdict(result) | {"p": None if doubts else result.p}
    sides = {"first": _side(first, second), "second": _side(second, first)}
    return sides | found | {"p_holm": None, "significant": False, "doubt": "; ".join(doubts) or None}


def _doubt(one: Alike) -> str | None:
    name = cell_name(*one.cell)
    if not one.trusted:
        return f"{name}: {one.solution.get('doubt') or 'not to be trusted'}"
    if is_chosen_by(one.solution, "test"):
        return f"{name}: {CHOSEN}"
    return None


def _side(one: Alike, other: Alike) -> dict[str, Any]:
    differing = {
        key: value
        for key, value in one.settings.items()
        if key in other.settings and other.settings[key] != value
    }
    if one.cell[0] != other.cell[0]:  # settings of one family of columns say nothing about the other's
        differing = {key: value for key, value in differing.items() if key.startswith("dataset.")}
    runs = [entry.label for entry in one.entries]
    return {"column": one.cell[0], "depth": one.cell[1], "runs": runs, "settings": differing}
