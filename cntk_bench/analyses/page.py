"""Write the HTML page of any solve of a run, with the results added since the solve."""

import logging
import math
from pathlib import Path

from cntk_bench.analyses import findings, spectrum
from cntk_bench.config.config import Config
from cntk_bench.errors import UserError
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.records.solves import none_now, numbers
from cntk_bench.report import page
from cntk_bench.runs.solve import solved
from cntk_bench.system.files import remove_partial, require_no_link, write_atomic, writing
from cntk_bench.text import one_line, short

log = logging.getLogger(__name__)


def write(
    run: Run,
    settings: Config,
    number: int | None = None,
    output: Path | None = None,
    with_spectrum: bool = False,
) -> list[Path]:
    """Write the page of a solve, by default of the last.

    Parameters
    ----------
    run : Run
    settings : Config
        The run's; only the path of its data may have changed.
    number : int, optional
        The solve's number.
    output : Path, optional
        The file; by default index.html in the solve's report, and for the last solve in RUN/report, too.
    with_spectrum : bool
        Compute eigenvalues, whatever they cost, and keep them in RUN/spectrum.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UserError
        If there is no such solve, or the page cannot be written.
    """
    shown = solved(run, number)
    known = numbers(run)
    if "solve" not in shown or not known:
        raise none_now(run)
    if shown["solve"] not in known:
        raise UserError(
            f"{short(str(run.path))} has no folder {run.solves.name}/{shown['solve']} any more: run "
            "`cntk-bench solve` on it, or name another solve by --solve N"
        )
    folder = run.solves / str(shown["solve"])
    if with_spectrum:
        spectrum.compute(run, shown["data"], shown["solutions"], findings.matrices(shown))
    text = page.html(shown, findings.gather(run, settings, shown, folder))
    if output is not None:
        with writing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(output, text)
        return [output]
    with run.lock(math.inf):
        last = record.load(run.record).get("solve") == shown["solve"]
        files = [place / page.FILE for place in (folder / "report", *([run.report] if last else []))]
        for file in files:
            require_no_link(file.parent)
            with writing(file.parent):
                file.parent.mkdir(exist_ok=True)
            remove_partial(file.parent)
            write_atomic(file, text)
    return files


def write_after_solve(run: Run, settings: Config, number: int) -> None:
    """Write the page as `write` does, but only warn if that fails: the solve is complete without it."""
    try:
        write(run, settings, number)
    except (UserError, OSError, MemoryError) as error:
        log.warning("solve %d has no page (%s): `cntk-bench page` writes it", number, one_line(error, 200))
