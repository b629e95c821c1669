"""Executor with processes on this machine, one for each place: a GPU, or a share of the CPU's cores.

Each process has its own interpreter and environment, so that a GPU, a limit on threads or a crash concerns
only that process. If one is killed or silent for too long, its tasks are given to others, and another process
takes its place. What is sent to a worker waits in a thread of its own until the worker receives it, so that
one that hangs as it starts, while it imports, keeps nobody from looking after the others.
"""

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.executors.ledger import Ledger
from cntk_bench.executors.worker import READY
from cntk_bench.executors.workers import AHEAD, ATTEMPTS, Workers

log = logging.getLogger(__name__)

START = (
    "import sys; tasks, halt, *sys.path = sys.argv[1:]; "
    "from cntk_bench.executors.worker import serve; serve(int(tasks), int(halt))"
)
LOOK = 1.0  # seconds between checks whether to stop and which workers are silent
GRACE = 10.0  # seconds that a worker has to end by itself before it is killed


def run(
    job: Any,
    tasks: Iterable[Any],
    report: Callable[[Any], None],
    stopped: Callable[[], bool],
    workers: Workers,
) -> None:
    """Do tasks; see `cntk_bench.executors.run`."""
    ledger, early = Ledger(tasks), 0
    failures: list[Exception] = []
    whole = pickle.dumps(job)
    crew: list[_Worker | None] = [None] * len(workers.places)
    try:
        while True:
            if not stopped() and not failures:
                for number, place in enumerate(workers.places):
                    crew[number] = _fill(crew[number], ledger, whole, place)
            else:
                for worker in filter(None, crew):
                    worker.halt()
            busy = [worker for worker in crew if worker and worker.tasks]
            if not busy:
                break
            wait([worker.connection for worker in busy], LOOK)
            for worker in busy:
                expected = worker.halted
                answers, lost = worker.hear(workers.timeout)
                for kind, value in answers:
                    if kind == "done":
                        report(value)
                        early = 0
                    elif kind == "failed":
                        failures.append(value)
                if not lost:
                    continue
                crew[crew.index(worker)] = None
                if any(kind == "failed" for kind, _ in answers) or expected:
                    continue
                log.warning("a worker was lost (%s): what it had to do is given to others", lost)
                workers.lost(lost)
                if worker.ready:
                    ledger.lost(worker.tasks, lost)
                    continue
                ledger.back(worker.tasks)
                early += 1
                if early == ATTEMPTS:
                    raise UserError(
                        f"{early} workers ended before they could begin, the last one by {lost}: look at "
                        "what they say above, or use --executor local"
                    )
    finally:
        for worker in filter(None, crew):
            worker.end()
    if failures:
        raise failures[0]
    if not stopped():
        ledger.require_all()


class _Worker:
    """A worker process and the tasks that it has been given."""

    def __init__(self, job: bytes, place: Mapping[str, str]):
        self.tasks: deque = deque()
        self.ready = self.halted = self._alone = False
        ours, theirs = socket.socketpair()
        told, self._halt = os.pipe()
        fds = theirs.fileno(), told
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, *map(str, fds), *sys.path],
                env={**os.environ, **place},
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                start_new_session=True,  # a terminal's Ctrl-C must reach only this process
            )
        except BaseException:
            os.close(self._halt)
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(told)
        self._socket = ours
        self.connection = Connection(os.dup(ours.fileno()))
        self._heard = time.monotonic()
        self._unsent: SimpleQueue[bytes | None] = SimpleQueue()
        self._sender = threading.Thread(target=self._send_all, daemon=True)
        self._sender.start()
        self._unsent.put(job)

    def wants(self) -> bool:
        """Whether it may be given one more task."""
        return len(self.tasks) < AHEAD and not self._alone

    def give(self, task: Any, alone: bool = False) -> None:
        """Give it a task; if `alone`, it gets no other until this one is done."""
        if not self.tasks:
            self._heard, self._alone = time.monotonic(), alone
        self.tasks.append(task)
        self._unsent.put(pickle.dumps(task))

    def _send_all(self) -> None:
        try:
            while (data := self._unsent.get()) is not None:
                self.connection.send_bytes(data)
        except OSError:
            pass  # the process is gone, which `hear` will notice

    def hear(self, timeout: float) -> tuple[list, str]:
        """Return its answers and, if it is lost, how it ended (else ""); kill it if it is silent too long."""
        answers = []
        try:
            while self.connection.poll():
                answers.append(self.connection.recv())
                self._heard = time.monotonic()
                kind, value = answers[-1]
                self.ready = self.ready or kind == READY
                if kind == "done":
                    self.tasks.remove(value)
                    self._alone = self._alone and bool(self.tasks)
        except (EOFError, OSError, pickle.UnpicklingError):
            return answers, self._ended()
        if time.monotonic() - self._heard > timeout:
            self._process.kill()
            self.close()
            return answers, f"it finished nothing for {timeout:g} seconds"
        return answers, ""

    def _ended(self) -> str:
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self.close()
        if code >= 0:
            return f"exit code {code}"
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        return name + (" (out of memory?)" if name == "SIGKILL" else "")

    def halt(self) -> None:
        """Tell it to end after its current task."""
        if not self.halted:
            self.halted = True
            os.close(self._halt)

    def end(self) -> None:
        """End it, at once if it still has tasks: nobody waits for them any more."""
        if self.tasks:
            self._process.kill()
        self._unsent.put(pickle.dumps(None))
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.close()

    def close(self) -> None:
        """Wait for the process to end and close its pipes."""
        self._process.wait()
        self._unsent.put(None)
        with suppress(OSError):  # ends sending, even if a process that the worker started still holds its end
            self._socket.shutdown(socket.SHUT_RDWR)
        self._sender.join()
        self._socket.close()
        self.connection.close()
        self.halt()


def _fill(worker: _Worker | None, ledger: Ledger, job: bytes, place: Mapping[str, str]) -> _Worker | None:
    """Give a place's worker as many tasks as it may have; start one if there is none and there are tasks."""
    while worker is None or worker.wants():
        free = worker is None or not worker.tasks
        task, alone = (ledger.suspect() if free else None), True
        if task is None:
            task, alone = ledger.next(), False
        if task is None:
            break
        worker = worker or _Worker(job, place)
        worker.give(task, alone)
    return worker
