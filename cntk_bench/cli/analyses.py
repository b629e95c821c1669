"""Commands that get more from a computed run's Gram matrices: flow, posterior, curve."""

import json
import math
from collections.abc import Sequence

import click

from cntk_bench.cli import options, progress, streams
from cntk_bench.errors import UserError
from cntk_bench.report import FORMATS
from cntk_bench.text import short


def _of_run(command):
    """What all of them are given: a run, which of its cells, how many training images, and how to print."""
    for option in (
        options.common,
        click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True),
        click.option(
            "--train",
            type=click.IntRange(2),
            metavar="N",
            help="The first N training images only, which are as balanced as all.",
        ),  # fmt: skip
        click.option("--depth", type=click.IntRange(2), metavar="D", help="This depth only."),
        click.option("--column", metavar="NAME", help="This column only, such as CNTK-GAP."),
        click.argument("directory", metavar="RUN"),
    ):
        command = option(command)
    return command


@click.command()
@_of_run
@click.option("--times", metavar="T,T,...",
              help="Times, relative: t trace(K)/n.  [default: all that matter, by the spectrum]")  # fmt: skip
@click.option("--stop", type=click.Choice(["loo", "validation", "none"]), default="loo", show_default=True,
              help="Stop by exact leave-one-out, or by the last fifth of the training images.")  # fmt: skip
@click.option("--ridge", type=click.FloatRange(0), default=0.0, show_default=True,
              help="Relative to the mean diagonal: weight decay.")  # fmt: skip
@click.option("--network", "networks", multiple=True, metavar="FILE",
              help="A finite network's curve (JSON), drawn over one cell's. May be given again.")  # fmt: skip
def flow(directory, column, depth, train, form, times, stop, ridge, networks):
    """Gradient flow of RUN's kernels: accuracy and loss at any time, and when to stop.

    One eigendecomposition of a stored Gram matrix gives the predictions at every time; infinite time is
    the kernel regression of the table. The stopping time is chosen without the test images. Writes
    RUN/flow/COLUMN-DEPTH.json, .png and .svg.
    """
    from cntk_bench.report import flow as report
    from cntk_bench.runs import analysis
    from cntk_bench.runs import flow as stage

    listed = None if times is None else _numbers(times, "--times", "0.1,1,10")
    _require_finite(ridge, "--ridge")
    curves = tuple(report.network_curve(options.path(file, "--network")) for file in networks)
    opened = _opened(directory, train)
    cells = analysis.cells(opened, column, depth)
    if curves and len(cells) > 1:
        raise UserError(f"--network is of one cell, and {len(cells)} are asked for: add --column and --depth")

    def one(cell):
        return stage.follow(opened, *cell, times=listed, stop=stop, ridge=ridge)

    def draw(facts, path):
        return report.draw(facts, path, curves)

    return _each(opened, "flow", cells, form, one, report.listing, draw)


COMMANDS = (flow,)


def _opened(directory: str, train: int | None):
    from cntk_bench.runs.opened import open_run

    opened = open_run(options.path(directory, "RUN"))
    return opened if train is None else opened.first(train)


def _numbers(text: str, option: str, example: str) -> list[float]:
    """Positive finite numbers separated by commas."""
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(math.isfinite(value) and value > 0 for value in found):
        raise UserError(
            f"{option} {short(text)}: give positive numbers separated by commas, such as {example}"
        )
    return found


def _require_finite(value: float, option: str) -> None:
    from cntk_bench.regression import LARGEST_RIDGE

    if not 0 <= value <= LARGEST_RIDGE:
        raise UserError(f"{option} {value:g}: give a number from 0 to {LARGEST_RIDGE:g}")


def _each(opened, name: str, cells, form: str, one, listing, draw) -> int:
    """Analyse cell after cell; keep, draw and print each at once, so that nothing is lost; the exit code."""
    from cntk_bench.report.listing import written
    from cntk_bench.runs import analysis, record

    results = []
    with progress.bar(name) as advance:
        advance(0, total=len(cells), done=0)
        for cell in cells:
            facts = one(cell)
            results.append(facts)
            kept = analysis.save(opened, name, "{}-{}".format(*cell), facts)
            draw(facts, kept.with_suffix(".png")) and draw(facts, kept.with_suffix(".svg"))
            if form != "json":
                streams.say(written(listing(facts), form))
            advance(1)
    if form == "json":
        streams.say(json.dumps(record.plain(results), indent=2, allow_nan=False))
    elif form == "text":
        streams.say(f"Written to {analysis.folder(opened, name)}")
    return _doubts(results)


def _doubts(results: Sequence[dict]) -> int:
    """Say what is not to be trusted; the exit code."""
    doubtful = [facts for facts in results if facts["doubt"]]
    if not doubtful:
        return 0
    first = doubtful[0]
    streams.complain(
        f"{len(doubtful)} of {len(results)} results are not to be trusted: {first['column']} at depth "
        f"{first['depth']}: {first['doubt']}"
    )
    return 2
