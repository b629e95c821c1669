"""The stage `solve`: fill and score every cell of a computed run."""

import logging
import time
from collections.abc import Callable, Sequence

from cntk_bench import columns, report
from cntk_bench.columns import Cell, Curve
from cntk_bench.config.config import Config
from cntk_bench.errors import UserError
from cntk_bench.records import provenance, record
from cntk_bench.records.cells import keep_cell, solved_cell, stem
from cntk_bench.records.directory import Run
from cntk_bench.records.solves import new_solve, numbers, publish, read_solve
from cntk_bench.regression import AUTO, SOLVERS
from cntk_bench.runs import candidates, draws
from cntk_bench.runs.export import npz
from cntk_bench.runs.filling import filled
from cntk_bench.runs.inputs import RunInputs
from cntk_bench.runs.scoring import scored
from cntk_bench.system import memory
from cntk_bench.system.files import write_atomic

log = logging.getLogger(__name__)


def solve(
    run: Run,
    settings: Config,
    progress: Callable | None = None,
    tell: Callable[[str], None] = log.info,
) -> dict:
    """Fill every cell of a computed run, and score each on the test set once.

    Parameters
    ----------
    run : Run
    settings : Config
        The run's config, or one for a part of it: fewer images, columns or depths. Its section
        `solve` may differ.
    progress : callable, optional
        Called with (column, depth) of each cell once it is solved.
    tell : callable
        Called with messages on how matrices are solved, if not by a Cholesky factor, and on the progress.

    Returns
    -------
    dict
        The run's record, with this solve's number, data and solutions.

    Raises
    ------
    UserError
        If something that the cells need was not computed yet, or a cell cannot be solved.
    """
    started = time.perf_counter()
    inputs = RunInputs(run, settings, tell)
    stage = record.stage(
        "solve", settings.sections("dataset", "preprocess", "kernel", "solve", *columns.section_names())
    ) | {"code": provenance.code()}
    if settings.kernel.readouts:
        place = inputs.place
        stage |= {"device": place.device, "precision": place.dtype, "solver": place.method}
        stage |= {"memory": place.host, "grams": inputs.fingerprints()}
    solutions = []
    asked = {"images": inputs.facts["fingerprint"]}
    decides = "code", "settings", "versions", "device", "precision", "solver", "grams"
    asked |= {key: stage[key] for key in decides if key in stage}
    columns.require(settings.kernel.columns, inputs.request)
    with new_solve(run, asked) as folder, inputs:
        for name, depth in settings.kernel.cells:
            # Reuse cells of an interrupted call, but not those of other packages, which may have changed.
            ours = settings.solve.solver in (AUTO, *SOLVERS) and not columns.is_foreign(name)
            solution = solved_cell(folder, name, depth) if ours else None
            if solution is None:
                shown: list[tuple[Cell, dict]] = []
                curves: dict[str, Curve] = {}
                for draw, part in enumerate(inputs.each_draw(), 1):
                    whole = filled(name, depth, part)
                    shown.append(candidates.shown(whole, inputs.y_test, scored))
                    curves |= draws.curves(whole.curves, draw, inputs.draws)
                cells, scores = zip(*shown, strict=True)
                score = scores[0] if inputs.draws == 1 else draws.merged(scores, len(inputs.y_test))
                arrays = draws.arrays(cells) | {"y_test": inputs.y_test}
                write_atomic(folder / f"{stem(name, depth)}.npz", npz(arrays))
                for of, curve in curves.items():
                    drawn = candidates.drawn(curve, inputs.y_test, inputs.classes)
                    write_atomic(folder / f"{stem(name, depth)}-curve-{of}.json", drawn)
                solution = record.plain({"column": name, "depth": depth, **score})
                keep_cell(folder, solution)
            solutions.append(solution)
            if progress is not None:
                progress((name, depth))
        stage |= {"seconds": time.perf_counter() - started, "peak_memory": memory.peak()}
        return publish(
            run, folder, record.plain(stage | {"data": inputs.facts, "solutions": solutions}), report.write
        )


def solves(run: Run) -> list[dict]:
    """Read the solve.json of every solve of a run, in order.

    For a damaged one, the dict has only its number, "solve", and the reason, "damaged".
    """
    found = []
    for number in numbers(run):
        try:
            found.append(read_solve(run, number))
        except UserError as error:
            found.append({"solve": number, "damaged": str(error)})
    return found


def solved(run: Run, number: int | None = None) -> dict:
    """The run's record with the data and solutions of one of its solves, by default the last."""
    past = record.load(run.record)
    if number is None:
        return past
    found = read_solve(run, number)
    return record.with_solutions(past | {"data": found.get("data", past["data"])}, number, found["solutions"])


def doubtful(solutions: Sequence[dict]) -> list[dict]:
    """The solutions that cannot be trusted."""
    return [solution for solution in solutions if not solution.get("trusted", True)]
