"""The stage `verify`: whether a run's stored numbers are what they should be."""

import math
import time
from collections.abc import Callable
from functools import partial

from cntk_bench import backends
from cntk_bench.data import Dataset
from cntk_bench.grams import compute as grams
from cntk_bench.grams import store
from cntk_bench.grams import verify as audit
from cntk_bench.grams.compute import Job
from cntk_bench.grams.store import Store
from cntk_bench.grams.verify import Verification
from cntk_bench.runs import images, record
from cntk_bench.runs.compute import mended, require_same
from cntk_bench.runs.config import Config
from cntk_bench.runs.directory import Run


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
    target = store.open(run.gram)
    loaded = None
    if sample or repair:
        loaded = images.load(settings, *target.sizes)  # it may hold more than was asked for last
        if repair:
            target, name = mended(run, settings, loaded)
        else:
            require_same(target, settings, loaded)
    draws = _draws(run, target)
    found = _check(target, loaded, sample, draws, progress)
    if repair and found.damaged and loaded is not None:
        started = time.perf_counter()
        stage = record.stage("repair", settings.sections("dataset", "preprocess"))
        job = Job(target, partial(backends.create, name), loaded.x_train, loaded.x_test)
        grams.repair(job, list(found.damaged))
        stage |= {"seconds": time.perf_counter() - started, "backend": name}
        stage |= {"pairs": sum(tile.pairs(target.plan) for tile in found.damaged)}
        with run.lock(math.inf):
            if run.record.exists():
                run.update(lambda past: record.with_stage(past, stage))
        found = _check(target, loaded, sample, draws, progress)
    return found


def _draws(run: Run, target: Store) -> int:
    """The draws that were asked for last, where they are all that the store holds."""
    facts = record.computed(record.load(run.record)) if run.record.exists() else None
    return record.draws(facts) if facts and record.sizes(facts)[0] == target.plan.n_train else 1


def _check(
    target: Store, loaded: Dataset | None, sample: int, draws: int, progress: Callable | None
) -> Verification:
    _ = target.labels  # damaged ones are an error
    x = (loaded.x_train, loaded.x_test) if loaded else (None, None)
    return audit.verify(target, *x, sample=sample, draws=draws, progress=progress)
