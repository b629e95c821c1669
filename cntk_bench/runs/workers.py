"""Who computes a run's tiles: the executor, and a place for each of its workers, by the keys of `compute`."""

from typing import Any

from cntk_bench import backends, executors
from cntk_bench.errors import UserError
from cntk_bench.executors import Workers
from cntk_bench.system import cores
from cntk_bench.text import short

ELSEWHERE = ("slurm",)  # whose workers are in places that this machine knows nothing of


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
    """The executor, its workers, and the threads of each; "auto" takes processes for several GPUs.

    Parameters
    ----------
    asked : runs.config.Compute
    backend : str
    """
    devices = backends.devices(backend)
    name = asked.executor
    if name == "auto":
        name = "processes" if len(devices) > 1 and asked.workers != 1 else "local"
    workers = Workers(
        _places(name, asked.workers, devices), asked.timeout, asked.scheduler, asked.slurm.model_dump()
    )
    return name, workers, _threads(name, asked, len(workers.places))


def _places(name: str, count: int | None, devices: list[str]) -> tuple[dict[str, str], ...]:
    if name == "local":
        return ({},)
    if name in ELSEWHERE:
        return ({},) * (count or 1)
    if not devices:
        return ({},) * (count or cores.threads())
    return tuple({"CUDA_VISIBLE_DEVICES": devices[n % len(devices)]} for n in range(count or len(devices)))


def _threads(name: str, asked: Any, workers: int) -> int | None:
    """As asked; else, for workers of this machine, an equal share of its cores."""
    if asked.threads is not None:
        return asked.threads
    if name == "local" or name in ELSEWHERE or asked.scheduler is not None:
        return None
    return max(1, cores.threads() // workers)
