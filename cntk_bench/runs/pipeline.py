"""One experiment, from top to bottom: data, Gram matrices, solutions, report.

A run directory (`run`) holds enough to go on after an interruption, to solve again without computing
a kernel, and to redo it all.
"""

import io
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from cntk_bench import backends, columns, data, report
from cntk_bench.backends import Backend
from cntk_bench.data import Dataset
from cntk_bench.errors import UserError
from cntk_bench.grams import gramian, store, verification
from cntk_bench.grams.store import Store
from cntk_bench.grams.tiles import Plan
from cntk_bench.grams.verification import Verification
from cntk_bench.kernels.spec import Readout, Spec
from cntk_bench.regression import placement, ridge
from cntk_bench.runs import config, record
from cntk_bench.runs.config import Config
from cntk_bench.runs.directory import Run, new_solve, numbers, publish, read_solve
from cntk_bench.system.files import write_whole, writing
from cntk_bench.text import short

log = logging.getLogger(__name__)

FETCHED = "data"  # where official data sets are kept when the config names no path


def fetch(name: str, path: str | None, progress: bool = False) -> Path | None:
    """Download an official data set, unless it is there; returns its folder. None: nothing to fetch."""
    data.require_known(name)
    if name not in data.FETCHABLE or Path(path or "").suffix == ".npz":
        return None
    folder = Path(path or FETCHED)
    data.fetch(name, folder, progress)
    return folder


def load(settings: config.Dataset) -> Dataset:
    """The images and labels a config asks for."""
    asked = {key: value for key, value in settings.model_dump().items() if value is not None}
    if settings.path is None and settings.name in data.FETCHABLE:
        asked["path"] = FETCHED
    return data.load(asked.pop("name"), **asked)


def cut(settings: Config, images: Dataset, backend: str) -> tuple[Spec, Plan]:
    """What is computed for a config, and how it is cut into tiles for a backend."""
    spec = Spec(settings.kernel.readouts, *images.x_train.shape[1:3])
    tile = None if settings.compute.tile == "auto" else settings.compute.tile
    return spec, gramian.make_plan(spec, len(images.x_train), len(images.x_test), backend, tile)


def compute(run: Run, settings: Config, progress: Callable | None = None) -> None:
    """Compute what is missing of a run's Gram matrices; makes the run if there is none.

    Parameters
    ----------
    run : Run
    settings : Config
    progress : callable, optional
        Given the store's plan and the missing tiles, returns what `gramian.compute` calls with each
        tile stored.

    Raises
    ------
    UserError
        If the run is of another configuration, or anything else is in the way.
    """
    name = backend_name(settings.compute.backend, run)
    images = load(settings.dataset)
    spec, tiles = cut(settings, images, name)
    if tiles.n_train < 2:
        raise UserError("dataset.train is 1: a regression needs at least 2 images")
    backend = backends.create(name, spec)
    log.info("%d tiles of side %d on %s", len(tiles.tiles()), tiles.tile, backend.name)
    with writing(run.path):
        run.path.mkdir(parents=True, exist_ok=True)
    with run.lock():
        grams = _ensure(run, settings, images, spec, tiles, backend)
        with grams.lock():
            missing = grams.missing()
            stage = record.stage("compute", _sections(settings, "dataset", "kernel", "compute"))
            stage |= {"backend": backend.name, "numerics": grams.attributes["numerics"]}
            stage |= {"source": backend.source}  # for information: what decides is the numerics version
            _begin(run, settings, _facts(settings, images), stage if missing else None)
            report_tile = progress and progress(tiles, missing)
            started = time.perf_counter()
            try:
                gramian.compute(grams, backend, images.x_train, images.x_test, report_tile)
            finally:  # however it ends: the tiles finished until then are kept
                if missing:
                    done = sum(tile.pairs(tiles) for tile in missing if tile in grams.done)
                    stage |= {"seconds": time.perf_counter() - started, "pairs": done}
                    run.update(lambda past: record.with_stage(past, stage))


def _ensure(run: Run, settings: Config, images: Dataset, spec: Spec, tiles: Plan, backend: Backend) -> Store:
    """The run's store, made if there is none."""
    attributes = _attributes(spec, images, settings, backend)
    indices = images.train_index, images.test_index
    return store.ensure(run.gram, tiles, attributes, (images.y_train, images.y_test), indices)


def backend_name(asked: str, run: Run) -> str:
    """The backend asked for; for "auto", the one that a run was begun with, if it was."""
    if asked == "auto" and (run.gram / "zarr.json").exists():
        asked = store.open(run.gram).attributes["backend"]
        if asked in backends.NAMES and asked not in backends.available():
            raise UserError(
                f"{short(str(run.path))} was begun with the {asked} backend, which does not work here: "
                "go on where it does, or begin another run"
            )
    return backends.choose(asked)


def _attributes(spec: Spec, images: Dataset, settings: Config, backend: Backend) -> dict:
    """What decides the bits of a store: two runs with equal attributes give equal stores."""
    return {
        "readouts": [str(readout) for readout in spec.readouts],
        "data": images.fingerprint,
        "preprocess": settings.dataset.preprocess,
        "dtype": "float32",
        "backend": backend.name,
        "numerics": backend.numerics,
    }


def _sections(settings: Config, *names: str) -> dict:
    return {name: value for name, value in settings.model_dump(mode="json").items() if name in names}


def _facts(settings: Config, images: Dataset) -> dict:
    """What a record says of the images used."""
    return {
        "name": images.name,
        "fingerprint": images.fingerprint,
        "n_train": len(images.x_train),
        "n_test": len(images.x_test),
        "classes": images.classes,
        "preprocess": settings.dataset.preprocess,
        "train_index": " ".join(map(str, images.train_index)),
        "test_index": " ".join(map(str, images.test_index)),
    } | ({"classes_used": list(images.classes_used)} if images.classes_used else {})


def _begin(run: Run, settings: Config, facts: dict, stage: dict | None) -> None:
    """Write the config, and the record with a stage that begins; needs the run's lock."""
    path = settings.dataset.path
    if path is None and settings.dataset.name in data.FETCHABLE:
        path = FETCHED
    if path is not None:  # it must hold from any working directory
        found = settings.dataset.model_copy(update={"path": str(Path(path).expanduser().absolute())})
        settings = settings.model_copy(update={"dataset": found})
    past = record.load(run.record) if run.record.exists() else record.start(settings.name, facts)
    if past["data"]["fingerprint"] != facts["fingerprint"]:  # another Gram store has taken the place
        past = record.start(settings.name, facts) | {"stages": past["stages"]}
    past |= {"name": settings.name}
    write_whole(run.path / "config.yaml", config.dump(settings))
    record.save(record.with_stage(past, stage) if stage else past, run.record)


def solve(run: Run, settings: Config, progress: Callable | None = None) -> dict:
    """Solve every column and depth of a computed run, and score each on the test set once.

    Parameters
    ----------
    run : Run
    settings : Config
        The run's, whose section `solve` may have changed since.
    progress : callable, optional
        Called with (column, depth) once it is solved.

    Returns
    -------
    dict
        The run's record, with this solve's number and solutions.

    Raises
    ------
    UserError
        If something of it was not computed yet, or cannot be solved.
    """
    started = time.perf_counter()
    facts, how = record.load(run.record)["data"], settings.solve
    grams = store.open(run.gram)
    grams.require({"data": facts["fingerprint"]})
    cells = {cell: columns.readout(*cell) for cell in settings.kernel.cells}
    for readout in cells.values():
        grams.index(readout)  # says so now, not after hours, if one is not there
    y_train, y_test = grams.labels
    n, classes = len(y_train), facts["classes"]
    place = placement.choose(n, classes=classes, device=how.device, dtype=how.precision, limit=how.memory)
    log.info(
        "solving on %s in %s, at most %.1f GiB", place.device, place.dtype, (place.host + place.gpu) / 2**30
    )
    stage = record.stage("solve", _sections(settings, "kernel", "solve"))
    stage |= {"device": place.device, "precision": place.dtype}
    solutions = []
    with new_solve(run) as folder:
        for ((column, depth), readout), matrix in zip(
            cells.items(), _matrices(grams, cells, place), strict=True
        ):
            solution = ridge.solve(
                matrix,
                y_train,
                classes=classes,
                ridge=how.ridge,
                device=place.device,
                dtype=place.dtype,
                overwrite=True,
            )
            del matrix
            found = ridge.predict(solution.alpha, (block for _, block in grams.row_blocks(readout)))
            added = solution.chosen.ridge + solution.chosen.jitter
            arrays = {"alpha": solution.alpha, "predicted": found.classes, "y_test": y_test, "ridge": added}
            write_whole(folder / f"{column}-{depth}.npz", _npz(arrays))
            cell = {"column": column, "depth": depth, **_score(found.classes == y_test)}
            solutions.append(cell | asdict(solution.chosen) | _trust(solution, found, cell, len(y_test)))
            if progress is not None:
                progress((column, depth))
        stage |= {"seconds": time.perf_counter() - started}
        return publish(
            run, folder, record.plain(stage | {"data": facts, "solutions": solutions}), report.write
        )


def _matrices(grams: Store, cells: dict, place: placement.Place) -> Iterator[np.ndarray]:
    """The lower triangles of the cells' train x train matrices, one after another.

    For a GPU the next one is read from the disk while one is solved, where there is room for two.
    """
    dtype = np.float32 if place.device == "cuda" else place.dtype

    def load(readout: Readout) -> np.ndarray:
        return grams.matrix("train", readout, dtype, triangle="lower")

    if not placement.room_ahead(place, grams.plan.n_train):
        yield from map(load, cells.values())
        return
    with ThreadPoolExecutor(1) as reader:
        ahead: deque = deque()
        for readout in cells.values():
            ahead.append(reader.submit(load, readout))
            if len(ahead) == 2:
                yield ahead.popleft().result()
        yield ahead.popleft().result()


def _trust(solution: ridge.Solution, found: ridge.Prediction, cell: dict, n_test: int) -> dict:
    """Whether the accuracy of a cell can be trusted, and what else a reader must know of it."""
    doubt, undecided = solution.chosen.doubt, 100 * found.undecided / n_test
    if doubt is None and undecided > max(2 * cell["standard_error"], 100 / n_test):
        doubt = (
            f"the errors of stored kernels alone could change the class of {undecided:.3g} % of the test "
            "images; raise solve.ridge"
        )
    return {
        "undecided": undecided,
        "trusted": doubt is None,
        "doubt": doubt,
        "edge": solution.edge,
        "path": [asdict(fit) for fit in solution.path],
    }


def _score(right: np.ndarray) -> dict[str, float]:
    """Accuracy, and the standard error of a share of n independent images: both in percent."""
    share = float(right.mean())
    return {"accuracy": 100 * share, "standard_error": 100 * (share * (1 - share) / len(right)) ** 0.5}


def _npz(arrays: dict) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def solves(run: Run) -> list[dict]:
    """What solve.json says of every solve of a run, in the order in which they were made."""
    return [read_solve(run, number) for number in numbers(run)]


def solved(run: Run, number: int | None = None) -> dict:
    """The run's record with the solutions of one of its solves; by default of the last."""
    past = record.load(run.record)
    if number is None:
        return past
    found = read_solve(run, number)
    return record.with_solutions(past | {"data": found.get("data", past["data"])}, number, found["solutions"])


def verify(
    run: Run, settings: Config, sample: int, repair: bool, progress: Callable | None = None
) -> Verification:
    """Check a run's store; with `repair`, compute damaged tiles anew and check again.

    Parameters
    ----------
    run : Run
    settings : Config
        The run's; only its data path may have changed since.
    sample : int
        Pairs to recompute in float64.
    repair : bool
    progress : callable, optional
        Called after each tile checked and each pair recomputed.
    """
    grams = store.open(run.gram)
    images = None
    if sample or repair:
        images = load(settings.dataset)
        grams.require({"data": images.fingerprint})
    if not repair:
        return _check(grams, images, sample, progress)
    assert images is not None
    name = backend_name("auto", run)
    spec, tiles = cut(settings, images, name)
    backend = backends.create(name, spec)
    with run.lock():
        grams = _ensure(run, settings, images, spec, tiles, backend)
        found = _check(grams, images, sample, progress)
        if found.damaged:
            started, stage = time.perf_counter(), record.stage("repair", _sections(settings, "dataset"))
            gramian.repair(grams, found.damaged, backend, images.x_train, images.x_test)
            stage |= {"seconds": time.perf_counter() - started, "backend": backend.name}
            stage |= {"pairs": sum(tile.pairs(tiles) for tile in found.damaged)}
            if run.record.exists():
                run.update(lambda past: record.with_stage(past, stage))
            found = _check(grams, images, sample, progress)
    return found


def _check(grams: Store, images: Dataset | None, sample: int, progress: Callable | None) -> Verification:
    _ = grams.labels  # damaged ones are an error
    x = (images.x_train, images.x_test) if images else (None, None)
    return verification.verify(grams, *x, sample=sample, progress=progress)
