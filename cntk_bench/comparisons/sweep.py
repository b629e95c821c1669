"""A sweep: solve combinations of settings, each kept as a solve of its own, from as few Grams as possible.

    OUTPUT            the run that serves all combinations: its Gram, and a solve for each of them
    OUTPUT/KEY=VALUE  instead, a run for each value of a key that decides the images themselves
    OUTPUT/sweep      each combination's solve (sweep.json), and the comparison of them all

A combination that the same code solved already, on the same images, is not solved again. Each ridge has a
Cholesky factor of its own, as on a ridge path: one eigendecomposition for all would take as long as ten
factors and three times their memory (`regression.ridge`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from cntk_bench import columns
from cntk_bench.comparisons import alike, axes, compared_page, entries, same_images
from cntk_bench.comparisons.axes import Combination
from cntk_bench.comparisons.entries import Entry
from cntk_bench.comparisons.table import rows as rows_of
from cntk_bench.config.config import Config
from cntk_bench.errors import UserError
from cntk_bench.records import provenance, record, solves
from cntk_bench.records.directory import Run
from cntk_bench.report import FORMATS
from cntk_bench.report.compared import listing
from cntk_bench.report.listing import Listing, written
from cntk_bench.report.rows import name_of
from cntk_bench.runs import images
from cntk_bench.system.files import (
    remove_partial,
    require_no_link,
    require_own,
    write_atomic,
    write_json,
    writing,
)
from cntk_bench.system.paths import from_utf8
from cntk_bench.text import exact

FORMAT = 1
RESULT = "sweep.json"


@dataclass(frozen=True)
class Part:
    """The combinations that are solves of one run.

    computed : configs for which the run's Gram is to be computed, the largest first.
    """

    run: Run
    computed: list[Config]
    combinations: list[Combination]


@dataclass(frozen=True)
class Solved:
    """A combination with its solve: the run, and the solve's number in it."""

    run: Run
    combination: Combination
    number: int


@dataclass(frozen=True)
class Failed:
    """A combination that could not be solved, and why."""

    run: Run
    combination: Combination
    reason: str


def parts(file: Path, overrides: Sequence[str], over: Iterable[str], output: Path | None) -> list[Part]:
    """Return the parts of a sweep, checked; nothing is computed.

    Parameters
    ----------
    file, overrides, over
        As for `axes.combinations`.
    output : Path, optional
        By default runs/NAME.

    Raises
    ------
    UserError
        As `axes.combinations`; or if files of others would be replaced.
    """
    found: dict[str, list[Combination]] = {}
    for one in axes.combinations(file, overrides, over):
        found.setdefault(axes.folder(one.apart), []).append(one)
    out = []
    for name, some in found.items():
        settings = axes.union(file, overrides, some)
        place = output or Path("runs", from_utf8(settings[0].name))
        out.append(Part(Run(place / name if name else place).asked(settings[0]), settings, some))
    for part in out:  # before hours of computing the others
        part.run.require_own()
    require_own(_folder(out), RESULT)
    return out


def place(given: Sequence[Part]) -> Path:
    """Return the folder of the whole sweep."""
    first = given[0]
    return first.run.path.parent if first.combinations[0].apart else first.run.path


def _folder(given: Sequence[Part]) -> Path:
    """Return the folder of a sweep's results."""
    return place(given) / "sweep"


class EarlierSolves:
    """The combinations that a run has solved already."""

    def __init__(self, run: Run):
        solves.settle(run)  # else a number may be given to another solve meanwhile
        self._run, self._fingerprints = run, dict[str, str]()
        self._known: dict[int, dict] = {}
        # A commit, or a version, does not identify an edited checkout.
        self._code = {"code": provenance.code(), "versions": provenance.versions()}

    def number(self, settings: Config) -> int | None:
        """Return the newest solve with these settings and images, by this code; None if there is none."""
        asked = _asked(settings)
        for number in reversed(solves.numbers(self._run)):
            if number not in self._known:
                try:
                    self._known[number] = solves.read_solve(self._run, number)
                except UserError:  # damaged: solved again
                    self._known[number] = {}
            found = self._known[number]
            if any(found.get(key) != ours for key, ours in self._code.items()):
                continue
            if _without_path(found.get("settings", {})) != asked:
                continue
            if found.get("data", {}).get("fingerprint") == self._fingerprint(settings):
                return number
        return None

    def _fingerprint(self, settings: Config) -> str:
        key = json.dumps(settings.sections("dataset", "preprocess"), sort_keys=True)
        if key not in self._fingerprints:
            self._fingerprints[key] = images.load(settings).fingerprint
        return self._fingerprints[key]


def _asked(settings: Config) -> dict:
    """Return the settings that a solve records, but the data's path: a digest identifies the data."""
    names = ("dataset", "preprocess", "kernel", "solve", *columns.section_names())
    return _without_path(record.plain(settings.sections(*names)))


def _without_path(settings: Mapping[str, Any]) -> dict:
    dataset = settings.get("dataset")
    plain = (
        {key: value for key, value in dataset.items() if key != "path"} if isinstance(dataset, dict) else {}
    )
    return {**settings, "dataset": plain}


def compared(made: Sequence[Solved]) -> tuple[list[alike.Alike], list[dict], Listing]:
    """Return a sweep's cells, their rows (`table.rows`), and their table with the choice of leave-one-out."""
    distinct = dict.fromkeys((one.run, one.number) for one in made)
    cells = alike.cells([entries.of_solve(run, number) for run, number in distinct])
    rows = rows_of(cells)
    table = listing(rows, loo=any(row["loo_error"] is not None for row in rows))
    chosen = [words for some in _by_training(cells) for words in _chosen(cells, rows, some)]
    return cells, rows, replace(table, notes=(*table.notes, *chosen))


def _by_training(cells: Sequence[alike.Alike]) -> list[list[int]]:
    """Group row numbers by training images and classes: their leave-one-out errors can be compared."""
    groups: list[list[int]] = []
    for row, one in enumerate(cells):
        fitting = (some for some in groups if _same_training(cells[some[0]].entries[0], one.entries[0]))
        group = next(fitting, None)
        if group is None:
            groups.append(group := [])
        group.append(row)
    return groups


def _same_training(first: Entry, second: Entry) -> bool:
    """Whether two solves have the same training images: in one run by index, else by `same_images`, too."""
    identities = []
    for data in (first.data, second.data):
        places = data.get("train_index") or data["fingerprint"]
        sizes = data["n_train"], data.get("draws")
        identities.append((data["name"], *sizes, data.get("classes_used"), places))
    here = first.run is not None and second.run is not None and first.run.path == second.run.path
    return identities[0] == identities[1] and (here or same_images.same_training(first, second))


def _chosen(cells: Sequence[alike.Alike], rows: Sequence[dict], some: Sequence[int]) -> list[str]:
    """Describe the row of least leave-one-out error; empty if there is nothing to choose."""
    known = [row for row in some if cells[row].trusted and rows[row]["loo_error"] is not None]
    known = [row for row in known if isfinite(rows[row]["loo_error"])]
    if len(known) < 2:
        return []
    best = rows[min(known, key=lambda row: rows[row]["loo_error"])]
    cell = name_of(best)
    ridge = "" if best["ridge"] is None else f", ridge {exact(best['ridge'])}"
    return [
        f"Least leave-one-out error of {len(known)} rows of {best['settings']['dataset.train']:,} training "
        f"images: {best['loo_error']:.5f}, {cell}{ridge} ({best['runs'][0]}), "
        f"accuracy {best['accuracy']:.2f}, s.e. {best['standard_error']:.2f}. The test images had no part in "
        "this choice."
    ]


def keep(
    given: Sequence[Part],
    made: Sequence[Solved],
    failed: Sequence[Failed],
    cells: Sequence[alike.Alike],
    rows: Sequence[dict],
    table: Listing,
) -> Path:
    """Write OUTPUT/sweep: each combination's solve, and the comparison; replaces an earlier sweep's."""
    folder = _folder(given)
    require_no_link(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove_partial(folder)

    def row(one: Solved | Failed) -> dict:
        return {"run": str(one.run.path.relative_to(place(given))), "values": dict(one.combination.values)}

    facts = {
        "format": FORMAT,
        "solves": [row(one) | {"solve": one.number} for one in made],
        "failed": [row(one) | {"reason": one.reason} for one in failed],
    }
    write_json(folder / RESULT, record.plain(facts))
    write_json(folder / "table.json", record.plain(list(rows)))
    for form, (suffix, _) in FORMATS.items():
        if form != "json":
            write_atomic(folder / f"table.{suffix}", written(table, form))
    names = [f"{one.run.path}@{one.number}" for one in made]
    compared_page.write(cells, ["compare", *names], folder, table=table)
    return folder


def label(one: Combination) -> str:
    """Format a combination as text."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in one.values.items())
