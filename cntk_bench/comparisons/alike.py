"""Cells of several solves; those with the same settings and images are merged into one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cntk_bench.comparisons.circumstances import settings
from cntk_bench.comparisons.entries import Entry
from cntk_bench.errors import UserError
from cntk_bench.report.rows import MOST, is_trusted


@dataclass(frozen=True)
class Predictions:
    """A cell's predictions, and the solve (`entry`) that they are from.

    predicted (r, m), y_test (m,), draw (r,) if there are several draws, and repeat (r,) if there are several
    repetitions, int64.
    """

    entry: Entry
    predicted: np.ndarray
    y_test: np.ndarray
    draw: np.ndarray | None = None
    repeat: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray:
        """(r, m), bool: which predictions are correct."""
        return self.predicted == self.y_test

    @cached_property
    def weight(self) -> np.ndarray:
        """(r,): the weight of each row; repetitions count alike, however many rows they have."""
        if self.repeat is None:
            return np.ones(len(self.predicted))
        which = np.stack([np.zeros_like(self.repeat) if self.draw is None else self.draw, self.repeat])
        _, place, count = np.unique(which, axis=1, return_inverse=True, return_counts=True)
        return 1 / count[place.ravel()]


@dataclass(frozen=True, eq=False)
class Alike:
    """One cell of solves with the same settings and images.

    entries : those solves; numbers are those of the first.
    solution : what the first recorded of the cell.
    settings : dotted key -> value.
    """

    entries: tuple[Entry, ...]
    solution: dict
    settings: dict[str, Any]

    @property
    def cell(self) -> tuple[str, int | None]:
        """(column, depth)."""
        return self.solution["column"], self.solution["depth"]

    @property
    def trusted(self) -> bool:
        """Whether its accuracy may be believed."""
        return is_trusted(self.solution)

    @cached_property
    def predictions(self) -> Predictions | None:
        """Predictions of the first solve that has them here; None if none has."""
        for entry in self.entries:
            found = entry.arrays(*self.cell)
            if found is not None:
                return Predictions(entry, **found)
        return None


def cells(entries: Sequence[Entry]) -> list[Alike]:
    """Return all cells, column by column (those without depths last), and within a cell as solves are given.

    Raises
    ------
    UserError
        If there are more than a table shows.
    """
    count = sum(len(entry.record["solutions"]) for entry in entries)
    if count > 10 * MOST:
        raise UserError(f"{count:,} cells cannot be compared at once: name fewer solves")
    found: dict[tuple, dict[str, Alike]] = {}
    for entry in entries:
        for solution in entry.record["solutions"]:
            how = settings(entry, solution)
            key = json.dumps([how, entry.data["fingerprint"]], sort_keys=True)
            there = found.setdefault((solution["column"], solution["depth"]), {})
            known = there[key].entries if key in there else ()
            first = there[key].solution if key in there else solution
            there[key] = Alike((*known, entry), first, how)
    order = list(dict.fromkeys(column for column, _ in found))
    ordered = sorted(found, key=lambda cell: (cell[1] is None, order.index(cell[0]), cell[1] or 0))
    merged = [one for cell in ordered for one in found[cell].values()]
    if len(merged) > MOST:
        raise UserError(f"{len(merged):,} rows are too many: name fewer solves, for at most {MOST:,} rows")
    return merged
