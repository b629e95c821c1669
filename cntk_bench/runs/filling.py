"""Filling of cells by columns, with checks, since another package may have made the column."""

import numpy as np

from cntk_bench import columns
from cntk_bench.columns import Cell
from cntk_bench.errors import UserError
from cntk_bench.runs.inputs import RunInputs
from cntk_bench.text import one_line, short

# Keys of a solution that scoring fills: a column's facts must have other names.
SCORED = {"column", "depth", "accuracy", "standard_error", "accuracies", "spread", "undecided", "trusted",
          "chosen", "draws"}  # fmt: skip


def filled(name: str, depth: int | None, inputs: RunInputs) -> Cell:
    """Fill a cell, and check it.

    Raises
    ------
    UserError
        If the column cannot fill it, or returns an invalid cell.
    """
    where = "" if depth is None else f" at depth {depth}"
    try:
        cell = columns.find(name).fill(depth, inputs)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if not columns.is_foreign(name):
            raise
        reason = one_line(f"{type(error).__name__}: {error}", 120)
        raise UserError(f"column {name} failed{where} ({reason}): mend that package") from error
    problem = _problem(cell, len(inputs.y_test), inputs.classes)
    if problem is not None:
        raise UserError(f"column {name} gives {problem}{where and f',{where}'}: mend the column")
    return cell


def _problem(cell: Cell, m: int, classes: int) -> str | None:
    """Describe what is wrong with a cell of m test images; None if it is valid."""
    for candidate in cell.candidates:
        problem = _problem(candidate, m, classes)
        if problem is not None:
            return problem
    own = set(cell.facts) & SCORED
    if own:
        return f"a fact named {short(min(own))}, which whoever scores gives"
    if cell.candidates:
        return None
    predicted, repeat = cell.predicted, cell.repeat
    if (
        not isinstance(predicted, np.ndarray)
        or predicted.dtype.kind not in "iu"
        or predicted.ndim not in (1, 2)
    ):
        shape, kind = np.shape(predicted), getattr(predicted, "dtype", type(predicted).__name__)
        return f"predictions of shape {shape} and type {kind}: integers are needed"
    if not len(predicted):  # there is no accuracy
        return None if cell.facts.get("doubt") else "no predictions, and no doubt that says why"
    if predicted.shape[-1] != m:
        return f"predictions of shape {predicted.shape} for {m} test images"
    if predicted.min() < 0 or predicted.max() >= classes:
        return f"predictions outside 0 .. {classes - 1}"
    if repeat is not None and (predicted.ndim != 2 or len(repeat) != len(predicted)):
        return f"repeat {short(repeat)} for predictions of shape {predicted.shape}"
    return None
