"""Tasks done in this process, one after another.

A task is started before the one before it is ended, so that a GPU never waits, and what is left to do of it
(writing) goes on while others are done.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

WAITING = 3  # tasks that may have something left to do


def run(job: Any, tasks: Iterable[Any], report: Callable[[Any], None], stopped: Callable[[], bool]) -> None:
    """Do tasks; see `cntk_bench.executors.run`."""
    waiting: deque = deque()

    def settle(most: int) -> None:
        while waiting and (len(waiting) > most or waiting[0][1].done()):
            task, rest = waiting.popleft()
            rest.result()
            report(task)

    try:
        with job.worker() as start:
            for task, end in _one_ahead((task, start(task)) for task in tasks):
                waiting.append((task, end()))
                settle(WAITING)
                if stopped():
                    break
            settle(0)
    except BaseException:
        for task, rest in waiting:  # the worker has waited for what was handed to it
            if rest.done() and rest.exception() is None:
                report(task)
        raise


def _one_ahead(items: Iterable[Any]) -> Iterator[Any]:
    """The same items, each given once the next is made, or could not be made."""
    made: deque = deque()
    try:
        for item in items:
            made.append(item)
            if len(made) == 2:
                yield made.popleft()
    except Exception:
        yield from made
        raise
    yield from made
