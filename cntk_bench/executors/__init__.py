"""Who works: an executor takes tasks, lets workers do them, and tells of each once it is done.

It knows nothing of what a task is. A job is an object with a method `worker`, a context manager that gives
a function: called with a task, it starts it; what that returns ends the task, and gives a future of what is
left to do of it. A job and its tasks can be pickled, for an executor that hands them to other processes: each
of them enters `worker` of its own copy.

To add one, write a module with a function like `local.run` and put its name into `NAMES`, or register the
function from another package under the entry point group `cntk_bench.executors`.
"""

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from cntk_bench.executors.workers import Workers
from cntk_bench.system import plugins

__all__ = ["NAMES", "Workers", "names", "require", "require_known", "run"]

NAMES = ("local", "processes", "dask", "slurm")
GROUP = "cntk_bench.executors"


def names() -> tuple[str, ...]:
    """The executors known."""
    return (*NAMES, *plugins.names(GROUP))


def require_known(name: str) -> None:
    """UserError if there is no executor of this name, and it is not "auto"."""
    plugins.require_known("executor", name, ("auto", *names()))


def require(name: str) -> Callable:
    """The executor's function; UserError if there is none of that name, or it lacks a library."""
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
    """Do tasks with the executor called `name`.

    Parameters
    ----------
    name : str
    job : object with a method `worker`
    tasks : iterable
        Taken one by one, as late as possible: what is done meanwhile, by others, drops out.
    report : callable
        Called with each task once it is done, in the caller's thread.
    stopped : callable
        Whether to end early: no task is begun any more, those that were begun are ended.
    workers : Workers, optional
        By default one.

    Raises
    ------
    UserError
        If there is no such executor; or what a task raised, once all others that were begun have ended.
    """
    require(name)(job, tasks, report, stopped, workers or Workers())
