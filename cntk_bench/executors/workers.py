"""What an executor is told of its workers: how many, where, and how long one may be silent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

AHEAD = 4  # tasks that a worker has at once: one that is done, one that is being written, two that follow
ATTEMPTS = 3  # workers that a task may cost
TIMEOUT = 3600.0


@dataclass(frozen=True)
class Workers:
    """Who is to work.

    Parameters
    ----------
    places : tuple of mappings
        The environment variables of each worker, beside those of this process: which GPU is its own, how
        many threads it may use. As many workers as places, where the executor starts them.
    timeout : float
        Seconds without a finished task after which a worker that has tasks is taken for hung, and ended.
    scheduler : str or None
        Address of a Dask scheduler that runs already.
    slurm : mapping
        What jobs ask of Slurm (`config.sections.Slurm`).
    lost : callable
        Called, in words, with how each worker ended that was lost.
    """

    places: tuple[Mapping[str, str], ...] = ({},)
    timeout: float = TIMEOUT
    scheduler: str | None = None
    slurm: Mapping[str, Any] = field(default_factory=dict)
    lost: Callable[[str], None] = lambda how: None
