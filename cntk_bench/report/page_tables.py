"""The tables of a page, as plain data: heads, rows of text, and which cells are in doubt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cntk_bench.regression.accuracy import standard_error
from cntk_bench.report.grids import Groups, grids
from cntk_bench.report.rows import DOUBTED, MISSING, cell, is_trusted, name_of, number, ridge_words, rows
from cntk_bench.text import short

TAKEN = "most often taken for"
TOP = 20  # pairs of classes listed of a confusion matrix
DETAILS = {  # of solutions: key -> head, form
    "ridge": ("ridge", ".3g"),
    "jitter": ("jitter", ".0e"),
    "loo_accuracy": ("leave-one-out accuracy, %", ".2f"),
    "loo_standard_error": ("its s.e.", ".2f"),
    "loo_error": ("leave-one-out error", ".4g"),
    "condition": ("condition number, 1-norm", ".2e"),
    "largest_residual": ("largest residual", ".1e"),
    "iterations": ("iterations", "d"),
    "undecided": ("undecided, %", ".3g"),
    "seconds": ("seconds", ".3g"),
}


@dataclass(frozen=True)
class Table:
    """One table.

    caption : what it is.
    heads : one for each column; the first column's cells are the heads of their rows.
    rows : texts; one that ends in `DOUBTED` is in doubt.
    groups : headings above the heads, (title, number of columns); empty for none.
    text_columns : the places of the columns that are text, not numbers.
    """

    caption: str
    heads: list[str]
    rows: list[list[str]]
    groups: tuple[tuple[str, int], ...] = ()
    text_columns: frozenset[int] = frozenset()


def accuracies(record: dict) -> list[Table]:
    """The tables of a record, as every format has them (`grids`)."""
    return [_of_groups(groups) for groups in grids(record)]


def _of_groups(groups: Groups) -> Table:
    heads = [head for _, group in groups for head in group]
    columns = [texts for _, group in groups for texts in group.values()]
    title = groups[0][0] or "by depth"
    return Table(
        f"Test accuracy in percent, {short(title)}",
        heads,
        [list(line) for line in zip(*columns, strict=True)],
        tuple((name if i or len(groups) == 1 else "", len(group)) for i, (name, group) in enumerate(groups))
        if len(groups) > 1
        else (),
    )


def details(record: dict) -> Table:
    """How each cell was solved: what the solver reported."""
    solutions = record["solutions"]
    reported = [one | _left_out(one, record["data"]["n_train"]) for one in solutions]
    known = {key: [_detail(one.get(key), form) for one in reported] for key, (_, form) in DETAILS.items()}
    known["ridge"] = list(map(ridge_words, rows(record)))
    known = {key: texts for key, texts in known.items() if set(texts) != {MISSING}}
    lines = []
    for i, one in enumerate(solutions):
        mark = "" if is_trusted(one) else DOUBTED
        lines.append([name_of(one), *(texts[i] for texts in known.values()), "no" + mark if mark else "yes"])
    heads = ["cell", *(DETAILS[key][0] for key in known), "trusted"]
    return Table("How each cell was solved", heads, lines)


def _left_out(solution: dict, n: int) -> dict:
    """The leave-one-out accuracy over n training images in percent, and its standard error."""
    share = number(solution.get("loo_accuracy"))
    if share is None or not 0 <= share <= 1:
        return {"loo_accuracy": None}
    return {"loo_accuracy": 100 * share, "loo_standard_error": standard_error(share, n)}


def _detail(value: Any, form: str) -> str:
    found = number(value)
    if found == 0:
        return "0"
    return cell(int(found) if found is not None and form == "d" else found, form)


def confused(counts: np.ndarray, names: Sequence[str], repeats: int = 1) -> Table:
    """For each class: images, those that are right, and the class that it is taken for most often.

    With several predictions of each image, standard errors count each image once, as all share the images.
    """
    rows = []
    for i, name in enumerate(names):
        of, right = int(counts[i].sum()), int(counts[i, i])
        wrong = counts[i].copy()
        wrong[i] = 0
        most = int(wrong.argmax())
        often = f"{short(names[most], 30)} ({wrong[most]})" if wrong[most] else MISSING
        share = [MISSING, MISSING]  # a small test set may have no image of a class
        if of:
            share = [cell(100 * right / of, ".1f"), f"{standard_error(right / of, of // repeats):.1f}"]
        rows.append([short(name, 30), str(of), str(right), *share, often])
    heads = ["class", "predictions" if repeats > 1 else "test images", "right", "right, %", "s.e.", TAKEN]
    caption = "Test images of each class; a standard error of 0 is uninformative"
    return Table(caption, heads, rows, text_columns=frozenset({5}))


def matrix(counts: np.ndarray, names: Sequence[str]) -> Table:
    """A whole confusion matrix."""
    rows = [[short(name, 30), *map(str, line)] for name, line in zip(names, counts.tolist(), strict=True)]
    heads = ["true \\ predicted", *(short(name, 30) for name in names)]
    return Table("Test images of each class (row) by predicted class (column)", heads, rows)


def pairs(counts: np.ndarray, names: Sequence[str]) -> Table:
    """The pairs of classes that are confused most often, where a whole matrix would be too large to read."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:TOP]
    places = [divmod(int(place), len(counts)) for place in order if wrong.flat[place]]
    rows = [[short(names[i], 30), short(names[j], 30), str(wrong[i, j])] for i, j in places]
    heads = ["true class", "predicted class", "test images"]
    return Table("The pairs of classes confused most often", heads, rows, text_columns=frozenset({1}))
