"""Which tasks are still to be given to workers that may be lost, and which are given up."""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.executors.workers import ATTEMPTS
from cntk_bench.text import one_line, short


class Ledger:
    """Tasks as they are given out, lost with their worker, given again, and given up.

    A worker may have several tasks when it is lost, and only one of them can be the reason. So a task that
    was lost once is suspected: it is given to a worker that has no other. A task that costs `ATTEMPTS`
    workers is given up, so that all others are done before anybody is told.
    """

    def __init__(self, tasks: Iterable[Any]):
        self._tasks = iter(tasks)
        self._suspects: deque = deque()
        self._costs: Counter = Counter()
        self._given_up: list[tuple[Any, str]] = []

    def next(self) -> Any | None:
        """A task that nobody suspects; None if there is none left."""
        return next(self._tasks, None)

    def suspect(self) -> Any | None:
        """A task for a worker that has no other; None if there is none now."""
        return self._suspects.popleft() if self._suspects else None

    def lost(self, tasks: Iterable[Any], how: str) -> None:
        """Some tasks were with a worker that ended, `how` in words."""
        for task in tasks:
            self._costs[task] += 1
            if self._costs[task] < ATTEMPTS:
                self._suspects.append(task)
            else:
                self.give_up(task, how)

    def give_up(self, task: Any, how: str) -> None:
        """A task is not tried again: its worker ended once more, `how` in words."""
        self._given_up.append((task, how))

    def back(self, tasks: Iterable[Any]) -> None:
        """Some tasks were not begun, whatever became of their worker."""
        self._suspects.extend(tasks)

    def require_all(self) -> None:
        """UserError if a task was given up."""
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
