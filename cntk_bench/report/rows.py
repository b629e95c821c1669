"""What a table shows, row by row."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.report.published import ALL, BALANCED, FULL, UNIT_DIAGONAL, Run, published
from cntk_bench.text import short

MISSING = "-"
MOST = 2000  # cells of a table
WIDEST = 40  # characters of a column's name
DOUBTED = "?"  # beside an accuracy that cannot be trusted
# The values that a cell may have, and their formats.
FORMS = {
    "accuracy": ".2f",
    "standard_error": ".2f",
    "spread": ".2f",
    "repeats": "d",
    "train_accuracy": ".2f",
    "rate": ".3g",
    "published": ".2f",
    "published_spread": ".2f",
    "difference": "+z.2f",  # never -0.00
    "ridge": ".3g",
}
HEADS = {"standard_error": "s.e.", "train_accuracy": "train", "published_spread": "its spread"}


def rows(record: dict) -> list[dict]:
    """One row for each column and depth, in the order of the record.

    Parameters
    ----------
    record : dict
        A record with solutions, from a source that is not trusted.

    Returns
    -------
    list of dict
        column : str
        depth : int or None
            None for a column without depths.
        accuracy : float or None
            Measured test accuracy in percent; None if every network failed.
        standard_error : float or None
            Of the accuracy, in percent.
        trusted : bool
        published : float or None
            Test accuracy in percent that was published for the same data and sizes.
        difference : float or None
            accuracy - published; None where the accuracy is not trusted.
        source : str or None
            Where it was published.
        published_spread : float or None
            Standard deviation between draws of what was published, in percent; of means over draws.
        n_train, n_test : int
            Images used; of several draws, training images of each.
        ridge : float or None
            Relative to the mean diagonal of the Gram matrix; None without one, or if draws have others.
        lowest_ridge, highest_ridge : float or None
            Of draws that have different ones; otherwise None.
        spread : float or None
            Standard deviation of the accuracy between repetitions (seeds, draws), in percent.
        repeats : int or None
            How many repetitions there are; None where the cell is of one fixed prediction.
        train_accuracy : float or None
            Accuracy on the training images at the last epoch, in percent; mean over trained networks.
        rate : float or None
            Learning rate that is shown; of trained networks.

    Raises
    ------
    UserError
        If nothing has been solved yet, or no run can have written the record.
    """
    _check(record)
    solutions, data = record["solutions"], record["data"]
    found = []
    for solution in solutions:
        known = published(alike(data, solution), solution["column"], solution["depth"])
        accuracy, trusted = number(solution["accuracy"]), is_trusted(solution)
        difference = None
        if known is not None and trusted and accuracy is not None:
            difference = round(accuracy - known.accuracy, 2) + 0.0  # -0.0 becomes 0.0
        found.append(
            {
                "column": short(solution["column"], WIDEST),
                "depth": solution["depth"],
                "accuracy": accuracy,
                "standard_error": number(solution.get("standard_error")),
                "trusted": trusted,
                "published": known.accuracy if known else None,
                "difference": difference,
                "source": known.source if known else None,
                "n_train": data["n_train"],
                "n_test": data["n_test"],
                "ridge": number(solution.get("ridge")),
                "spread": number(solution.get("spread")),
                "repeats": _length(solution.get("accuracies")),
                "train_accuracy": number(solution.get("train_accuracy")),
                "rate": number(solution.get("rate")),
                "published_spread": known.deviation if known else None,
                **_ridge_range(solution),
            }
        )
    return found


def _check(record: dict) -> None:
    """Refuse a record that a table cannot show."""
    try:
        data, solutions = record["data"], record["solutions"]
        if not solutions:
            raise UserError(f"run {short(record['name'])} has no accuracies yet: solve it first")
        if len(solutions) > MOST:
            raise UserError(
                f"run {short(record['name'])} has {len(solutions)} cells: a table has at most {MOST}"
            )
        cells = [(short(s["column"], WIDEST), s["depth"], s["accuracy"]) for s in solutions]
        depths = [depth for _, depth, _ in cells if depth is not None]
        counts = [data["n_train"], data["n_test"], *depths]
        texts = [record["name"], data["name"], data["preprocess"], *(s["column"] for s in solutions)]
        sound = (
            all(type(count) is int and 0 < count < 10**9 for count in counts)
            and all(isinstance(text, str) for text in texts)
            and all(isinstance(mapping, dict) for mapping in [data, *solutions])
        )
        twice = len({cell[:2] for cell in cells}) < len(cells)
    except (KeyError, TypeError):  # not there, or not what it should be
        sound = twice = False
    if not sound or twice:
        problem = "it has a cell twice" if twice else "an entry is missing or impossible"
        raise UserError(f"the record cannot be shown as a table ({problem}): solve the run again")


def is_trusted(solution: dict) -> bool:
    """Whether an accuracy may be believed; anything but true is a doubt."""
    return solution.get("trusted", True) is True


def run(data: Mapping[str, Any]) -> Run:
    """The part of a record's data that decides which published numbers it may be compared with."""
    used = data.get("classes_used")
    if used is None and data.get("classes", len(ALL)) == len(ALL):
        classes = ALL
    elif isinstance(used, list) and all(type(label) is int for label in used):
        classes = tuple(sorted(used))
    else:
        classes = ()  # unknown: comparable with nothing
    name, sizes, prepared = data["name"], (data["n_train"], data["n_test"]), data["preprocess"]
    how = data.get("statistics", FULL)  # old records do not say: there was nothing else
    numbers = tuple(number(one) for one in how) if isinstance(how, list) else ()
    statistics = how if isinstance(how, str) else numbers
    order = data.get("order", BALANCED)  # only another one is recorded
    return Run(
        name, *sizes, classes, draws(data), preprocess=prepared, statistics=statistics,
        order=order if isinstance(order, str) else "",
    )  # fmt: skip


def alike(data: Mapping[str, Any], solution: Mapping[str, Any]) -> Run:
    """As `run`, with what else matters for this: how a cell was solved, and the width of its networks.

    Its training images are those that networks were trained on, without those held out.
    """
    found, held_out = run(data), solution.get("held_out")
    left_out = held_out if type(held_out) is int else 0
    return replace(
        found,
        n_train=found.n_train - left_out,
        setting=_setting(solution),
        width=solution.get("width"),
    )


def _setting(solution: Mapping[str, Any]) -> str:
    """How a cell's setting differs from the defaults, in the words of published tables."""
    if solution.get("normalize", "none") == "none":
        return ""
    return UNIT_DIAGONAL if solution.get("ridge") == 5e-5 else "kernels scaled to a diagonal of one"


def draws(data: Mapping[str, Any]) -> int:
    """Number of draws according to a record's facts about images, whose n_train counts one draw.

    1 where it is missing or impossible.
    """
    found = data.get("draws", 1)
    return found if type(found) is int and 0 < found < 10**9 else 1


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:
        return None


def _length(values: Any) -> int | None:
    return len(values) if isinstance(values, list) else None


def cell_name(column: str, depth: int | None) -> str:
    """A cell in words: its column, and its depth where it has one, such as "CNTK-GAP at depth 11"."""
    return short(column, WIDEST) + ("" if depth is None else f" at depth {depth}")


def name_of(facts: Mapping[str, Any]) -> str:
    """The `cell_name` of a solution, of a row, or of an analysis' result."""
    return cell_name(facts["column"], facts["depth"])


def cell(value: float | None, form: str) -> str:
    """A number as text; MISSING for None.

    A number below 100 with decimals is never "100.00", which of percentages says that all are right.
    """
    if value is None:
        return MISSING
    text = short(format(value, form), 16)
    return "99." + "9" * (len(text) - 4) if value < 100 and text.rstrip("0") == "100." else text


def draws_of(solution: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The facts of a cell for each draw of the training images; for a single draw, the cell itself."""
    found = solution.get("draws")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else [solution]


def _ridge_range(solution: Mapping[str, Any]) -> dict[str, float | None]:
    """The lowest and the highest ridge of draws that have different ones; None where there is no range."""
    known = [number(one.get("ridge")) for one in draws_of(solution)]
    found = {one for one in known if one is not None}
    several = number(solution.get("ridge")) is None and len(found) > 1
    low, high = (min(found), max(found)) if several else (None, None)
    return {"lowest_ridge": low, "highest_ridge": high}


def ridge_range(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """The lowest and the highest ridge of a row's draws, equal if there is but one; None without a ridge."""
    if row.get("highest_ridge") is not None:
        return row["lowest_ridge"], row["highest_ridge"]
    return None if row.get("ridge") is None else (row["ridge"], row["ridge"])


def ridge_words(row: Mapping[str, Any]) -> str:
    """A row's ridge as text, such as "0.001"; if draws have different ones, their range, such as "0 to 1"."""
    return in_words(ridge_range(row))


def in_words(ridge: tuple[float, float] | None) -> str:
    """A `ridge_range` as text."""
    ends = dict.fromkeys([None] if ridge is None else ridge)
    return " to ".join(cell(one, FORMS["ridge"]) for one in ends)


def ridges(table: Iterable[dict]) -> set[tuple[float, float] | None]:
    """The distinct ridges of a table, each a `ridge_range`; None counts only if no row has a ridge."""
    found = {ridge_range(row) for row in table}
    return found - {None} or found


def count(value: int) -> str:
    """A number of images with thousands separators."""
    return f"{value:,}"
