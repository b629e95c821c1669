"""Dask's scheduler, which a clock that is set while it runs does not mislead."""

import time
from typing import Any

import distributed


class Scheduler(distributed.Scheduler):
    """As Dask's, which takes all workers for dead once the clock is set forwards by `worker-ttl` or more."""

    def __init__(self, *arguments: Any, **more: Any):
        self._ahead = _ahead()
        super().__init__(*arguments, **more)

    async def check_worker_ttl(self) -> None:
        """Look who was silent for too long, whatever time it was when they were heard last."""
        set_by, self._ahead = _ahead() - self._ahead, _ahead()
        for worker in self.workers.values():
            worker.last_seen += set_by
        await super().check_worker_ttl()


def _ahead() -> float:
    """Seconds by which the clock that can be set is ahead of the one that cannot."""
    return time.time() - time.monotonic()
