"""Executor for the workers of a Dask scheduler: one that runs already, or our own on this machine.

Each worker gets the job once, and keeps its images and compiled kernels. Workers may come and go.
"""

import logging
import os
import pickle
import queue
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import Any
from uuid import uuid4

from cntk_bench import __version__
from cntk_bench.errors import UserError
from cntk_bench.executors.ledger import Ledger
from cntk_bench.executors.workers import AHEAD, ATTEMPTS, Workers
from cntk_bench.text import one_line, short

try:
    import distributed
    from distributed.diagnostics.plugin import WorkerPlugin
    from distributed.scheduler import KilledWorker

    from cntk_bench.executors import connections
except ImportError as error:
    raise UserError(
        f"the executors dask and slurm need Dask ({one_line(error, 80)}): pip install 'cntk-bench[cluster]'"
    ) from None

log = logging.getLogger(__name__)

LOOK = 1.0  # seconds between checks whether to stop and how many workers there are
GONE = (
    "the connection to the scheduler was lost: what was finished is stored, and the same command goes on "
    "from there"
)
WAITING = 60.0  # seconds without any worker before a warning


def run(
    job: Any,
    tasks: Iterable[Any],
    report: Callable[[Any], None],
    stopped: Callable[[], bool],
    workers: Workers,
) -> None:
    """Do tasks; see `cntk_bench.executors.run`."""
    connected = connections.theirs(workers.scheduler) if workers.scheduler else connections.ours(workers)
    with connections.settings(workers), connected as client:
        drive(client, job, tasks, report, stopped, workers)


def drive(
    client: Any,
    job: Any,
    tasks: Iterable[Any],
    report: Callable[[Any], None],
    stopped: Callable[[], bool],
    workers: Workers,
) -> None:
    """Do tasks on the workers of a scheduler, which may come and go.

    Parameters
    ----------
    client : distributed.Client
    job, tasks, report, stopped
        As for `cntk_bench.executors.run`.
    workers : Workers
        Only two fields are used: `timeout`, after which an unfinished task ends its worker, and `lost`.
    """
    station = Station(pickle.dumps(job), workers.timeout)
    _require_same(client)
    try:
        client.register_plugin(station, name=station.name)
        _Drive(client, station.name, tasks, report, workers.lost).run(stopped)
    finally:
        if client.status == "running":
            client.unregister_worker_plugin(station.name)


def _require_same(client: Any) -> None:
    """Refuse workers that have another version of this package, or none, with which they would crash."""

    def version() -> Any:  # a nested function is pickled by value, so workers without the package can run it
        try:
            import cntk_bench
        except ImportError:
            return None
        return cntk_bench.__version__

    with _connected():
        found = client.run(version, on_error="ignore")
    for address, there in found.items():
        if there != __version__:
            raise UserError(
                f"the worker {short(address)} has {f'cntk-bench {there}' if there else 'no cntk-bench'}: "
                f"install cntk-bench {__version__} there, as here"
            )


class NotBegun(Exception):
    """The worker was asked to halt before it began this task. (A returned value would need to be fetched.)"""


class Station(WorkerPlugin):
    """A job's state on a Dask worker: set up with the worker, torn down with it or with the job."""

    def __init__(self, job: bytes, timeout: float):
        self.name, self._version = f"cntk-bench-{uuid4()}", __version__
        self._whole, self._timeout = job, timeout

    def setup(self, worker: Any) -> None:
        if self._version != __version__:
            raise RuntimeError(f"cntk-bench {__version__} is installed there, not {self._version}")
        self._stack, self._lock, self.halted = ExitStack(), threading.Lock(), False
        self._start: Callable | None = None

    def teardown(self, worker: Any) -> None:
        self.halted = True
        with self._lock:
            self._stack.close()

    def do(self, task: Any) -> None:
        """Do a task, or raise `NotBegun` if halted. One task is computed while another is being written."""
        with self._lock:
            if self.halted:
                raise NotBegun
            watch = threading.Timer(self._timeout, os._exit, [1])
            watch.daemon = True
            watch.start()
            try:
                if self._start is None:
                    self._start = self._begin()
                rest = self._start(task)()
            finally:
                watch.cancel()
        rest.result()

    def _begin(self) -> Callable:
        try:
            return self._stack.enter_context(pickle.loads(self._whole).worker())
        except UserError as error:  # its host, to find the cause, is not this one
            raise UserError(f"a worker on {short(socket.gethostname())} cannot begin: {error}") from None


def _do(name: str, task: Any) -> None:
    station: Any = distributed.get_worker().plugins[name]
    station.do(task)


def _halt(name: str, dask_worker: Any) -> None:
    if name in dask_worker.plugins:
        dask_worker.plugins[name].halted = True


@contextmanager
def _connected() -> Iterator[None]:
    """Turn a lost connection to the scheduler into a UserError."""
    try:
        yield
    except OSError:
        raise UserError(GONE) from None


class _Drive:
    """The main loop: submits tasks and handles their results."""

    def __init__(
        self,
        client: Any,
        name: str,
        tasks: Iterable[Any],
        report: Callable[[Any], None],
        lost: Callable[[str], None],
    ):
        self._client, self._name, self._report, self._lost = client, name, report, lost
        self._ledger = Ledger(tasks)
        self._ended: queue.SimpleQueue = queue.SimpleQueue()
        self._flying: dict[Any, Any] = {}  # future: task
        self._costs: Counter = Counter()
        self._dead: set[str] = set()  # addresses of workers that were lost
        self._again: deque = deque()  # tasks to submit again, lost with their worker like others beside them
        self._doubtful: deque = deque()  # tasks lost so often that each is tried by itself at the end
        self._looked, self._crew = -float("inf"), 1
        self._nobodys: set = set()  # futures of tasks that no worker had at the last check
        self._seen = time.monotonic()  # when a worker was last seen
        self._failure: BaseException | None = None

    def run(self, stopped: Callable[[], bool]) -> None:
        halted = False
        while True:
            if (stopped() or self._failure) and not halted:
                halted = True
                threading.Thread(target=self._halt, daemon=True).start()  # a worker that hangs never answers
            if halted:
                self._drop()
            else:
                self._fill()
            if not self._flying:
                break
            self._settle()
        if self._failure:
            raise self._failure
        if not halted:
            self._ledger.require_all()

    def _halt(self) -> None:
        """Tell workers to begin no further task."""
        with suppress(Exception):  # the connection may end meanwhile
            self._client.run(_halt, self._name, on_error="ignore")

    def _drop(self) -> None:
        """Cancel tasks that no worker has, since there may never be one for them."""
        now = time.monotonic()
        if now - self._looked <= LOOK:
            return
        self._looked = now
        with _connected():
            had = {key for keys in self._client.processing().values() for key in keys}
        nobodys = {future for future in self._flying if future.status == "pending" and future.key not in had}
        for future in nobodys & self._nobodys:  # twice in a row, since one may just have been finished
            future.cancel()
        self._nobodys = nobodys

    def _fill(self) -> None:
        """Submit what the workers may have, several tasks at once, since a submission takes milliseconds."""
        now = time.monotonic()
        if now - self._looked > LOOK:
            with _connected():
                crew = len(self._client.nthreads())
            self._crew, self._looked = max(1, crew), now
            if crew:
                self._seen = now
            elif now - self._seen > WAITING:
                log.warning("there are no workers: waiting for some, or for Ctrl-C")
                self._seen = float("inf")
        most = AHEAD * self._crew
        if len(self._flying) <= most // 2:
            self._submit([*islice(iter(self._next, None), most - len(self._flying))])
        if not self._flying and self._doubtful:
            self._submit([self._doubtful.popleft()])

    def _next(self) -> Any | None:
        return self._again.popleft() if self._again else self._ledger.next()

    def _submit(self, tasks: list) -> None:
        keys = [f"{self._name}-{uuid4()}" for _ in tasks]
        for task, future in zip(
            tasks, self._client.map(_do, [self._name] * len(tasks), tasks, key=keys, pure=False), strict=True
        ):
            self._flying[future] = task
            future.add_done_callback(self._ended.put)

    def _settle(self) -> None:
        """Wait at most `LOOK` seconds for a future to end, and handle its outcome."""
        try:
            future = self._ended.get(timeout=LOOK)
        except queue.Empty:
            if self._client.status not in ("running", "connecting"):
                raise UserError(GONE) from None
            return
        task = self._flying.pop(future)
        if future.status == "finished":
            self._report(task)
            return
        if future.status != "error":  # cancelled or lost: the scheduler forgot it
            self._again.append(task)
            return
        error = future.exception()
        if isinstance(error, NotBegun):
            return
        if not isinstance(error, KilledWorker):
            self._failure = self._failure or error
            return
        self._costs[task] += 1
        if self._costs[task] <= ATTEMPTS:
            log.warning("a worker was lost: %s, which it had, is given to another", task)
            worker = str(getattr(error.last_worker, "address", error.last_worker))
            if worker not in self._dead:
                self._dead.add(worker)
                self._lost("being killed")
            (self._again if self._costs[task] < ATTEMPTS else self._doubtful).append(task)
        else:
            self._ledger.give_up(task, "being killed")
