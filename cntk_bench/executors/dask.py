"""Tasks done by the workers of a Dask scheduler: one that runs already, or one of our own on this machine.

Each worker gets the job once, and keeps its images and compiled kernels. A scheduler of our own listens on
this machine alone, and speaks with none that has not its certificates, which exist for one call: on a
machine with several people, whoever could reach the scheduler could run programs as us.
"""

import logging
import os
import pickle
import queue
import socket
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any
from uuid import uuid4

from cntk_bench import __version__
from cntk_bench.errors import UserError
from cntk_bench.executors import certificates
from cntk_bench.executors.ledger import Ledger
from cntk_bench.executors.workers import AHEAD, ATTEMPTS, Workers
from cntk_bench.text import one_line, short

try:
    import dask
    import distributed
    from distributed.diagnostics.plugin import WorkerPlugin
    from distributed.scheduler import KilledWorker

    from cntk_bench.executors.scheduler import Scheduler
except ImportError as error:
    raise UserError(
        f"the executors dask and slurm need Dask ({one_line(error, 80)}): pip install 'cntk-bench[cluster]'"
    ) from None

log = logging.getLogger(__name__)

LOOK = 1.0  # seconds after which it is looked again whether to stop, and how many workers there are
CONNECTING = "20s"


def run(
    job: Any,
    tasks: Iterable[Any],
    report: Callable[[Any], None],
    stopped: Callable[[], bool],
    workers: Workers,
) -> None:
    """Do tasks; see `cntk_bench.executors.run`."""
    with settings(workers), _theirs(workers.scheduler) if workers.scheduler else _ours(workers) as client:
        drive(client, job, tasks, report, stopped, workers)


@contextmanager
def settings(workers: Workers) -> Iterator[None]:
    """Dask's settings for a scheduler of ours: a worker's loss is told at once, a silent one is lost."""
    ours = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.worker-ttl": f"{workers.timeout:g}s",
        "distributed.scheduler.work-stealing": False,
        "distributed.scheduler.http.routes": [],  # no web pages, which would need no certificate
        "distributed.worker.http.routes": [],
        "distributed.comm.timeouts.connect": CONNECTING,
    }
    with dask.config.set(ours):
        yield


@contextmanager
def _theirs(address: str) -> Iterator[Any]:
    try:
        client = distributed.Client(address, timeout=CONNECTING, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"compute.scheduler {short(address)} cannot be reached ({one_line(error, 100)}): give the "
            "address that the scheduler printed, such as tcp://host:8786"
        ) from None
    with client:
        yield client


@contextmanager
def _ours(workers: Workers) -> Iterator[Any]:
    security = certificates.made()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cntk-bench-"))
        common = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
        nannies = {
            number: {
                "cls": distributed.Nanny,
                "options": {**common, "nthreads": 2, "memory_limit": 0, "local_directory": folder,
                            "env": dict(place), "silence_logs": logging.CRITICAL},
            }
            for number, place in enumerate(workers.places)
        }  # fmt: skip
        scheduler = {
            "cls": Scheduler,
            "options": {**common, "port": 0, "dashboard": False},
        }
        cluster = stack.enter_context(
            distributed.SpecCluster(nannies, scheduler, security=security, silence_logs=logging.CRITICAL)
        )
        yield stack.enter_context(distributed.Client(cluster, security=security, set_as_default=False))


def drive(
    client: Any,
    job: Any,
    tasks: Iterable[Any],
    report: Callable[[Any], None],
    stopped: Callable[[], bool],
    workers: Workers,
) -> None:
    """Let the workers of a scheduler, who may come and go, do tasks.

    Parameters
    ----------
    client : distributed.Client
    job, tasks, report, stopped
        As for `cntk_bench.executors.run`.
    workers : Workers
        Of it the timeout, after which a task that is not finished ends its worker, and who is told of losses.
    """
    station = Station(pickle.dumps(job), workers.timeout)
    try:
        client.register_plugin(station, name=station.name)
    except Exception as error:
        raise UserError(
            f"the workers of {short(client.scheduler.address)} cannot begin ({one_line(error, 120)}): they "
            f"need cntk-bench {__version__}, as here"
        ) from None
    try:
        _Drive(client, station.name, tasks, report, workers.lost).run(stopped)
    finally:
        if client.status == "running":
            client.unregister_worker_plugin(station.name)


class NotBegun(Exception):
    """The worker was asked to halt before it began this task. (A value instead would have to be fetched.)"""


class Station(WorkerPlugin):
    """What a worker of Dask has of a job: made with the worker, ended with it or with the job."""

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
        """Do a task; `NotBegun` if none is to be begun any more. One is computed while another is written."""
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
        except UserError as error:  # its surroundings are not ours
            raise UserError(f"a worker on {short(socket.gethostname())} cannot begin: {error}") from None


def _do(name: str, task: Any) -> None:
    station: Any = distributed.get_worker().plugins[name]
    station.do(task)


def _halt(name: str, dask_worker: Any) -> None:
    if name in dask_worker.plugins:
        dask_worker.plugins[name].halted = True


class _Drive:
    """Tasks in flight, and what comes back of them."""

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
        self._again: deque = deque()  # lost with their worker, as others beside them
        self._doubtful: deque = deque()  # lost so often that each is tried by itself at the end
        self._looked, self._crew = -float("inf"), 1
        self._failure: BaseException | None = None

    def run(self, stopped: Callable[[], bool]) -> None:
        halted = False
        while True:
            if (stopped() or self._failure) and not halted:
                halted = True
                self._client.run(_halt, self._name, on_error="ignore")
            if not halted:
                self._fill()
            if not self._flying:
                break
            self._settle()
        if self._failure:
            raise self._failure
        if not halted:
            self._ledger.require_all()

    def _fill(self) -> None:
        """Submit what the workers may have, some tasks at once: each submission costs milliseconds."""
        now = time.monotonic()
        if now - self._looked > LOOK:
            self._crew, self._looked = max(1, len(self._client.nthreads())), now
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
        """Wait for something to end, a while at most, and see what it is."""
        try:
            future = self._ended.get(timeout=LOOK)
        except queue.Empty:
            if self._client.status not in ("running", "connecting"):
                raise UserError(
                    "the connection to the scheduler was lost: what was finished is stored, and the same "
                    "command goes on from there"
                ) from None
            return
        task = self._flying.pop(future)
        if future.status == "finished":
            self._report(task)
            return
        if future.status != "error":  # the scheduler forgot it
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
