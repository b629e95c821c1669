"""Computation of Gram matrices, tile by tile into a store, by any number of processes at once.

A task is a tile and its missing readouts. A worker does tasks: it has the images, a backend for each set of
readouts, and the store to write to. For each task it takes the readouts that another store (`donor`) has, and
computes the others together. An executor decides which worker gets which task, and when.

Processes need not know of each other (`tasks`). If two compute the same tile, the results are equal bit for
bit.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np

from cntk_bench import backends, executors
from cntk_bench.backends import Backend
from cntk_bench.errors import UserError
from cntk_bench.executors import Workers, worker_log
from cntk_bench.grams.direct import checked, finite
from cntk_bench.grams.donor import Donor
from cntk_bench.grams.flight import flight
from cntk_bench.grams.store import Store
from cntk_bench.grams.tasks import Task, pending
from cntk_bench.grams.tiles import Plan, Tile, auto_tile
from cntk_bench.kernels.spec import Readout, Spec
from cntk_bench.system import cores
from cntk_bench.system import log as logs
from cntk_bench.system.interruption import noted
from cntk_bench.text import short

log = logging.getLogger(__name__)

WRITING = 2  # tiles written at the same time
# Pauses in seconds: a network file system may show others' files after a minute (acdirmax).
SEEN_LATE = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

Piece = tuple[tuple[int, ...], np.ndarray, bool]  # readouts, their numbers, whether taken from a donor


def make_plan(
    spec: Spec, n_train: int, n_test: int, backend: str, tile: int | None = None, draws: int = 1
) -> Plan:
    """Make a plan for a spec, two set sizes and draws; by default with a tile size that suits the backend."""
    if tile is None:
        work, together = backends.tile_work(backend), backends.together(backend)
        tile = auto_tile(n_train, n_test, spec.work, work, draws, together)
    # Tiles are stored whole, so one larger than the data would only waste disk space.
    plan = Plan(n_train, n_test, min(tile, max(n_train, n_test)), len(spec.readouts), draws)
    plan.require_few_files()
    return plan


@dataclass(frozen=True)
class Job:
    """All that a worker needs to do tasks of a store.

    It can be pickled if `backend` can: unpickling opens the store again, and each worker, in whatever
    process, writes its own journal.

    Parameters
    ----------
    store : Store
    backend : callable
        Spec -> Backend; a worker calls it once per spec.
    x_train, x_test : array (n, C, P, P), float
        At least as many images as the tasks' tiles need.
    donor : Donor, optional
        Another store, whose entries are taken where it has them.
    ready : Backend, optional
        A backend that already exists, for workers in this process.
    threads : int, optional
        Threads of each worker's CPU backend; by default what the system and the environment allow.
    log : Path, optional
        The absolute path of the run's log, for workers in other processes than `home`.
    home : (str, int)
        Host and process in which the job was made (`system.log.place`).
    """

    store: Store
    backend: Callable[[Spec], Backend]
    x_train: np.ndarray
    x_test: np.ndarray
    donor: Donor | None = None
    ready: Backend | None = None
    threads: int | None = None
    log: Path | None = None
    home: logs.Place = field(default_factory=logs.place)

    def __getstate__(self) -> dict:
        return {**vars(self), "ready": None}

    def worker(self) -> AbstractContextManager[worker_log.Start]:
        """Context manager that yields a function `start`; leaving it waits until everything is written.

        `start(task)` returns a function that ends the task, which returns a future of its being stored.
        """
        return worker_log.logged(self._worker(), self.log, self.home)

    @contextmanager
    def _worker(self) -> Iterator[worker_log.Start]:
        with (
            cores.limited(self.threads),
            self.store.shared(),
            ThreadPoolExecutor(WRITING) as storing,
        ):
            yield _Worker(self, storing).start


class _Worker:
    """Does tasks, caching backends by set of readouts and the blocks of prepared images used last.

    In a plan's order each tile prepares one new block, which costs little compared with the tile's pairs.
    """

    def __init__(self, job: Job, storing: ThreadPoolExecutor):
        self.job, self.storing = job, storing
        self.images = {"train": checked(job.x_train, "x_train")}
        if len(job.x_test):
            self.images["test"] = checked(job.x_test, "x_test", like=self.images["train"])
        self.backend = lru_cache(maxsize=4)(self._backend)
        self.prepared = lru_cache(maxsize=2)(self._prepared)
        self.machine = backends.machine(job.store.attributes.get("backend", ""))
        self.before = perf_counter()

    def start(self, task: Task) -> Callable[[], Future]:
        tile, store, donor = task.tile, self.job.store, self.job.donor
        names = {store.readouts[readout]: readout for readout in task.readouts}
        taken = donor.take(tile, tuple(names), store.plan) if donor else {}
        left = tuple(readout for name, readout in names.items() if name not in taken)
        end = self._started(tile, left) if left else None

        def stored() -> Future:
            pieces: list[Piece] = []
            if taken:
                pieces.append((tuple(names[name] for name in taken), np.stack([*taken.values()]), True))
            if end:
                pieces.append((left, finite(end(), f"tile {tile}"), False))
            return self._store(tile, pieces)

        return stored

    def _started(self, tile: Tile, readouts: tuple[int, ...]) -> Callable[[], np.ndarray]:
        rows = self.prepared(readouts, tile.part, tile.row)
        cols = self.prepared(readouts, "train", tile.col)
        return self.backend(readouts).start(rows, cols, symmetric=tile.diagonal)

    def _store(self, tile: Tile, pieces: list[Piece]) -> Future:
        """Write the taken and the computed part of a tile; all of the time counts for the computed part."""
        now = perf_counter()
        seconds, self.before = now - self.before, now

        def write() -> None:
            for readouts, numbers, taken in pieces:
                spent = seconds if len(pieces) == 1 or not taken else 0.0
                machine = "" if taken else self.machine
                self.job.store.write(tile, numbers, spent, readouts, taken, machine)

        return self.storing.submit(write)

    def _backend(self, readouts: tuple[int, ...]) -> Backend:
        chosen = tuple(Readout.parse(self.job.store.readouts[readout]) for readout in readouts)
        spec, ready = Spec(chosen, *self.images["train"].shape[1:3]), self.job.ready
        return ready if ready is not None and ready.spec == spec else self.job.backend(spec)

    def _prepared(self, readouts: tuple[int, ...], part: str, block: int) -> Any:
        return self.backend(readouts).prepare(self.images[part][self.job.store.plan.block(part, block)])


def compute(
    job: Job,
    readouts: Sequence[int] | None = None,
    sizes: tuple[int, int] | None = None,
    report: Callable[[Task], None] | None = None,
    executor: str = "local",
    draws: int = 1,
    workers: Workers | None = None,
    shard: tuple[int, int] = (1, 1),
) -> None:
    """Compute what a store lacks, and write each tile as soon as it is finished.

    However this ends, by an error, a full disk or one Ctrl-C, the tiles finished by then are written
    first, if the disk allows it.

    Parameters
    ----------
    job : Job
    readouts : sequence of int, optional
        Indices of the wanted readouts; all by default.
    sizes : (n_train, n_test), optional
        Compute only for the first images of either set; all by default.
    report : callable, optional
        Called with each task once it is safely stored.
    executor : str
        Name of the executor (`executors`).
    draws : int
        Number of draws that the training images consist of: pairs between two draws are not wanted.
    workers : Workers, optional
        The executor's settings.
    shard : (i, n)
        Compute only the i-th of n shares of the tiles, counted from 1.

    Raises
    ------
    UserError
        If another process changes the store, the disk is full, a tile has values that are not finite, or
        workers store their tiles elsewhere.
    """
    store = job.store
    with store.shared(), flight(store.path, store.plan) as in_progress:
        wanted = tuple(range(store.plan.readouts)) if readouts is None else tuple(readouts)
        sizes = sizes or store.sizes
        _require_images(job, sizes)
        tasks = pending(store, wanted, sizes, store.among(), draws, shard, in_progress)
        told: list[Task] = []

        def stored(task: Task) -> None:
            told.append(task)
            if report:
                report(task)

        _run(job, tasks, stored, executor, workers)
        _require_stored(store, told, sizes)


def _require_stored(store: Store, told: Sequence[Task], sizes: tuple[int, int]) -> None:
    """Raise UserError if tasks that workers reported as stored are not in our store, but perhaps in theirs.

    What other machines have written may be seen only after a while on a network file system.
    """
    for pause in (*SEEN_LATE, None):
        store.progress.refresh()
        told = [task for task in told if not store.progress.has(task.tile, task.readouts, sizes)]
        if not told:
            return
        if pause is not None:
            log.info("%d tiles that workers stored are not seen here yet", len(told))
            sleep(pause)
    raise UserError(
        f"{len(told)} tiles that workers reported as stored are not in {short(str(store.path))}, probably "
        "because their machines have a directory of their own at this path: use an output directory on a "
        "file system that all of them share, or compute.store=s3://BUCKET/PREFIX"
    )


def repair(job: Job, damaged: Sequence[Tile], report: Callable[[Task], None] | None = None) -> None:
    """Compute damaged tiles again.

    A tile is retracted just before it is computed. So if this is interrupted or fails, the tile in progress
    is missing, for `compute` to do, and those that were not begun are as they were.

    Parameters
    ----------
    job, report
        As for `compute`.
    damaged : sequence of Tile
        For example `Verification.damaged`.
    """
    store = job.store
    with store.alone():
        _require_images(job, store.sizes)

        def retracted() -> Iterator[Task]:
            for tile in damaged:
                task = Task(tile, store.progress.readouts(tile))
                store.discard(tile)
                yield task

        _run(job, retracted(), report, "local", None)


def _run(
    job: Job,
    tasks: Iterator[Task],
    report: Callable[[Task], None] | None,
    executor: str,
    workers: Workers | None,
) -> None:
    with noted() as interrupted:
        executors.run(executor, job, tasks, report or (lambda task: None), interrupted.is_set, workers)


def _require_images(job: Job, sizes: tuple[int, int]) -> None:
    needed = needed_images(job.store.plan, sizes)
    for what, x, size in zip(("train", "test"), (job.x_train, job.x_test), needed, strict=True):
        if len(x) < size:
            raise UserError(
                f"{len(x)} {what} images given, but the store is for {size}: run the same command again if "
                "another process has just made it larger"
            )


def needed_images(plan: Plan, sizes: tuple[int, int]) -> tuple[int, int]:
    """Numbers of training and test images in the tiles that cover the first `sizes` images."""
    n_train, n_test = (-(-size // plan.tile) * plan.tile for size in sizes)
    return min(n_train, plan.n_train), min(n_test, plan.n_test)
