"""Rows of a comparison's table: one for each cell, with its difference from the first like it."""

from collections.abc import Sequence

from cntk_bench.comparisons import pairs, same_images
from cntk_bench.comparisons.alike import Alike
from cntk_bench.comparisons.circumstances import circumstances
from cntk_bench.comparisons.entries import Entry
from cntk_bench.report.rows import number
from cntk_bench.report.rows import rows as table


def rows(found: Sequence[Alike]) -> list[dict]:
    """Return a comparison's row for each cell (`alike.cells`), as plain values.

    column, depth, accuracy, standard_error, trusted, doubt, published, ridge, spread, repeats : as
        `report.rows`; loo_error, which the solver reported.
    runs : list of str
        Labels of the solves that are alike.
    settings : dict
        Dotted key -> value.
    machine, version, commit, device, compute_seconds, solve_seconds
        Lists, with a value for each of `runs`.
    accuracies_alike : list of float
        Accuracies of those solves; all the same, or something is wrong.
    difference : float or None
        accuracy minus that of the first row of the same column and depth, in percentage points, if both are
        trusted and of the same test images.
    difference_error : float or None
        Its paired standard error over images, if the predictions of both are here.
    """
    shown: dict[int, dict[tuple, dict]] = {}  # by entry: the rows of its own table
    reference: dict[tuple, Alike] = {}
    out = []
    for one in found:
        first = one.entries[0]
        if id(first) not in shown:
            cells_of = [(solution["column"], solution["depth"]) for solution in first.record["solutions"]]
            shown[id(first)] = dict(zip(cells_of, table(first.record), strict=True))
        row = shown[id(first)][one.cell]
        around = [circumstances(entry) for entry in one.entries]
        base = reference.setdefault(one.cell, one)
        difference, error = (None, None) if base is one else _difference(base, one)
        out.append(
            {
                "column": one.cell[0],
                "depth": one.cell[1],
                "runs": [entry.label for entry in one.entries],
                **{key: row[key] for key in ("accuracy", "standard_error", "trusted", "spread", "repeats")},
                "doubt": None if one.trusted else one.solution.get("doubt") or "no reason given",
                "published": row["published"],
                "source": row["source"],
                "ridge": row["ridge"],
                "loo_error": _loo_error(one.solution),
                "difference": difference,
                "difference_error": error,
                "accuracies_alike": [_accuracy(entry, one.cell) for entry in one.entries],
                "settings": one.settings,
                **{key: [each[key] for each in around] for key in around[0]},
            }
        )
    return out


def _loo_error(solution: dict) -> float | None:
    """Return the leave-one-out error, averaged over draws; None if one is unknown."""
    draws = solution.get("draws")
    known = [number(one.get("loo_error")) for one in (draws if isinstance(draws, list) else [solution])]
    found = [value for value in known if value is not None]
    return sum(found) / len(found) if found and len(found) == len(known) else None


def _accuracy(entry: Entry, cell: tuple[str, int | None]) -> float | None:
    return next(s["accuracy"] for s in entry.record["solutions"] if (s["column"], s["depth"]) == cell)


def _difference(base: Alike, one: Alike) -> tuple[float | None, float | None]:
    """Return the difference of the accuracies, and its paired standard error."""
    here, there = one.solution["accuracy"], base.solution["accuracy"]
    if not (one.trusted and base.trusted) or here is None or there is None:
        return None, None
    if not same_images.same(one.entries[0], base.entries[0]):
        return None, None
    tested = pairs.tested(one, base)
    return here - there, None if tested is None else tested.error_images
