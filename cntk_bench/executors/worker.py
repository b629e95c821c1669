"""The worker process that the executor `processes` starts.

It has two pipes. Over the first it receives the job and then tasks, and sends answers. When the second is
closed, it ends after its current task. If the process that started it is killed, both are closed.
"""

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from cntk_bench.executors import local
from cntk_bench.system import interruption

READY = "ready"


def serve(tasks: int, halt: int) -> None:
    """Do the tasks received over a pipe until there are no more.

    Parameters
    ----------
    tasks, halt : int
        File descriptors of the two pipes.

    Answers are ("ready", None) once the worker can begin, ("done", task) and ("failed", exception).
    """
    for signum in interruption.SIGNALS:  # our parent handles signals, and tells us by `halt`
        signal.signal(signum, signal.SIG_IGN)
    connection, halted = Connection(tasks), Connection(halt, writable=False)
    try:
        job = _Announced(pickle.loads(connection.recv_bytes()), lambda: connection.send((READY, None)))
        local.run(job, _given(connection), lambda task: connection.send(("done", task)), halted.poll)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)  # nobody listens any more; what was begun is stored
    except Exception as error:
        connection.send(("failed", _portable(error)))
    finally:
        connection.close()


class _Announced:
    """A job whose worker calls `ready` once it can begin."""

    def __init__(self, job: Any, ready: Callable[[], None]):
        self._job, self._ready = job, ready

    @contextmanager
    def worker(self) -> Iterator[Callable]:
        with self._job.worker() as start:
            self._ready()
            yield start


def _given(connection: Connection) -> Iterator[Any]:
    """Yield tasks as they arrive, and None whenever the next one is not there yet."""
    while True:
        if not connection.poll():
            yield None
        try:
            task = connection.recv()
        except EOFError:
            return
        if task is None:
            return
        yield task


def _portable(error: Exception) -> Exception:
    """Return the error, or a RuntimeError with its text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
