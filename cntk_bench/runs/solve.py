"""The stage `solve`: every cell of a computed run, filled and scored."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from cntk_bench import columns, report
from cntk_bench.columns import Asked, Cell
from cntk_bench.errors import UserError
from cntk_bench.grams import growth, matrix, store
from cntk_bench.kernels.spec import Readout
from cntk_bench.regression import placement
from cntk_bench.regression.placement import Place
from cntk_bench.runs import draws, images, record, scoring
from cntk_bench.runs.config import Config
from cntk_bench.runs.directory import Run
from cntk_bench.runs.export import npz
from cntk_bench.runs.opened import require_same
from cntk_bench.runs.solves import keep_cell, new_solve, numbers, publish, read_solve, solved_cell, stem
from cntk_bench.system.files import write_whole
from cntk_bench.text import one_line, short

log = logging.getLogger(__name__)

# What a solution says of its own: a column's facts have other names.
SCORED = {
    "column",
    "depth",
    "accuracy",
    "standard_error",
    "accuracies",
    "spread",
    "undecided",
    "trusted",
    "draws",
}


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
    if settings.kernel.readouts:
        stage |= {"device": given.device, "precision": given.dtype}
    solutions = []
    asked = {"tool": stage["tool"], "settings": stage["settings"], "images": given.facts["fingerprint"]}
    columns.require(settings.kernel.columns, given.asked)
    with new_solve(run, asked) as folder, given:
        for name, depth in settings.kernel.cells:
            solution = solved_cell(folder, name, depth)  # by an earlier call, which was interrupted
            if solution is None:
                cells = [_filled(name, depth, given) for _ in given.each_draw()]
                scored = [_scored(cell, given.y_test) for cell in cells]
                whole = scored[0] if given.draws == 1 else draws.merged(scored, len(given.y_test))
                solution = record.plain({"column": name, "depth": depth, **whole})
                kept = [{**cell.arrays, "predicted": cell.predicted} for cell in cells]
                arrays = (kept[0] if given.draws == 1 else draws.together(kept)) | {"y_test": given.y_test}
                write_whole(folder / f"{stem(name, depth)}.npz", npz(arrays))
                keep_cell(folder, solution)
            solutions.append(solution)
            if progress is not None:
                progress((name, depth))
        stage |= {"seconds": time.perf_counter() - started}
        return publish(
            run, folder, record.plain(stage | {"data": given.facts, "solutions": solutions}), report.write
        )


def _filled(name: str, depth: int | None, given: "_Given") -> Cell:
    """A cell, checked: another package may have made it.

    Raises
    ------
    UserError
        If the column cannot fill it, or fills it with what is no cell.
    """
    where = "" if depth is None else f" at depth {depth}"
    try:
        cell = columns.find(name).fill(depth, given)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if not columns.is_foreign(name):
            raise
        reason = one_line(f"{type(error).__name__}: {error}", 120)
        raise UserError(f"column {name} failed{where} ({reason}): mend that package") from error
    predicted, own = np.asarray(cell.predicted), set(cell.facts) & SCORED
    rows = predicted.shape[:-1]
    if predicted.dtype.kind not in "iu" or predicted.ndim not in (1, 2) or 0 in rows:
        problem = f"predictions of shape {predicted.shape} and type {predicted.dtype}: integers are needed"
    elif predicted.shape[-1] != len(given.y_test):
        problem = f"predictions of shape {predicted.shape} for {len(given.y_test)} test images"
    elif predicted.min() < 0 or predicted.max() >= given.classes:
        problem = f"predictions outside 0 .. {given.classes - 1}"
    elif cell.repeat is not None and (len(rows) != 1 or len(cell.repeat) != rows[0]):
        problem = f"repeat {short(cell.repeat)} for predictions of shape {predicted.shape}"
    elif own:
        problem = f"a fact named {short(min(own))}, which whoever scores gives"
    else:
        return replace(cell, predicted=predicted)
    raise UserError(f"column {name} gives {problem}{where and f',{where}'}: mend the column")


class _Given:
    """What the columns of a run may draw upon (`columns.Given`): one draw of training images at a time."""

    def __init__(self, run: Run, settings: Config):
        self.settings, self.how = settings, settings.solve
        self.facts = record.computed(record.load(run.record))
        self._needed = settings.kernel.readouts
        self._grams: Any = store.open(run.gram) if self._needed else None
        asked = images.with_path(settings).sections("dataset", "preprocess")
        self._same = run.config().sections("dataset", "preprocess") == asked
        if not self._same:
            self.facts = images.facts(settings, self._loaded, self._kept)
        self.sizes, self.draws, self._draw = record.sizes(self.facts), record.draws(self.facts), 0
        self.classes = self.facts["classes"]
        if self._grams is None:
            self._labels, self.y_test = self._loaded.y_train, self._loaded.y_test
        else:
            if not self._same:
                growth.require_images(self._grams, images.asked(settings, self._loaded), self._kept)
            else:
                require_same(self._grams, self.facts, self.sizes)
            for readout in self._needed:  # says so now, not after hours, if one is not there
                matrix.require_done(self._grams, readout, self.sizes, self.draws)
            self._labels, self.y_test = self._grams.images(self.sizes).labels
        self.y_train = self._labels[self._images(0)]
        self._ahead: dict[Readout, Future] = {}
        if self._needed:  # says so now, not after hours, if there is not the memory
            _ = self.place

    def each_draw(self) -> Iterator[int]:
        """Every draw, d = 0, 1, ..., of which all else tells until the next."""
        for draw in range(self.draws):
            self._draw, self.y_train = draw, self._labels[self._images(draw)]
            yield draw

    def _images(self, draw: int) -> slice:
        """The training images of a draw."""
        n = self.facts["n_train"]
        return slice(draw * n, (draw + 1) * n)

    @cached_property
    def place(self) -> Place:
        """Where matrices are solved; asked for only by columns that have some."""
        place = placement.choose(
            len(self.y_train), classes=self.classes, device=self.how.device, dtype=self.how.precision,
            limit=self.how.memory,
        )  # fmt: skip
        log.info("solving on %s in %s, at most %.1f GiB", place.device, place.dtype, _gib(place))
        return place

    @property
    def device(self) -> str:
        """As `columns.Given`."""
        return self.place.device

    @property
    def dtype(self) -> str:
        """As `columns.Given`."""
        return self.place.dtype

    def __enter__(self):
        self._reader = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_):
        self._reader.shutdown(cancel_futures=True)

    def section(self, name: str) -> Any:
        """As `columns.Given`."""
        return self.settings.section(name)

    def asked(self) -> Asked:
        """What columns are told before anything is solved."""
        return images.told(self.settings, self._loaded)

    def train(self, readout: Readout) -> np.ndarray:
        """As `columns.Given`. For a GPU the next one is read while one is solved, where there is room."""
        found = self._ahead.pop(readout, None)
        loaded = found.result() if found else self._load(readout)
        following = self._needed[self._needed.index(readout) + 1 :]
        if following and self.draws == 1 and placement.room_ahead(self.place, len(self.y_train)):
            self._ahead[following[0]] = self._reader.submit(self._load, following[0])
        return loaded

    def _load(self, readout: Readout) -> np.ndarray:
        dtype = np.float32 if self.device == "cuda" else self.dtype
        draw = self._draw, self.draws
        return matrix.matrix(
            self._grams, "train", readout, dtype, triangle="lower", sizes=self.sizes, draw=draw
        )

    def test(self, readout: Readout) -> Iterable[np.ndarray]:
        """As `columns.Given`."""
        draw = self._draw, self.draws
        return (block for _, block in matrix.row_blocks(self._grams, readout, sizes=self.sizes, draw=draw))

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """As `columns.Given`."""
        return self._loaded.x_train[self._images(self._draw)], self._loaded.x_test

    @cached_property
    def _loaded(self):
        """The images, which must be those of the run: a file may have changed since."""
        loaded = images.load(self.settings)
        if self._same and loaded.fingerprint != self.facts["fingerprint"]:
            raise UserError(
                f"the images of {short(self.settings.dataset.name)} are not those that the run's record.json "
                "tells of: give the same data, or compute again into another output directory"
            )
        return loaded

    @cached_property
    def _kept(self):
        return images.kept(self._loaded)


def _gib(place: Place) -> float:
    return (place.host + place.gpu) / 2**30


def _scored(cell: Cell, y_test: np.ndarray) -> dict[str, Any]:
    """Accuracy and its standard error, and whether they can be trusted, before what the column says."""
    right = np.atleast_2d(cell.predicted == y_test)  # (r, m)
    accuracy, error = scoring.accuracy(right)
    score: dict[str, Any] = {"accuracy": accuracy, "standard_error": error}
    if cell.predicted.ndim == 2:
        repeat = np.arange(len(right)) if cell.repeat is None else np.array(cell.repeat)
        means = [100 * right[repeat == one].mean() for one in np.unique(repeat)]
        score |= {"accuracies": means, "spread": float(np.std(means, ddof=1)) if len(means) > 1 else None}
    n, doubt = right.shape[1], cell.facts.get("doubt")
    undecided = 100 * cell.undecided / n
    unsure = scoring.doubt(cell.undecided, error, n)
    if doubt is None and unsure is not None:
        doubt = f"{unsure}; raise solve.ridge"
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
