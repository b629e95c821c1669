"""The stage `verify`: check whether a run's stored numbers are right."""

import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import numpy as np

from cntk_bench import backends
from cntk_bench.config.config import Config
from cntk_bench.data import Dataset
from cntk_bench.errors import UserError, VerificationError
from cntk_bench.grams import compute as grams
from cntk_bench.grams import store
from cntk_bench.grams import verify as audit
from cntk_bench.grams.compute import Job
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.store import Store
from cntk_bench.grams.verify import Verification
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.runs import images
from cntk_bench.runs.stored import mended, require_images_and_labels
from cntk_bench.runs.train import Checked
from cntk_bench.text import one_line, short

log = logging.getLogger(__name__)


def verify(
    run: Run, settings: Config, sample: int, repair: bool, progress: Callable | None = None
) -> Verification:
    """Check a run's store; with `repair`, compute damaged tiles again and check once more.

    Parameters
    ----------
    run : Run
    settings : Config
        The run's config; only its data path may have changed.
    sample : int
        Number of pairs to recompute in float64.
    repair : bool
    progress : callable, optional
        Called after each tile checked and each pair recomputed.
    """
    target = store.open(run.gram)
    loaded = None
    if sample or repair:
        loaded = images.load(settings, *target.sizes)  # the store may hold more than was last asked for
        _require_labels(run, target, images.image_facts(loaded))
        if repair:
            target, name = mended(run, settings, loaded)
        else:
            require_images_and_labels(target, settings, loaded)
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


def _require_labels(run: Run, target: Store, known: ImageFacts) -> None:
    """Refuse data whose labels differ from the store's, if these are known to be sound: the record agrees.

    Where the store's own are damaged, the data must be those of the record.
    """
    facts = record.computed(record.load(run.record)) if run.record.exists() else {}
    if not facts.get("images"):
        return
    here = known.first(record.sizes(facts))
    try:
        there = target.images(here.sizes)
    except VerificationError:
        there = None
    if there is None or there.fingerprint is None:
        if here.fingerprint != facts["images"]:
            raise UserError(
                f"the images or labels of {short(facts['name'])} are not those of which record.json tells, "
                "and what the Gram store keeps of its own is damaged: give the same data"
            )
        return
    if there.fingerprint != facts["images"]:
        return
    if here.fingerprint != there.fingerprint and all(
        map(np.array_equal, here.digests or (), there.digests or ())
    ):
        raise UserError(
            f"the labels of {short(facts['name'])} are not those of which record.json and the Gram store "
            "tell: give the same data, or `compute` again, which takes the labels that they have now"
        )


def _draws(run: Run, target: Store) -> int:
    """Number of draws in the last request, if they are all that the store holds, else 1."""
    facts = record.computed(record.load(run.record)) if run.record.exists() else None
    return record.draws(facts) if facts and record.sizes(facts)[0] == target.plan.n_train else 1


def _check(
    target: Store, loaded: Dataset | None, sample: int, draws: int, progress: Callable | None
) -> Verification:
    target.require_images()
    x = (loaded.x_train, loaded.x_test) if loaded else (None, None)
    return audit.verify(target, *x, sample=sample, draws=draws, progress=progress)


def begun(settings: Config, sample: int, repair: bool) -> dict:
    """Make the record's entry of a stage `verify` that starts now."""
    stage = record.stage("verify", settings.sections("dataset", "preprocess"))
    return stage | {"sample": sample, "repair": repair}


def keep(run: Run, stage: dict, found: Verification | None, trained: Checked) -> None:
    """Write what was found into the record, if the run can be written to.

    Parameters
    ----------
    run : Run
    stage : dict
        From `begun`.
    found : Verification or None
        Result for the tiles; None if there are none to check.
    trained : Checked
        Result for training jobs (`train.checked`).
    """
    started = datetime.fromisoformat(stage["started"])
    stage = stage | {"seconds": (datetime.now(UTC) - started).total_seconds()}
    if found is not None:
        errors = [entry.error for entry in found.entries]
        stage |= {"checked": found.checked, "missing": found.missing, "damaged": len(found.damaged)}
        stage |= {"unreadable": len(found.unreadable), "entries": len(errors)}
        stage |= {"entries_wrong": sum(not entry.ok for entry in found.entries)}
        stage |= {"largest_error": max(errors, default=None)}
    stage |= {"trained": trained.there, "trained_damaged": len(trained.damaged)}
    stage |= {"trained_missing": trained.missing}
    try:
        with run.lock(math.inf):
            if run.record.exists():
                run.update(lambda past: record.with_stage(past, stage))
    except (UserError, OSError) as error:
        log.info("the record does not tell of this check: %s", one_line(error, 200))
