"""Bookkeeping of tasks for workers that may be lost: which to give out, to retry and to give up."""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.executors.workers import ATTEMPTS
from cntk_bench.text import one_line, short


class Ledger:
    """Tasks to give out, those lost with their worker, and those given up.

    A worker may have several tasks when it is lost, and only one of them can be the reason. So a task that
    was lost is a suspect: it is retried on a worker that has no other. A task that has cost `ATTEMPTS`
    workers is given up; the error is raised only after all other tasks are done.
    """

    def __init__(self, tasks: Iterable[Any]):
        self._tasks = iter(tasks)
        self._suspects: deque = deque()
        self._costs: Counter = Counter()
        self._given_up: list[tuple[Any, str]] = []

    def next(self) -> Any | None:
        """Return the next task that is no suspect; None if there is none left."""
        return next(self._tasks, None)

    def suspect(self) -> Any | None:
        """Return a suspect, for a worker that has no other task; None if there is none now."""
        return self._suspects.popleft() if self._suspects else None

    def lost(self, tasks: Iterable[Any], how: str) -> None:
        """Record tasks whose worker was lost; `how` says in words how it ended."""
        for task in tasks:
            self._costs[task] += 1
            if self._costs[task] < ATTEMPTS:
                self._suspects.append(task)
            else:
                self.give_up(task, how)

    def give_up(self, task: Any, how: str) -> None:
        """Record that a task is not to be retried; `how` says in words how its last worker ended."""
        self._given_up.append((task, how))

    def back(self, tasks: Iterable[Any]) -> None:
        """Return tasks that were never begun, because their worker ended before it was ready."""
        self._suspects.extend(tasks)

    def require_all(self) -> None:
        """Raise UserError if a task was given up."""
        if not self._given_up:
            return
        task, how = self._given_up[0]
        others = len(self._given_up) - 1
        more = f", and {others} more like it" if others else ""
        raise UserError(
            f"{short(str(task), 100)}{more} ended {ATTEMPTS} workers or more, the last one by "
            f"{one_line(how, 80)}; all other tiles are stored: give a worker more memory, or find out with "
            "--executor local"
        )
