"""The stage `solve`: every cell of a computed run, filled and scored."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench import columns, report
from cntk_bench.columns import Cell
from cntk_bench.errors import UserError
from cntk_bench.grams import growth, matrix, store
from cntk_bench.grams.store import Store
from cntk_bench.kernels.spec import Readout
from cntk_bench.regression import placement
from cntk_bench.regression.placement import Place
from cntk_bench.runs import candidates, images, record
from cntk_bench.runs.config import Config
from cntk_bench.runs.directory import Run
from cntk_bench.runs.export import npz
from cntk_bench.runs.material import jobs
from cntk_bench.runs.solves import new_solve, numbers, publish, read_solve
from cntk_bench.runs.train import require_trained
from cntk_bench.system.files import write_whole
from cntk_bench.text import short

log = logging.getLogger(__name__)


def solve(run: Run, settings: Config, progress: Callable | None = None) -> dict:
    """Fill every cell of a computed run, and score each on the test set once.

    Parameters
    ----------
    run : Run
    settings : Config
        The run's, or one that asks for less of it: fewer images, columns or depths. Its section
        `solve` may have changed.
    progress : callable, optional
        Called with (column, depth) once it is solved.

    Returns
    -------
    dict
        The run's record, with this solve's number, data and solutions.

    Raises
    ------
    UserError
        If something of it was not computed yet, or cannot be solved.
    """
    started = time.perf_counter()
    given = _Given(run, settings)
    stage = record.stage(
        "solve", settings.sections("dataset", "preprocess", "kernel", "solve", *columns.section_names())
    )
    stage |= {"device": given.device, "precision": given.dtype}
    solutions = []
    with new_solve(run) as folder, given:
        for name, depth in settings.kernel.cells:
            filled = columns.find(name).fill(depth, given)
            cell, score = candidates.shown(filled, given.y_test, _scored)
            arrays = {**cell.arrays, "predicted": cell.predicted, "y_test": given.y_test}
            write_whole(folder / f"{name}-{depth}.npz", npz(arrays))
            for of, curve in filled.curves.items():
                drawn = candidates.drawn(curve, given.y_test, given.classes)
                write_whole(folder / f"{name}-{depth}-curve-{of}.json", drawn)
            solutions.append({"column": name, "depth": depth, **score})
            if progress is not None:
                progress((name, depth))
        stage |= {"seconds": time.perf_counter() - started}
        return publish(
            run, folder, record.plain(stage | {"data": given.facts, "solutions": solutions}), report.write
        )


class _Given:
    """What the columns of a run may draw upon (`columns.Given`)."""

    def __init__(self, run: Run, settings: Config):
        self.settings, self.how, self._run = settings, settings.solve, run
        self.facts = record.computed(record.load(run.record))
        self._needed = settings.kernel.readouts
        self._grams: Any = store.open(run.gram) if self._needed else None
        same = run.config().sections("dataset", "preprocess") == images.with_path(settings).sections(
            "dataset", "preprocess"
        )
        if not same:
            self.facts = images.facts(settings, self._loaded, self._kept)
        self.sizes = self.facts["n_train"], self.facts["n_test"]
        self.classes = self.facts["classes"]
        if self._grams is None:
            self.y_train, self.y_test = self._loaded.y_train, self._loaded.y_test
        else:
            if not same:
                growth.require_images(self._grams, images.asked(settings, self._loaded), self._kept)
            else:
                _require_same(self._grams, self.facts, self.sizes)
            for readout in self._needed:  # says so now, not after hours, if one is not there
                matrix.require_done(self._grams, readout, self.sizes)
            self.y_train, self.y_test = self._grams.images(self.sizes).labels
        for name, depth, some in jobs(settings, self):  # this, too
            require_trained(name, depth, some)
        place = placement.choose(
            len(self.y_train), classes=self.classes, device=self.how.device, dtype=self.how.precision,
            limit=self.how.memory,
        )  # fmt: skip
        log.info("solving on %s in %s, at most %.1f GiB", place.device, place.dtype, _gib(place))
        self.device, self.dtype, self._place = place.device, place.dtype, place
        self._ahead: dict[Readout, Future] = {}

    def __enter__(self):
        self._reader = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_):
        self._reader.shutdown(cancel_futures=True)

    def section(self, name: str) -> Any:
        """As `columns.Given`."""
        return self.settings.section(name)

    def train(self, readout: Readout) -> np.ndarray:
        """As `columns.Given`. For a GPU the next one is read while one is solved, where there is room."""
        found = self._ahead.pop(readout, None)
        loaded = found.result() if found else self._load(readout)
        following = self._needed[self._needed.index(readout) + 1 :]
        if following and placement.room_ahead(self._place, len(self.y_train)):
            self._ahead[following[0]] = self._reader.submit(self._load, following[0])
        return loaded

    def _load(self, readout: Readout) -> np.ndarray:
        dtype = np.float32 if self.device == "cuda" else self.dtype
        return matrix.matrix(self._grams, "train", readout, dtype, triangle="lower", sizes=self.sizes)

    def test(self, readout: Readout) -> Iterable[np.ndarray]:
        """As `columns.Given`."""
        return (block for _, block in matrix.row_blocks(self._grams, readout, sizes=self.sizes))

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """As `columns.Given`."""
        return self._loaded.x_train, self._loaded.x_test

    def fingerprint(self) -> str:
        """As `columns.Material`."""
        return self.facts.get("images") or str(self._kept.fingerprint)

    def folder(self, name: str, depth: int) -> Path:
        """As `columns.Material`."""
        return self._run.networks / f"{name}-{depth}"

    @cached_property
    def _loaded(self):
        return images.load(self.settings)

    @cached_property
    def _kept(self):
        return images.kept(self._loaded)


def _require_same(grams: Store, facts: dict, sizes: tuple[int, int]) -> None:
    """Refuse a store of other images than the record says; of format 1, whose images have no digests, too."""
    here, there = facts.get("images"), grams.images(sizes).fingerprint
    if here is None or there is None:
        here, there = facts["fingerprint"], grams.attributes.get("data", facts["fingerprint"])
    if here != there:
        raise UserError(
            f"{short(str(grams.path))} holds another computation: its images are not those that the run's "
            "record.json tells of: run `compute` again"
        )


def _gib(place: Place) -> float:
    return (place.host + place.gpu) / 2**30


def _scored(cell: Cell, y_test: np.ndarray) -> dict[str, Any]:
    """Accuracy and its standard error, and whether they can be trusted, before what the column says."""
    n = len(y_test)
    if not len(cell.predicted):
        return {"accuracy": None, "standard_error": None, **cell.facts} | {"undecided": 0.0, "trusted": False}
    right = np.atleast_2d(cell.predicted == y_test)  # (r, m)
    share = float(right.mean())
    # The standard error of a share of n independent images; both in percent.
    error = 100 * (share * (1 - share) / n) ** 0.5
    score: dict[str, Any] = {"accuracy": 100 * share, "standard_error": error}
    if cell.predicted.ndim == 2:
        repeat = np.arange(len(right)) if cell.repeat is None else np.array(cell.repeat)
        means = [100 * right[repeat == one].mean() for one in np.unique(repeat)]
        score |= {"accuracies": means, "spread": float(np.std(means, ddof=1)) if len(means) > 1 else None}
    doubt, undecided = cell.facts.get("doubt"), 100 * cell.undecided / n
    if doubt is None and undecided > max(2 * error, 100 / n):
        doubt = (
            f"the errors of stored kernels alone could change the class of {undecided:.3g} % of the test "
            "images; raise solve.ridge"
        )
    return {**score, **cell.facts} | {"undecided": undecided, "trusted": doubt is None, "doubt": doubt}


def solves(run: Run) -> list[dict]:
    """What solve.json says of every solve of a run, in the order in which they were made.

    Of a solve whose file is damaged: its number, and "damaged", why.
    """
    found = []
    for number in numbers(run):
        try:
            found.append(read_solve(run, number))
        except UserError as error:
            found.append({"solve": number, "damaged": str(error)})
    return found


def solved(run: Run, number: int | None = None) -> dict:
    """The run's record with the data and solutions of one of its solves; by default of the last."""
    past = record.load(run.record)
    if number is None:
        return past
    found = read_solve(run, number)
    return record.with_solutions(past | {"data": found.get("data", past["data"])}, number, found["solutions"])


def doubtful(solutions: Sequence[dict]) -> list[dict]:
    """Those that are not to be trusted."""
    return [solution for solution in solutions if not solution.get("trusted", True)]
