"""The solves to compare: those of runs, and records whose run directories are not here."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.grams import store
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.records import cells, record, solves
from cntk_bench.records.directory import Run
from cntk_bench.runs.solve import solved
from cntk_bench.system import paths
from cntk_bench.system.arrays import read_arrays
from cntk_bench.system.files import read_plain
from cntk_bench.text import short

MOST = 1000  # solves of one comparison
ARRAYS = {"predicted", "y_test", "draw", "repeat"}  # of a cell, that are compared


@dataclass(frozen=True)
class Entry:
    """One solve.

    label : its name in tables; for solves of a run the directory's name and @N.
    given : its path, as the caller gave it.
    record : as `record.load`, with the data and solutions of this solve.
    stage : the record's stage of the solve; empty if it has none.
    computed : the run's stages of computing, in order.
    run : the run directory; None for a record alone.
    folder : where its predictions are; None if they are not here.
    """

    label: str
    given: str
    record: dict
    stage: dict
    computed: tuple[dict, ...]
    run: Run | None = None
    folder: Path | None = None

    @property
    def data(self) -> dict:
        """The record's facts of the images."""
        return self.record["data"]

    @cached_property
    def test_index(self) -> np.ndarray | None:
        """Indices of the test images in the data set, (m,) int64; None if the record does not have them."""
        try:
            found = np.array(self.data["test_index"].split(), np.int64)
        except (KeyError, AttributeError, ValueError, OverflowError):
            return None
        return found if len(found) == self.data["n_test"] == len(np.unique(found)) else None

    @cached_property
    def stored(self) -> ImageFacts | None:
        """What the run's Gram store knows of the solve's images; None if there is none or it has others."""
        if self.run is None:
            return None
        try:
            if not self.run.gram.exists():
                return None
            known = store.open(self.run.gram).images(record.sizes(self.data))
        except (UserError, OSError):
            return None
        return known if known.digests is not None and known.fingerprint == self.data.get("images") else None

    def arrays(self, column: str, depth: int | None) -> dict[str, np.ndarray] | None:
        """Read a cell's predictions; None if they are not here or damaged.

        The arrays are predicted, y_test and, where there are several, draw and repeat. predicted is always
        (r, m), for r predictions of each test image.
        """
        if self.folder is None:
            return None
        try:
            found = read_arrays(self.folder / f"{cells.stem(column, depth)}.npz", ARRAYS.__contains__)
        except (OSError, ValueError):
            return None
        predicted, y = np.atleast_2d(found.get("predicted", np.empty(0))), found.get("y_test")
        m = self.data["n_test"]
        if y is None or y.shape != (m,) or predicted.ndim != 2 or predicted.shape[1] != m:
            return None
        if any(found[name].shape != predicted.shape[:1] for name in ("draw", "repeat") if name in found):
            return None
        return found | {"predicted": predicted}


def entries(given: Iterable[str]) -> list[Entry]:
    """Return the solves that are named, each once, in the order given.

    Parameters
    ----------
    given : iterable of str
        Each is RUN, a run directory, for its last solve; RUN@N, its solve N; RUN@all, all of its solves; or
        FILE, a record.json or a copy of one.

    Raises
    ------
    UserError
        If one is none of these, has no solves, or is damaged; or if there are more than `MOST`.
    """
    found: dict[tuple, Entry] = {}
    for text in given:
        for entry in _entries(text):
            place = entry.run.path.resolve() if entry.run else Path(entry.given).resolve()
            found.setdefault((place, entry.record.get("solve")), entry)
        if len(found) > MOST:
            raise UserError(f"{len(found):,} solves cannot be compared at once: name {MOST:,} at most")
    return _labelled(list(found.values()))


def of_solve(run: Run, number: int, given: str | None = None) -> Entry:
    """Return a run's solve of a number; UserError if it is missing or damaged."""
    past = solved(run, number)
    return Entry(
        f"{run.path.resolve().name}@{number}",
        f"{given or run.path}@{number}",
        past,
        solves.read_solve(run, number),
        _stages(past, "compute"),
        run,
        run.solves / str(number),
    )


def _entries(text: str) -> list[Entry]:
    path = Path(paths.expanded(text))
    named = re.fullmatch(r"(.+)@(\d{1,9}|all)", text)
    if not path.exists() and named:
        text, number = named.groups()
        run = Run(Path(paths.expanded(text)))
        record.load(run.record)  # says what is wrong if there is no run
        numbers = solves.numbers(run) if number == "all" else [int(number)]
        if not numbers:
            raise solves.none_now(run, text)
        return [of_solve(run, one, text) for one in numbers]
    if path.is_file() and not (path.name == "record.json" and (path.parent / "solves").is_dir()):
        return [_of_record(path, text)]
    run = Run(path.parent if path.is_file() else path)
    past = record.load(run.record)
    number = past.get("solve")
    if number in solves.numbers(run):
        return [of_solve(run, number, str(run.path))]
    return [_of_record(run.record, text)]


def _of_record(path: Path, text: str) -> Entry:
    """Return the entry of a record alone, whose predictions are elsewhere."""
    try:
        found = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not {"stages", "solutions", "data"} <= found.keys():
        raise UserError(
            f"{short(text)} is not the record of a run: give a run directory, RUN@N, or a record.json"
        )
    past = record.load(path)
    if not past["solutions"]:
        raise solves.none_now(Run(path.parent), text)
    made = [s for s in _stages(past, "solve") if s.get("solve", past.get("solve")) == past.get("solve")]
    name = path.resolve().parent.name if path.name == "record.json" else path.stem
    return Entry(name, text, past, made[-1] if made else {}, _stages(past, "compute"))


def _stages(past: dict, name: str) -> tuple[dict, ...]:
    return tuple(stage for stage in past["stages"] if stage["stage"] == name)


def _labelled(found: list[Entry]) -> list[Entry]:
    """Replace labels that are not unique by the whole path."""
    times = Counter(entry.label for entry in found)
    return [entry if times[entry.label] == 1 else replace(entry, label=short(entry.given)) for entry in found]
