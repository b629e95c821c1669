"""Executors: an executor takes tasks, lets workers do them, and reports each once it is done.

It does not know what a task is (`Job`).

To add one, write a module with a function `run` that follows the protocol `Executor` and put its name into
`NAMES`, or register the function from another package under the entry point group `cntk_bench.executors`.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, Protocol

from cntk_bench.executors.workers import Workers
from cntk_bench.system import plugins

__all__ = ["NAMES", "Executor", "Job", "Workers", "names", "require", "require_known", "run"]

NAMES = ("local", "processes", "dask", "slurm")
GROUP = "cntk_bench.executors"


class Job(Protocol):
    """What an executor's workers need to do tasks.

    A job and its tasks can be pickled, so that an executor can hand them to other processes, each of which
    enters `worker` of its own copy. Tasks are hashable.
    """

    def worker(self) -> AbstractContextManager[Callable[[Any], Callable[[], Future]]]:
        """Return a context manager that yields a function `start`.

        `start(task)` starts a task, and returns a function that ends it. This one returns a future of what
        then remains to be done (writing): the task is done when the future is. A worker should start a task
        before it ends the previous one, so that a GPU never idles, and end tasks in the order in which it
        started them. Leaving the context waits until all is written.
        """


class Executor(Protocol):
    """A function that does tasks; other packages register theirs under `cntk_bench.executors`.

    The entry point's name is the value of `compute.executor`.
    """

    def __call__(
        self,
        job: Job,
        tasks: Iterable[Any],
        report: Callable[[Any], None],
        stopped: Callable[[], bool],
        workers: Workers,
    ) -> None:
        """Do all tasks, and return.

        Parameters
        ----------
        job : Job
        tasks : iterable
            To be taken one by one, as late as possible, because it drops tasks that other processes do
            meanwhile. None among them means that none is available at the moment: then end those begun.
        report : callable
            To be called with each task once it is done, in the caller's thread.
        stopped : callable
            Returns whether to end early: then begin no further task. It is to be called often.
        workers : Workers
            Settings, of which an executor uses what it can.

        Raises
        ------
        Exception
            That of a task, once all others that were begun have ended; a UserError if a worker is lost for
            good.
        """


def names() -> tuple[str, ...]:
    """Names of all known executors."""
    return (*NAMES, *plugins.names(GROUP))


def require_known(name: str) -> None:
    """Raise UserError unless the name is "auto" or that of an executor."""
    plugins.require_known("executor", name, ("auto", *names()))


def require(name: str) -> Executor:
    """Return the executor's function; UserError if the name is unknown or a library is missing."""
    require_known(name)
    return import_module(f"{__name__}.{name}").run if name in NAMES else plugins.load(GROUP, name)


def run(
    name: str,
    job: Any,
    tasks: Iterable[Any],
    report: Callable[[Any], None],
    stopped: Callable[[], bool],
    workers: Workers | None = None,
) -> None:
    """Do tasks with the executor `name`.

    Parameters
    ----------
    name : str
    job : object with a method `worker`
    tasks : iterable
        Taken one by one, as late as possible, since it drops tasks that others do meanwhile.
    report : callable
        Called with each task once it is done, in the caller's thread.
    stopped : callable
        Returns whether to end early: no further task is begun, and those already begun are finished.
    workers : Workers, optional
        One worker by default.

    Raises
    ------
    UserError
        If there is no such executor. Errors of a task are raised once all others that were begun have ended.
    """
    require(name)(job, tasks, report, stopped, workers or Workers())
