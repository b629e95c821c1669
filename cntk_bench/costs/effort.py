"""Predict what training a run's networks will take here, cell by cell."""

from dataclasses import dataclass

from cntk_bench.columns.column import Effort
from cntk_bench.config.config import Config
from cntk_bench.data import Dataset
from cntk_bench.records.directory import Run
from cntk_bench.report.rows import cell_name
from cntk_bench.runs import images
from cntk_bench.runs.material import Material, jobs


@dataclass(frozen=True)
class Cell:
    """The training of one cell.

    label : column and depth.
    count, left : numbers of its pieces of training, and of those that are not done.
    each : what one piece takes at most; None where the column cannot tell.
    """

    label: str
    count: int
    left: int
    each: Effort | None


def efforts(run: Run, settings: Config, loaded: Dataset) -> list[Cell]:
    """Predict what every cell that has to be trained takes at most, by timing some steps of each.

    Pieces that were begun count as if they were not.
    """
    facts = images.record_facts(settings, loaded, images.image_facts(loaded))
    material = Material(run, settings, facts, loaded)
    found = []
    for name, depth, some in jobs(settings, material):
        left = sum(not job.done().finished for job in some)
        effort = getattr(some[0], "effort", None) if some else None
        each = effort() if effort is not None and left else None
        found.append(Cell(cell_name(name, depth), len(some), left, each))
    return found
