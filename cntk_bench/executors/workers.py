"""An executor's settings for its workers: how many, where, and how long one may be silent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

AHEAD = 4  # tasks that a worker has at once: one being computed, one being written, two waiting
ATTEMPTS = 3  # workers that a task may cost before it is given up
TIMEOUT = 3600.0  # seconds


@dataclass(frozen=True)
class Workers:
    """Settings of an executor's workers.

    Parameters
    ----------
    places : tuple of mappings
        Environment variables of each worker, in addition to those of this process: which GPU it uses, how
        many threads. An executor that starts its workers starts one per place.
    timeout : float
        Seconds without a finished task after which a worker that has tasks is considered hung and ended.
    scheduler : str or None
        Address of a Dask scheduler that runs already.
    slurm : mapping
        What jobs request from Slurm (`config.sections.Slurm`).
    lost : callable
        Called for each lost worker with how it ended, in words.
    """

    places: tuple[Mapping[str, str], ...] = ({},)
    timeout: float = TIMEOUT
    scheduler: str | None = None
    slurm: Mapping[str, Any] = field(default_factory=dict)
    lost: Callable[[str], None] = lambda how: None
