"""Commands that look at a run: table, solves, status, verify."""

import click

from cntk_bench.cli import options, progress, streams, units
from cntk_bench.errors import UserError
from cntk_bench.report import FORMATS
from cntk_bench.text import short


@click.command()
@click.argument("directory", metavar="RUN")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option(
    "--solve", "number", type=click.IntRange(1), metavar="N", help="That of solve N.  [default: the last]"
)
@options.common
def table(directory, form, number):
    """Print the table of RUN, a solved run directory."""
    from cntk_bench import report
    from cntk_bench.runs import pipeline

    streams.say(report.table(pipeline.solved(options.run_directory(directory), number), form))


@click.command()
@click.argument("directory", metavar="RUN")
@options.common
def solves(directory):
    """List the solves of RUN: when and how each was made, and the accuracies that it found."""
    from cntk_bench.runs import pipeline

    where = options.run_directory(directory)
    found = pipeline.solves(where)
    if not found:
        raise UserError(f"{short(str(where.path))} has no solves yet: run `cntk-bench solve` on it")
    lines = [("solve", "date (UTC)", "ridge", "precision", "device", "accuracy")]
    lines += [_line(solve) for solve in found]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        streams.say("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _line(solve: dict) -> tuple[str, ...]:
    """One solve.json as the cells of a row."""
    asked = solve.get("settings", {}).get("solve", {})
    scores = [solution["accuracy"] for solution in solve["solutions"]]
    least, most = f"{min(scores):.2f}", f"{max(scores):.2f}"
    ridge = asked.get("ridge", "-")
    cells = (
        solve["solve"],
        str(solve.get("started", "-"))[:19].replace("T", " "),
        " ".join(map(str, ridge)) if isinstance(ridge, list) else ridge,
        solve.get("precision", asked.get("precision", "-")),
        solve.get("device", asked.get("device", "-")),
        f"{least} %" if least == most else f"{least} to {most} %",
    )
    return tuple(short(str(cell), 40) for cell in cells)


@click.command()
@click.argument("directory", metavar="RUN")
@options.common
def status(directory):
    """Tell how far the computation of RUN is: tiles done, rate, time left."""
    from cntk_bench.grams import store

    grams = store.open(options.run_directory(directory).gram)
    total = grams.plan.tiles()
    pairs = sum(tile.pairs(grams.plan) for tile in grams.done)
    seconds = sum(done.seconds for done in grams.done.values())
    streams.say(f"{len(grams.done)} of {len(total)} tiles done, {pairs:,} of {grams.plan.pairs:,} pairs")
    if pairs and seconds:
        left = (grams.plan.pairs - pairs) * seconds / pairs
        streams.say(
            f"{pairs / seconds:,.1f} pairs per second, {units.duration(left)} left on the same machine"
        )


@click.command()
@click.argument("directory", metavar="RUN")
@click.option("--sample", type=click.IntRange(0), default=4, show_default=True,
              help="Pairs to compute again in float64.")  # fmt: skip
@click.option("--repair", is_flag=True, help="Compute damaged tiles anew.")
@options.overridable("dataset.path=FILE if the data have moved")
@options.common
def verify(directory, sample, repair, overrides):
    """Check RUN's stored tiles: checksums, consistency, and a sample of entries in float64."""
    from cntk_bench.runs import pipeline

    where = options.run_directory(directory)
    with progress.bar("verifying") as advance:
        found = pipeline.verify(where, where.config(overrides), sample, repair, lambda *_: advance(1))
    for kind, tiles in (("damaged", found.damaged), ("cannot be read", found.unreadable)):
        for tile, fault in tiles.items():
            streams.say(f"{kind}: {tile}: {short(str(fault), 200)}")
    errors = [entry.error for entry in found.entries]
    streams.say(
        f"{found.checked} tiles checked, {len(found.damaged)} damaged, {found.missing} not computed yet; "
        f"{len(errors)} entries computed again in float64"
        + (f", largest relative error {max(errors):.1e}" if errors else "")
    )
    if found.damaged:
        streams.complain(f"run `cntk-bench verify {short(directory, 150)} --repair` to compute them anew")
        return 1
    if found.unreadable:
        raise UserError(
            f"{len(found.unreadable)} tiles of {short(str(where.gram))} cannot be read now, so nothing is "
            "known of them: mend that and run `verify` again"
        )
    return 0


COMMANDS = (table, solves, status, verify)
