"""The stage `train`: train what columns need before they can be filled, such as networks.

Columns list their training jobs (`columns.Job`) by `columns.Trained`; this module sees to it that each job is
done by one process at a time, whatever it is.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cntk_bench import columns
from cntk_bench.columns import Job
from cntk_bench.config.config import Config
from cntk_bench.errors import UserError
from cntk_bench.grams import description, growth, store
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.report.rows import cell_name
from cntk_bench.runs import compute, images
from cntk_bench.runs.material import Material, jobs
from cntk_bench.system import interruption, lock, memory
from cntk_bench.system.files import writing

log = logging.getLogger(__name__)

PAUSE = 0.5  # seconds between checks of what other processes train
Progress = Callable[[int, int, str], None]  # jobs done, all jobs, what is being done now


def needed(settings: Config) -> bool:
    """Whether any column has to be trained."""
    return any(columns.trained(name) for name in settings.kernel.columns)


def require(settings: Config) -> None:
    """Raise UserError if training cannot run here, before hours are spent on anything else."""
    for name in settings.kernel.columns:
        column = columns.trained(name)
        if column is not None:
            column.require_training(settings.section)


def train(run: Run, settings: Config, progress: Progress | None = None) -> int:
    """Train what is not trained yet; make the run if there is none.

    Parameters
    ----------
    run : Run
    settings : Config
    progress : callable, optional
        Called with the number of jobs done, the number of all jobs, and what is being done.

    Returns
    -------
    int
        Number of jobs that this call has done.

    Raises
    ------
    UserError
        If the run is for other images, the directory has files of others that would be replaced, or training
        fails.
    """
    if not needed(settings):
        return 0
    require(settings)
    run.require_own()
    loaded = images.load(settings)
    kept = images.image_facts(loaded)
    facts = images.record_facts(settings, loaded, kept)
    if description.exists(run.gram):
        growth.require_images(store.open(run.gram), images.asked(settings, loaded), kept)
    material = Material(run, settings, facts, loaded)
    every = [job for _, _, some in jobs(settings, material) for job in some]
    left = [job for job in every if not job.done().finished]
    compute.make(run)
    stage = record.stage(
        "train", settings.sections("dataset", "preprocess", "kernel", *columns.section_names())
    )
    compute.begin(run, settings, facts, stage if left else None)
    if not left:
        return 0
    started, done = time.perf_counter(), [0]
    try:
        with interruption.noted() as asked_to_end:
            _train(left, len(every), done, progress, asked_to_end)
    finally:  # however it ends, what is trained by then is kept
        stage |= {"seconds": time.perf_counter() - started, "trained": done[0], "peak_memory": memory.peak()}
        with run.lock(math.inf):
            run.update(lambda past: record.with_stage(past, stage))
    return done[0]


def _train(
    left: list[Job], count: int, done: list[int], progress: Progress | None, end: threading.Event
) -> None:
    """Do the jobs that no other process does, until none is left or `end` is set."""
    while left:
        idle = True
        for job in list(left):

            def report(words: str, job: Job = job) -> None:
                if progress is not None:
                    progress(count - len(left), count, f"{job.label}: {words}")

            with writing(job.folder):
                job.folder.mkdir(parents=True, exist_ok=True)
            try:
                with lock.held(job.folder / "lock"):
                    found = job.done()
                    if not found.finished:
                        if found.damage:
                            log.warning(
                                "%s: its result is damaged (%s): trained anew", job.label, found.damage
                            )
                        job.do(report, end.is_set)
                        if end.is_set():
                            return
                        done[0] += 1
            except lock.Held:
                continue
            idle = False
            left.remove(job)
        if left and idle:
            end.wait(PAUSE)
            if end.is_set():
                return


def require_trained(name: str, depth: int, some: Sequence[Job]) -> None:
    """Raise UserError if not all training jobs of a cell are done."""
    found = [job.done() for job in some]
    for job, state in zip(some, found, strict=True):
        if state.damage:
            raise UserError(
                f"{job.label}: its result is damaged ({state.damage}): run `cntk-bench train` on the run's "
                "config to train it anew"
            )
    unfinished = sum(not state.finished for state in found)
    if unfinished:
        raise UserError(
            f"{cell_name(name, depth)} is not trained with these settings on these images "
            f"({unfinished} of {len(some)} pieces are missing): run `cntk-bench train CONFIG` first"
        )


@dataclass(frozen=True)
class Checked:
    """Results of training jobs: how many are there, how many are missing, and what is damaged, by label."""

    there: int
    missing: int
    damaged: dict[str, str]


def checked(run: Run, settings: Config) -> Checked:
    """Look at the results of all training jobs of a config."""
    if not needed(settings):
        return Checked(0, 0, {})
    material = Material(run, settings, record.computed(record.load(run.record)))
    found = {job.label: job.done() for _, _, some in jobs(settings, material) for job in some}
    damaged = {label: one.damage for label, one in found.items() if one.damage is not None}
    missing = sum(one.damage is None and not one.finished for one in found.values())
    return Checked(len(found) - missing, missing, damaged)
