"""The stage `compute`: compute what a run's Gram matrices lack."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from cntk_bench import backends, columns, regression
from cntk_bench.config import config, yaml12
from cntk_bench.config.config import Config
from cntk_bench.data import Dataset
from cntk_bench.errors import UserError
from cntk_bench.grams import compute as grams
from cntk_bench.grams import description, growth, store
from cntk_bench.grams.compute import Job, Task
from cntk_bench.grams.donor import Donor
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.store import Store
from cntk_bench.grams.tiles import Plan
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.runs import images, stored, workers
from cntk_bench.system import log as logs
from cntk_bench.system import memory
from cntk_bench.system.files import remove_partial, write_atomic, writing
from cntk_bench.text import short

log = logging.getLogger(__name__)


def compute(
    run: Run,
    settings: Config,
    progress: Callable[[Plan, list[Task]], Callable[[Task], None]] | None = None,
    donor: Run | None = None,
    shard: tuple[int, int] = (1, 1),
) -> None:
    """Compute what a run's Gram matrices lack; make the run if there is none.

    A run that holds fewer images or readouts grows; if it holds more, these are kept.

    Parameters
    ----------
    run : Run
    settings : Config
    progress : callable, optional
        Takes the store's plan and the tasks to do; returns a function that is called with each stored task.
    donor : Run, optional
        Another run, from which equal numbers are taken.
    shard : (i, n)
        Compute only the i-th of n shares of the tiles, from 1; other processes do the others.

    Raises
    ------
    UserError
        If the run is of another computation, the directory has files of others that would be replaced, or it
        cannot be computed.
    """
    run.require_own()
    before, run = Run(run.path), run.asked(settings)
    donor = donor and donor.elsewhere(run)
    if settings.kernel.readouts:
        run.require_gram()
        _tell_moved(before, run)
    workers.require(settings.compute)
    regression.require(settings.solve.solver)  # if it is unknown, fail now, not after hours
    loaded = images.load(settings)
    images.require_several(len(loaded.x_train) // loaded.draws)
    columns.require(settings.kernel.columns, lambda: images.request(settings, loaded))
    kept = images.image_facts(loaded)
    facts = images.record_facts(settings, loaded, kept)
    if not settings.kernel.readouts:
        make(run)
        begin(run, settings, facts, None)
        return
    spec = stored.spec_of(settings, loaded)
    name = stored.backend_name(settings.compute.backend, run, spec)
    there, plan = description.exists(run.gram), stored.cut(spec, settings, loaded, name, run, donor)
    create = partial(backends.create, name)
    backend = create(spec)  # fails now if it cannot run
    asked = stored.attributes(spec, settings, loaded, name)
    other = _donor(donor, settings, asked, kept) if donor else None
    make(run)
    with run.lock(math.inf):
        stored.convert(run, settings, loaded)
        if not there and description.exists(run.gram):  # another process has begun it since, with its tiles
            plan = stored.cut(spec, settings, loaded, name, run, donor)
        target = growth.ensure(run.gram, plan, asked, kept)
    wanted, sizes = tuple(map(target.index, spec.readouts)), (plan.n_train, plan.n_test)
    tasks = list(grams.pending(target, wanted, sizes, (0, 1), loaded.draws, shard))
    if plan.wasted:
        log.info("%d of %d pairs are of two draws: %d is no divisor", plan.wasted, plan.pairs, plan.tile)
    executor, crew, threads = workers.chosen(settings.compute, name)
    crew = replace(crew, places=crew.places[: max(1, len(tasks))])
    log.info(
        "%d tiles of side %d to compute on %s, executor %s of %d", len(tasks), plan.tile, name, executor,
        len(crew.places),
    )  # fmt: skip
    if other and tasks:
        _foretell(other, target, tasks)
    stage = record.stage("compute", settings.sections("dataset", "preprocess", "kernel", "compute"))
    stage |= {"backend": name, **backends.versions(name, spec)}
    stage |= {"source": backend.source}  # for information only: numerics is what counts
    stage |= {"executor": executor, "workers": len(crew.places)}
    stage |= {} if shard == (1, 1) else {"shard": list(shard)}
    stage |= {"taken_from": str(donor.path.absolute())} if donor else {}
    begin(run, settings, facts, stage if tasks else None)
    if not tasks:
        return
    report = progress and progress(target.plan, tasks)
    finished, started = [], time.perf_counter()

    def done(task: Task) -> None:
        finished.append(task)
        if report:
            report(task)

    def lost(how: str) -> None:
        stage.setdefault("workers_lost", []).append(how)
        with run.lock(math.inf):  # at once, so that `status` shows it
            run.update(lambda past: record.with_stage(past, stage))

    draws, crew = loaded.draws, replace(crew, lost=lost)
    try:
        loaded = _enough(settings, loaded, grams.needed_images(target.plan, sizes))
        file = run.path.absolute() / logs.NAME
        job = Job(target, create, loaded.x_train, loaded.x_test, other, backend, threads, file)
        grams.compute(job, wanted, sizes, done, executor, draws, crew, shard)
    finally:  # however it ends, the tiles finished by then are kept
        stage |= {"seconds": time.perf_counter() - started, "peak_memory": memory.peak()}
        stage |= _counts(target, finished, donor is not None)
        with run.lock(math.inf):
            run.update(lambda past: record.with_stage(past, stage))


def _tell_moved(before: Run, run: Run) -> None:
    """Warn if a run's Gram matrices were begun in one place and are now computed into another."""
    if str(before.gram) != str(run.gram) and description.exists(before.gram):
        log.warning(
            "the Gram matrices of %s were in %s until now, and are computed into %s (compute.store)",
            short(str(run.path)), short(str(before.gram)), short(str(run.gram)),
        )  # fmt: skip


def _donor(run: Run, settings: Config, asked: dict, kept: ImageFacts) -> Donor:
    """Another run's store as a donor; for one of format 1, the missing digests of images are computed."""
    there = store.open(run.gram)
    known = there.images()
    if known.digests is None and "data" in there.attributes:
        try:
            loaded = images.load(settings, *there.sizes)
        except UserError:  # the data set has fewer images
            loaded = None
        if loaded and loaded.fingerprint == there.attributes["data"]:
            known = images.image_facts(loaded)
    return Donor(there, asked, kept, known)


def _foretell(donor: Donor, target: Store, tasks: list[Task]) -> None:
    """Log how many tiles will be taken, which may be fewer than the user expects."""
    found = [
        (task, donor.has(task.tile, [target.readouts[r] for r in task.readouts], target.plan))
        for task in tasks
    ]
    some = sum(bool(names) for _, names in found)
    whole = sum(len(names) == len(task.readouts) for task, names in found)
    place = donor.store.path
    where = short(str(place.parent if isinstance(place, Path) else place))
    if some:
        log.info("%d of these tiles are taken from %s, %d of them in part", some, where, some - whole)
    else:
        log.warning(
            "nothing can be taken from %s: it has no finished tile of the columns, depths and images that "
            "are missing here; all %d tiles are computed", where, len(tasks),
        )  # fmt: skip


def _counts(target: Store, finished: list[Task], took: bool) -> dict:
    """What the record says about finished tasks: pairs computed, and tiles at least partly taken."""
    with suppress(UserError):  # unreadable journals; the error that ended `compute` says more
        target.progress.refresh()  # workers may have been other processes
    taken = [target.progress.taken(t.tile, t.readouts) for t in finished]
    pairs = sum(t.tile.pairs(target.plan) for t, each in zip(finished, taken, strict=True) if not all(each))
    return {"pairs": pairs} | ({"tiles_taken": sum(map(any, taken))} if took else {})


def _enough(settings: Config, loaded: Dataset, needed: tuple[int, int]) -> Dataset:
    """Load more images if tiles need them: a run that holds more than is asked for has larger last tiles."""
    if len(loaded.x_train) >= needed[0] and len(loaded.x_test) >= needed[1]:
        return loaded
    return images.load(settings, *map(max, needed, (len(loaded.x_train), len(loaded.x_test))))


def begin(run: Run, settings: Config, facts: dict, stage: dict | None) -> None:
    """Write the config, and the record with a stage that begins, if any."""
    settings = images.with_path(settings)
    text = config.dump(settings)
    if len(text) > yaml12.MOST_BYTES:  # else no command could read it
        raise UserError(
            f"with all keys the config has {len(text):,} characters: use at most {yaml12.MOST_BYTES:,}; "
            "statistics of whole images can be prepared in the data themselves"
        )
    with run.lock(math.inf):
        remove_partial(run.path)
        past = record.load(run.record) if run.record.exists() else record.start(settings.name, facts)
        others = record.computed(past)["fingerprint"] != facts["fingerprint"]
        # A last solve is of the past once other images are computed, not if nothing was missing for them.
        if others and (stage or not past["solutions"]):
            past = record.start(settings.name, facts) | {"stages": past["stages"]}
        asked = settings.sections("dataset", "preprocess")
        past |= {"name": settings.name, "computed": record.plain(facts), "asked": record.plain(asked)}
        write_atomic(run.path / "config.yaml", text)
        record.save(record.with_stage(past, stage) if stage else past, run.record)


def make(run: Run) -> None:
    """Make a run's directory if it is missing."""
    with writing(run.path):
        run.path.mkdir(parents=True, exist_ok=True)
