"""Dask's scheduler, made robust against a clock that is reset while it runs."""

import time
from typing import Any

import distributed


class Scheduler(distributed.Scheduler):
    """Scheduler that keeps its workers when the clock is set forwards by `worker-ttl` or more.

    Dask's own would take all of them for dead.
    """

    def __init__(self, *arguments: Any, **more: Any):
        self._ahead = _ahead()
        super().__init__(*arguments, **more)

    async def check_worker_ttl(self) -> None:
        """Check which workers were silent for too long, correcting their times for changes of the clock."""
        set_by, self._ahead = _ahead() - self._ahead, _ahead()
        for worker in self.workers.values():
            worker.last_seen += set_by
        await super().check_worker_ttl()


def _ahead() -> float:
    """Seconds by which the wall clock, which can be set, is ahead of the monotonic one, which cannot."""
    return time.time() - time.monotonic()
