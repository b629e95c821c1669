"""Gram matrices computed tile by tile into a store, by any number of processes at once.

A task is a tile and the readouts of it that are missing. A worker does tasks: it has the images, a
backend for each set of readouts, and the store, to which it writes; of a task it takes from another store
(`donor`) the readouts that are there, and computes the others together. Which worker gets which task, and
when, is an executor's business.

Processes need not know of each other (`tasks`). A tile that two of them compute is the same bit for bit.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from cntk_bench import backends, executors
from cntk_bench.backends import Backend
from cntk_bench.errors import UserError
from cntk_bench.executors import Workers, logged
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

WRITING = 2  # tiles that are being written at once

Piece = tuple[tuple[int, ...], np.ndarray, bool]  # readouts, their numbers, whether they were taken


def make_plan(
    spec: Spec, n_train: int, n_test: int, backend: str, tile: int | None = None, draws: int = 1
) -> Plan:
    """The plan for a spec, two set sizes and draws; by default with the tile that suits a backend."""
    if tile is None:
        tile = auto_tile(n_train, n_test, spec.work, backends.tile_work(backend), draws)
    # A tile is stored whole: a larger one than the data would only cost disk.
    plan = Plan(n_train, n_test, min(tile, max(n_train, n_test)), len(spec.readouts), draws)
    plan.require_few_files()
    return plan


@dataclass(frozen=True)
class Job:
    """All that a worker needs to compute tasks of a store.

    It can be pickled where `backend` can: the store is then opened again, and the worker, in whatever
    process, writes a journal of its own.

    Parameters
    ----------
    store : Store
    backend : callable
        Spec -> Backend; a worker makes the one of each spec once.
    x_train, x_test : array (n, C, P, P), float
        At least as many images as the tasks' tiles need.
    donor : Donor, optional
        Another store, from which entries are taken where it has them.
    ready : Backend, optional
        One that is made already, for workers of this process.
    threads : int, optional
        Of each worker's CPU backend; by default what the system and the environment allow.
    log : Path, optional
        The absolute path of the run's log, for workers in other processes than the one `home`.
    home : (str, int)
        Where the job was made (`system.log.place`).
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

    def worker(self) -> AbstractContextManager[logged.Start]:
        """A function that starts a task, to use within the context; leaving waits for what is written.

        What it returns ends the task, and gives the future of its numbers being stored.
        """
        return logged.logged(self._worker(), self.log, self.home)

    @contextmanager
    def _worker(self) -> Iterator[logged.Start]:
        with (
            cores.limited(self.threads),
            self.store.shared(),
            ThreadPoolExecutor(WRITING) as storing,
        ):
            yield _Worker(self, storing).start


class _Worker:
    """Keeps a backend for each set of readouts and the blocks of prepared images used last: in a plan's
    order, a tile prepares one block, which is small beside the tile's pairs."""

    def __init__(self, job: Job, storing: ThreadPoolExecutor):
        self.job, self.storing = job, storing
        self.images = {"train": checked(job.x_train, "x_train")}
        if len(job.x_test):
            self.images["test"] = checked(job.x_test, "x_test", like=self.images["train"])
        self.backend = lru_cache(maxsize=4)(self._backend)
        self.prepared = lru_cache(maxsize=2)(self._prepared)
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
        """Write what was taken of a tile, and what was computed, which all of the time is put down to."""
        now = perf_counter()
        seconds, self.before = now - self.before, now

        def write() -> None:
            for readouts, numbers, taken in pieces:
                spent = seconds if len(pieces) == 1 or not taken else 0.0
                self.job.store.write(tile, numbers, spent, readouts, taken)

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
    """Compute what a store is missing, and write each tile as soon as it is finished.

    However this ends, by an error, a full disk or one Ctrl-C, the tiles ended until then are written
    first, if the disk lets them.

    Parameters
    ----------
    job : Job
    readouts : sequence of int, optional
        Places of those that are wanted, all by default.
    sizes : (n_train, n_test), optional
        Of the first images that matter; all by default.
    report : callable, optional
        Called with each task once it is safely stored.
    executor : str
        Who works (`executors`).
    draws : int
        Which the training images are: pairs of two draws are not wanted.
    workers : Workers, optional
        What the executor is told.
    shard : (i, n)
        The i-th of n shares of the tiles alone, from 1.

    Raises
    ------
    UserError
        If another process changes the store, the disk is full, or a tile has values that are not finite.
    """
    store = job.store
    with store.shared(), flight(store.path, store.plan) as told:
        wanted = tuple(range(store.plan.readouts)) if readouts is None else tuple(readouts)
        sizes = sizes or store.sizes
        _require_images(job, sizes)
        tasks = pending(store, wanted, sizes, store.among(), draws, shard, told)
        _run(job, tasks, report, executor, workers)
        store.progress.refresh()  # workers may have been other processes


def repair(job: Job, damaged: Sequence[Tile], report: Callable[[Task], None] | None = None) -> None:
    """Compute damaged tiles anew. Interrupted, it leaves them missing, for `compute`.

    Parameters
    ----------
    job, report
        As for `compute`.
    damaged : sequence of Tile
        Such as `Verification.damaged`.
    """
    store = job.store
    with store.alone():
        _require_images(job, store.sizes)
        tasks = []
        for tile in damaged:
            tasks.append(Task(tile, store.progress.readouts(tile)))
            store.discard(tile)
        _run(job, iter(tasks), report, "local", None)


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
            raise UserError(f"{len(x)} {what} images given, but the store is for {size}")


def needed_images(plan: Plan, sizes: tuple[int, int]) -> tuple[int, int]:
    """How many images of either set the tiles have that hold the first `sizes` of them."""
    n_train, n_test = (-(-size // plan.tile) * plan.tile for size in sizes)
    return min(n_train, plan.n_train), min(n_test, plan.n_test)
