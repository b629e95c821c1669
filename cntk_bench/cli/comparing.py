"""Commands that compare several solves: compare, sweep."""

import json
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from cntk_bench.cli import completion, document, logfile, options, progress, stages, streams
from cntk_bench.errors import UserError
from cntk_bench.text import one_line, short

if TYPE_CHECKING:
    from cntk_bench.comparisons.sweep import Failed, Part, Solved
    from cntk_bench.report.listing import Listing

log = logging.getLogger(__name__)


@click.command()
@click.argument("given", metavar="RUN...", nargs=-1, required=True, shell_complete=completion.runs)
@options.formatted
@click.option(
    "--paired", is_flag=True, help="Print paired tests of the differences, on the same test images."
)
@click.option("--against", metavar="COLUMN", help="With --paired: only pairs that include this column.")
@click.option(
    "-o", "--output", metavar="DIR", help="Write tables and tests as one HTML page, DIR/index.html."
)
@options.common
def compare(given: tuple[str, ...], form: str, paired: bool, against: str | None, output: str | None) -> None:
    """Compare solves of several runs: settings that differ become columns, shared ones are stated once.

    RUN is a run directory (its last solve), RUN@N (its solve N, as `solves` lists them), RUN@all, or a
    record.json, which needs no run directory. Solves that agree in every setting share a row.

    --paired tests whether columns of one solve, or the same cells of several solves, differ significantly,
    by McNemar's exact test, or Student's t over draws, with Holm's correction.
    """
    from cntk_bench.comparisons import alike, compared_page, entries, pairs, table
    from cntk_bench.report import compared
    from cntk_bench.report import paired as tests

    if against is not None and not paired and output is None:
        raise click.UsageError("--against needs --paired: give both.")
    if output is not None and form != "text":
        raise click.UsageError(
            f"--format {form} is of what is printed, --output of a page: leave one of them out."
        )
    cells = alike.cells(entries.entries(given))
    if output is not None:
        folder = options.path(output, "--output")
        written = compared_page.write(cells, ["compare", *given], folder, against)
        document.add(page=written)
        streams.say(f"written: {written}")
        return
    if paired:
        found = pairs.compare(cells, against)
        _print(found, lambda: tests.listing(found, pairs.count(cells, against)), form)
        return
    rows = table.rows(cells)
    _print(rows, lambda: compared.listing(rows), form)


@click.command()
@options.configured
@options.executor
@click.option("--over", multiple=True, required=True, metavar="KEY[=VALUES]",
              help="A key and a list of values, such as solve.ridge=[0,1e-4]; KEY alone takes each value of "
              "the config's list. If repeated, all combinations are solved.")  # fmt: skip
@options.formatted
def sweep(
    config: str,
    overrides: tuple[str, ...],
    backend: str | None,
    output: str | None,
    executor: str | None,
    over: tuple[str, ...],
    form: str,
) -> int:
    """Solve CONFIG with every combination of some values, and compare the solves, all of which are kept.

    Gram matrices are computed once, for the largest settings. Each value of a key that decides the images,
    such as dataset.seed, gets its own run, in DIR/KEY=VALUE. After an interruption, combinations already
    solved with the same settings and images are not solved again. Writes DIR/sweep.
    """
    from cntk_bench.comparisons import sweep
    from cntk_bench.records.solves import show_last
    from cntk_bench.runs import images

    overrides = options.with_choices(overrides, backend, executor)
    where = None if output is None else options.path(output, "--output")
    parts = sweep.parts(options.located(config), overrides, over, where)
    made: list[sweep.Solved] = []
    failed: list[sweep.Failed] = []
    logfile.begin(parts[0].run.path)
    for part in parts:
        first = part.computed[0]
        images.fetch(first.dataset.name, first.dataset.path, streams.terminal())
        _computed(part, failed)
    with progress.bar("solving", "combinations") as advance:
        advance(0, total=sum(len(part.combinations) for part in parts), done=0)
        for part in parts:
            _solved(part, made, failed, lambda: advance(1))
    if not made:
        raise UserError(f"{sweep.label(failed[0].combination)}: {failed[0].reason}")
    cells, rows, table = sweep.compared(made)
    kept = sweep.keep(parts, made, failed, cells, rows, table)
    for part in parts:
        try:
            show_last(part.run)
        except (UserError, OSError) as error:  # the solves and their comparison are there without it
            log.warning(
                "%s does not show its last solve: %s", short(str(part.run.path)), one_line(error, 200)
            )
    _print(rows, lambda: table, form)
    document.add(sweep=kept.parent, failed=[sweep.label(one.combination) for one in failed])
    if form == "text":
        streams.say(f"\nAll results are in {kept.parent}; this table is in {kept}")
    return _end(rows, failed)


def _computed(part: "Part", failed: "list[Failed]") -> None:
    """Compute what a part's combinations need, and train; failed training does not stop the others."""
    from cntk_bench.comparisons.sweep import Failed
    from cntk_bench.runs import train

    for settings in part.computed:
        train.require(settings)
        stages.compute_run(settings, part.run, None)
    trained = [one for one in part.combinations if train.needed(one.settings)]
    for one in trained:
        train.require(one.settings)
    for one in trained:
        try:
            stages.train_run(one.settings, part.run)
        except UserError as error:
            failed.append(Failed(part.run, one, str(error)))
    if trained or len(part.computed) > 1:  # so that the run's config is the largest one
        stages.compute_run(part.computed[0], part.run, None)


def _solved(
    part: "Part",
    made: "list[Solved]",
    failed: "list[Failed]",
    advance: Callable[[], None],
) -> None:
    """Solve the unsolved combinations of a part; one that fails does not stop the others."""
    from cntk_bench.comparisons.sweep import EarlierSolves, Failed, Solved
    from cntk_bench.runs import solve

    earlier, lost = EarlierSolves(part.run), [one.combination for one in failed]
    for one in part.combinations:
        if one not in lost:
            number = earlier.number(one.settings)
            try:
                number = number or solve.solve(part.run, one.settings)["solve"]
                made.append(Solved(part.run, one, number))
            except UserError as error:
                failed.append(Failed(part.run, one, str(error)))
        advance()


def _end(rows: Sequence[dict], failed: "Sequence[Failed]") -> int:
    """Report what could not be solved, and what cannot be trusted; return the exit code."""
    from cntk_bench.comparisons import sweep

    for one in failed:
        streams.complain(f"not solved: {short(sweep.label(one.combination), 100)}: {one.reason}")
    doubtful = sum(not row["trusted"] for row in rows)
    if doubtful:
        streams.complain(f"{doubtful} of {len(rows)} rows are not to be trusted: the table says why")
    return 2 if failed or doubtful else 0


def _print(facts: list[dict], listing: "Callable[[], Listing]", form: str) -> None:
    from cntk_bench.records import record
    from cntk_bench.report.listing import written

    document.add(rows=facts)
    if form == "json":
        streams.say(json.dumps(record.plain(facts), indent=2, allow_nan=False))
    else:
        streams.say(written(listing(), form))


COMMANDS = (compare, sweep)
