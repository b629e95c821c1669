"""Executor that does tasks in this process, one after another.

A task is started before the previous one is ended, so that a GPU never idles, and a task's remaining work
(writing) goes on while others are done.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from cntk_bench.executors.workers import Workers

WAITING = 3  # ended tasks that may still have something left to write
NO_MORE = object()


def run(
    job: Any,
    tasks: Iterable[Any],
    report: Callable[[Any], None],
    stopped: Callable[[], bool],
    workers: Workers | None = None,
) -> None:
    """Do tasks; see `cntk_bench.executors.run`.

    None among the tasks means that none is available at the moment: those already begun are ended.
    """
    begun: deque = deque()
    waiting: deque = deque()

    def end(most: int) -> None:
        while len(begun) > most:
            task, rest = begun.popleft()
            waiting.append((task, rest()))

    def settle(most: int) -> None:
        while waiting and (len(waiting) > most or waiting[0][1].done()):
            task, rest = waiting.popleft()
            rest.result()
            report(task)

    remaining = iter(tasks)
    try:
        with job.worker() as start:
            while True:
                try:
                    if (task := next(remaining, NO_MORE)) is NO_MORE:
                        break
                    if task is not None:
                        begun.append((task, start(task)))
                except Exception:  # end what was begun even if the next task cannot be started
                    end(0)
                    raise
                end(0 if task is None else 1)
                settle(0 if task is None else WAITING)
                if stopped():
                    begun.clear()  # drop the task in progress, of which nothing can be stored yet
                    break
            end(0)
            settle(0)
    except BaseException:
        for task, rest in waiting:  # leaving `worker` waited for these futures
            if rest.done() and rest.exception() is None:
                report(task)
        raise
