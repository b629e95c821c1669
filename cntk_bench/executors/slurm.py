"""Executor for a Slurm cluster: each job is one worker of a Dask scheduler in this process.

Jobs come and go: one that ends, for whatever reason, is replaced while there is something to do (`jobs`). The
scheduler must be reachable from the nodes, so it listens on the network; it accepts only connections with the
certificates of this call, which jobs find in a folder that only the user can read.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.executors import certificates, dask
from cntk_bench.executors.workers import Workers
from cntk_bench.text import one_line

try:
    import dask_jobqueue
    import distributed

    from cntk_bench.executors import connections, jobs
    from cntk_bench.executors.scheduler import Scheduler
except ImportError as error:
    raise UserError(
        f"the executor slurm needs dask-jobqueue ({one_line(error, 80)}): pip install 'cntk-bench[cluster]'"
    ) from None

# Workers serve no web pages, since these would be readable without a certificate.
SETTINGS = ["export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'"]
PATIENCE = "300s"  # time in which a job must find the scheduler


def run(
    job: Any,
    tasks: Iterable[Any],
    report: Callable[[Any], None],
    stopped: Callable[[], bool],
    workers: Workers,
) -> None:
    """Do tasks; see `cntk_bench.executors.run`."""
    if not shutil.which("sbatch"):
        raise UserError(
            "there is no sbatch here: start this where jobs are submitted, or use --executor processes"
        )
    with connections.settings(workers), _cluster(workers) as (client, watch):

        def asked() -> bool:
            if ending := stopped():
                return ending
            watch.look()
            return False

        dask.drive(client, job, tasks, report, asked, workers)


@contextmanager
def _cluster(workers: Workers) -> Iterator[Any]:
    """Start a scheduler and its Slurm jobs; yield a client and the watch over the jobs."""
    security, logs = certificates.made(), Path.cwd() / "slurm-logs"
    # Jobs read this folder from their nodes, whose /tmp is another one.
    with TemporaryDirectory(prefix=".cntk-bench-", dir=Path.cwd()) as folder:
        asked = options(workers.slurm)
        try:
            cluster = dask_jobqueue.SLURMCluster(
                **asked,
                protocol="tls://",
                security=security,
                shared_temp_directory=folder,
                log_directory=str(logs),
                job_cls=jobs.Job,  # type: ignore[arg-type]
                scheduler_cls=Scheduler,
                scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise UserError(
                f"Slurm's workers cannot be prepared ({one_line(error, 120)}): mend compute.slurm"
            ) from None
        with ExitStack() as stack:
            stack.callback(_remove_files, cluster)
            stack.enter_context(cluster)
            cluster.adapt(minimum_jobs=len(workers.places), maximum_jobs=len(workers.places))
            with distributed.Client(cluster, security=security, set_as_default=False) as client:
                yield client, jobs.Watch(cluster, logs)


def _remove_files(cluster: Any) -> None:
    """Remove the certificates' files now: dask-jobqueue would at Python's end, when their folder is gone."""
    for name, file in vars(cluster).items():
        if name.startswith("_job_") and hasattr(file, "close"):
            file.close()


def options(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the config's section `compute.slurm` into arguments of `dask_jobqueue.SLURMCluster`."""
    directives = [f"--gres={asked['gres']}"] if asked["gres"] else []
    return {
        "queue": asked["partition"],
        "account": asked["account"],
        "cores": 2,  # threads of the worker: one computes while the other writes
        "job_cpu": asked["cores"],
        "processes": 1,
        "memory": asked["memory"],
        "walltime": asked["time"],
        "interface": asked["interface"],
        "job_name": "cntk-bench",
        "job_extra_directives": [*directives, *asked["directives"]],
        "job_script_prologue": ["umask 077", *SETTINGS, *asked["environment"]],
        "death_timeout": PATIENCE,
        "worker_extra_args": ["--memory-limit", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"],
        "local_directory": "${TMPDIR:-/tmp}",
    }
