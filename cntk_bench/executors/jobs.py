"""Handling of Slurm jobs that never become workers: refused by sbatch, or ended before they begin.

Dask replaces a worker that it knew and lost, but waits for ever for a job that never became a worker.
"""

import asyncio
import logging
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from dask_jobqueue.slurm import SLURMJob
from distributed.deploy.spec import ProcessInterface

from cntk_bench.errors import UserError
from cntk_bench.executors.workers import ATTEMPTS
from cntk_bench.text import one_line, short

log = logging.getLogger(__name__)

LOOK = 30.0  # seconds between queries of Slurm's job list
ANSWER = 20.0  # seconds in which Slurm must answer


class Job(SLURMJob):
    """A job that remembers why sbatch refused it."""

    refused = ""

    async def start(self) -> None:
        """Submit the job; a refusal is kept in `refused`."""
        try:
            await super().start()
        except (RuntimeError, ValueError, OSError) as error:
            self.refused = one_line(str(error).rpartition("stderr:")[2], 160) or "no reason is given"
            await ProcessInterface.start(self)

    async def close(self) -> None:
        """Cancel the job."""
        await super().close()
        await ProcessInterface.close(self)


class Watch:
    """Watches the jobs of a cluster and replaces those that will never be workers.

    Parameters
    ----------
    cluster : dask_jobqueue.SLURMCluster
        Its jobs are of the class `Job`, their number kept constant by `adapt`.
    logs : Path
        The folder of the jobs' logs.
    """

    def __init__(self, cluster: Any, logs: Path):
        self._cluster, self._logs = cluster, logs
        self._looked = time.monotonic()
        self._begun: set[str] = set()  # jobs that became workers
        self._early = 0  # jobs that ended without becoming workers, since there last was a worker

    def look(self) -> None:
        """Replace jobs that will never be workers; to be called often.

        Raises
        ------
        UserError
            If sbatch refuses a job and none has ever begun, or if too many end before any becomes a worker.
        """
        workers = {worker.name for worker in list(self._cluster.scheduler.workers.values())}
        jobs = dict(self._cluster.workers)
        self._begun |= {job.job_id for name, job in jobs.items() if name in workers}
        if workers:
            self._early = 0
        refusals = [job.refused for job in jobs.values() if job.refused]
        if refusals and not self._begun:
            raise UserError(f"Slurm refuses the jobs ({refusals[0]}): mend compute.slurm")
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        if (there := _queued()) is None:
            return
        over = {
            name: job for name, job in jobs.items()
            if job.refused or job.job_id and job.job_id not in there | self._begun
        }  # fmt: skip
        self._early += sum(not job.refused for job in over.values())
        if self._early >= ATTEMPTS and not workers:
            raise UserError(
                f"{self._early} of Slurm's jobs ended before they could begin: read why in "
                f"{short(str(self._logs))}, and mend compute.slurm"
            )
        for name, job in over.items():
            why = f"Slurm refused it: {job.refused}" if job.refused else "it ended before it could begin"
            log.warning("another job is asked for in place of %s (%s)", name, why)
        if over:
            self._cluster.loop.add_callback(self._forget, over)

    def _forget(self, over: dict[str, Job]) -> None:
        """Make the cluster forget some jobs, so that it submits others; runs in the cluster's thread."""
        for name, job in over.items():
            if self._cluster.workers.get(name) is job:
                del self._cluster.workers[name]
                self._cluster.worker_spec.pop(name, None)
                asyncio.ensure_future(job.close())


def _queued() -> set[str] | None:
    """IDs of our pending and running jobs; None if Slurm does not answer now."""
    command = ["squeue", "-h", "-u", str(os.getuid()), "-o", "%A"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(done.stdout.split()) if done.returncode == 0 else None
