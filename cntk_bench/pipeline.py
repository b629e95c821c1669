"""One experiment, from top to bottom: data, Gram matrices, solutions, report.

A run directory holds what a run was asked (config.yaml), what it did (record.json), its Gram
matrices (gram.zarr), its solutions and its report: enough to go on after an interruption, to
solve again without computing a kernel, and to redo it all.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cntk_bench import backends, config, data, gramian, record, report, ridge, store, verification
from cntk_bench.backends import Backend
from cntk_bench.config import Config
from cntk_bench.data import Dataset
from cntk_bench.errors import UserError, writing
from cntk_bench.spec import Spec
from cntk_bench.tiles import Plan

log = logging.getLogger(__name__)

FETCHED = "data"  # where official data sets are kept when the config names no path


@dataclass(frozen=True)
class Run:
    """A run directory, by its path."""

    path: Path

    @property
    def gram(self) -> Path:
        """The Gram store."""
        return self.path / "gram.zarr"

    @property
    def record(self) -> Path:
        """The record of what was done."""
        return self.path / "record.json"

    @property
    def solutions(self) -> Path:
        """Dual coefficients and predictions, one .npz file a column and depth."""
        return self.path / "solutions"

    def config(self, overrides=()) -> Config:
        """The config the run was computed with; UserError if the directory is not a run's."""
        path = self.path / "config.yaml"
        if not path.exists():
            raise UserError(
                f"{self.path} is not a run directory (no config.yaml): give the --output of a run"
            )
        return config.load(path, overrides)


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
    asked = settings.model_dump()
    if settings.path is None and settings.name in data.FETCHABLE:
        asked["path"] = FETCHED
    return data.load(asked.pop("name"), **asked)


def cut(settings: Config, images: Dataset, backend: str) -> tuple[Spec, Plan]:
    """What is computed for a config, and how it is cut into tiles for a backend."""
    spec = Spec(settings.kernel.readouts, *images.x_train.shape[1:3])
    tile = None if settings.compute.tile == "auto" else settings.compute.tile
    return spec, gramian.make_plan(spec, len(images.x_train), len(images.x_test), backend, tile)


def compute(settings: Config, run: Run, progress: Callable | None = None) -> None:
    """Compute what is missing of a run's Gram matrices; makes the run if there is none.

    Parameters
    ----------
    settings : Config
    run : Run
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
    attributes = _attributes(spec, images, settings, backend)
    labels = images.y_train, images.y_test
    grams = store.ensure(run.gram, tiles, attributes, labels)
    with grams.lock():  # refuses a second run before it can change what the first one reads
        _remember(settings, run, images)
    report_tile = progress and progress(tiles, grams.missing())
    gramian.compute(grams, backend, images.x_train, images.x_test, report_tile)
    seconds = sum(done.seconds for done in grams.done.values())
    timing = {"seconds": seconds, "pairs": tiles.pairs, "backend": backend.name}
    record.save(record.with_timing(record.load(run.record), "compute", **timing), run.record)


def backend_name(asked: str, run: Run) -> str:
    """The backend asked for; for "auto", the one that a run was begun with, if it was."""
    if asked == "auto" and (run.gram / "zarr.json").exists():
        asked = store.open(run.gram).attributes["backend"]
        if asked in backends.NAMES and asked not in backends.available():
            raise UserError(
                f"{run.path} was begun with the {asked} backend, which does not work here: go on where it "
                "does, or begin another run"
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
        "source": backend.source,
    }


def _remember(settings: Config, run: Run, images: Dataset) -> None:
    """Write the config, and a record unless the run has one already."""
    _keep_config(settings, run)
    facts = {
        "name": images.name,
        "fingerprint": images.fingerprint,
        "n_train": len(images.x_train),
        "n_test": len(images.x_test),
        "classes": images.classes,
        "preprocess": settings.dataset.preprocess,
    }
    asked = settings.model_dump(mode="json")
    if run.record.exists():
        new = record.load(run.record) | {"name": settings.name, "config": asked}
    else:
        new = record.start(asked, facts)
    record.save(new, run.record)


def _keep_config(settings: Config, run: Run) -> None:
    """Write config.yaml, whole or not at all; its data path holds from any working directory."""
    path = settings.dataset.path
    if path is None and settings.dataset.name in data.FETCHABLE:
        path = FETCHED
    if path is not None:
        found = settings.dataset.model_copy(update={"path": str(Path(path).expanduser().absolute())})
        settings = settings.model_copy(update={"dataset": found})
    with writing(run.path):
        new = run.path / "config.yaml.new"
        new.write_text(config.dump(settings))
        new.replace(run.path / "config.yaml")


def solve(run: Run, settings: Config, progress: Callable | None = None) -> None:
    """Solve every column and depth of a computed run, and score each on the test set once.

    Parameters
    ----------
    run : Run
    settings : Config
        The run's, whose section `solve` may have changed since.
    progress : callable, optional
        Called with (column, depth) once it is solved.
    """
    started = time.perf_counter()
    past = record.load(run.record)
    how, cells, classes = settings.solve, settings.kernel.cells, past["data"]["classes"]
    grams = store.open(run.gram)
    y_train, y_test = grams.labels
    place = ridge.place(len(y_train), classes=classes, device=how.device, dtype=how.precision)
    log.info(
        "solving on %s in %s, at most %.1f GiB", place.device, place.dtype, (place.host + place.gpu) / 2**30
    )
    solutions = []
    for index, (column, depth) in enumerate(cells):
        matrix = grams.matrix("train", index, np.float32 if place.device == "cuda" else place.dtype)
        solution = ridge.solve(
            matrix,
            y_train,
            classes=classes,
            ridge=how.ridge,
            device=place.device,
            dtype=place.dtype,
            overwrite=True,
        )
        predicted = ridge.predict(solution.alpha, (block for _, block in grams.row_blocks(index)))
        with writing(run.path):
            run.solutions.mkdir(exist_ok=True)
            np.savez(
                run.solutions / f"{column}-{depth}.npz",
                alpha=solution.alpha,
                predicted=predicted,
                y_test=y_test,
                ridge=solution.chosen.ridge + solution.chosen.jitter,
            )
        solutions.append(
            {"column": column, "depth": depth, "accuracy": 100 * float((predicted == y_test).mean())}
            | asdict(solution.chosen)
            | {"path": [asdict(fit) for fit in solution.path]}
        )
        if progress is not None:
            progress((column, depth))
    seconds = time.perf_counter() - started
    used = past["config"] | {"solve": how.model_dump(mode="json")}
    timing = {"seconds": seconds, "device": place.device, "precision": place.dtype}
    past = record.with_timing(past | {"config": used}, "solve", **timing)
    past = record.with_solutions(past, solutions)
    _keep_config(settings, run)
    record.save(past, run.record)
    report.write(past, run.path / "report")


def verify(settings: Config, run: Run, sample: int, repair: bool, progress: Callable | None = None):
    """Check a run's store; with `repair`, compute damaged tiles anew and check again.

    Parameters
    ----------
    settings : Config
        The run's; only its data path may have changed since.
    run : Run
    sample : int
        Pairs to recompute in float64.
    repair : bool
    progress : callable, optional
        Called after each tile checked and each pair recomputed.

    Returns
    -------
    Verification
    """
    grams = store.open(run.gram)
    x_train = x_test = None
    if sample or repair:
        images = load(settings.dataset)
        grams.require({"data": images.fingerprint})
        x_train, x_test = images.x_train, images.x_test
    if repair:
        name = backend_name("auto", run)
        spec, tiles = cut(settings, images, name)
        backend = backends.create(name, spec)
        attributes = _attributes(spec, images, settings, backend)
        grams = store.ensure(run.gram, tiles, attributes, (images.y_train, images.y_test))
    _ = grams.labels  # damaged ones are an error
    readouts = settings.kernel.readouts
    found = verification.verify(grams, readouts, x_train, x_test, sample=sample, progress=progress)
    if found.damaged and repair:
        gramian.repair(grams, found.damaged, backend, x_train, x_test)
        found = verification.verify(grams, readouts, x_train, x_test, sample=sample, progress=progress)
    return found
