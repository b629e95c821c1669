"""Choice of the executor that computes a run's tiles, and of its workers, by the config section `compute`."""

import logging
from typing import Any

from cntk_bench import backends, executors
from cntk_bench.errors import UserError
from cntk_bench.executors import Workers
from cntk_bench.system import cores
from cntk_bench.text import short

log = logging.getLogger(__name__)

ELSEWHERE = ("slurm",)  # executors with workers on machines unknown to this one


def require(asked: Any) -> None:
    """Refuse a section `compute` whose executor is unknown, or whose keys do not fit together.

    Raises
    ------
    UserError
    """
    if asked.executor != "auto":
        executors.require(asked.executor)
    if asked.scheduler is not None and asked.executor != "dask":
        raise UserError(
            f"compute.scheduler is {short(asked.scheduler)}, but compute.executor is "
            f"{short(asked.executor)}: use --executor dask"
        )


def chosen(asked: Any, backend: str) -> tuple[str, Workers, int | None]:
    """Choose the executor, its workers, and the threads of each; "auto" uses processes for several GPUs.

    Parameters
    ----------
    asked : config.config.Compute
    backend : str
    """
    devices = backends.devices(backend)
    name = asked.executor
    if name == "auto":
        name = "processes" if len(devices) > 1 and asked.workers != 1 else "local"
    workers = Workers(_places(name, asked, devices), asked.timeout, asked.scheduler, asked.slurm.model_dump())
    threads = _threads(name, asked, len(workers.places))
    _tell(name, asked, len(workers.places), None if devices else threads)
    return name, workers, threads


def _tell(name: str, asked: Any, workers: int, threads: int | None) -> None:
    """Warn about settings that have no effect, or a bad one."""
    if asked.workers not in (None, workers):
        who = "this process alone computes" if name == "local" else "the scheduler has workers of its own"
        how = ": use --executor processes" if name == "local" else ""
        log.warning("compute.workers is %d, but %s%s", asked.workers, who, how)
    elif threads is not None and name != "local" and name not in ELSEWHERE and asked.scheduler is None:
        if workers * threads > (here := cores.bound()):
            log.warning(
                "%d workers with %d threads each on %d cores: fewer would do as much (compute.workers, "
                "compute.threads)", workers, threads, here,
            )  # fmt: skip


def _places(name: str, asked: Any, devices: list[str]) -> tuple[dict[str, str], ...]:
    count = asked.workers
    if name == "local" or asked.scheduler is not None:
        return ({},)
    if name in ELSEWHERE:
        return ({},) * (count or 1)
    if not devices:
        return ({},) * (count or cores.threads())
    return tuple({"CUDA_VISIBLE_DEVICES": devices[n % len(devices)]} for n in range(count or len(devices)))


def _threads(name: str, asked: Any, workers: int) -> int | None:
    """Threads per worker: as asked, else an equal share of this machine's cores; None to leave it open."""
    if asked.threads is not None:
        return asked.threads
    if name == "local" or name in ELSEWHERE or asked.scheduler is not None:
        return None
    return max(1, cores.threads() // workers)
