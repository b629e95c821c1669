"""Commands that analyse a computed run's Gram matrices: flow, posterior, curve."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cntk_bench.cli import document, logfile, options, progress, streams
from cntk_bench.errors import UserError
from cntk_bench.text import short

if TYPE_CHECKING:
    from cntk_bench.report.listing import Listing
    from cntk_bench.runs.access import OpenRun


def _of_run(command: options.Command) -> options.Command:
    """Add the options of all these commands: run, cells, number of training images, output format."""
    given = (
        options.formatted,
        click.option("--train", type=click.IntRange(2), metavar="N",
                     help="Use only the first N training images, as class-balanced as the whole set."),
        click.option("--depth", type=click.IntRange(1), metavar="D", help="Analyse this depth only."),
        options.of_column(help="Analyse this column only, such as CNTK-GAP."),
        options.of_run,
    )  # fmt: skip
    for option in given:
        command = option(command)
    return command


@click.command()
@_of_run
@click.option("--times", metavar="T,T,...",
              help="Times, in units of n / trace(K).  [default: times that span the spectrum]")  # fmt: skip
@click.option("--stop", type=click.Choice(["loo", "validation", "none"]), default="loo", show_default=True,
              help="Choose the time by exact leave-one-out, or on the last fifth of the training "
              "images.")  # fmt: skip
@click.option("--ridge", type=options.Number(0), default=0.0, show_default=True,
              help="Weight decay, relative to the mean diagonal of the Gram matrix.")  # fmt: skip
@click.option("--network", "networks", multiple=True, metavar="FILE",
              help="Curve of a finite network (JSON), drawn over the cell's. May be repeated.")  # fmt: skip
def flow(
    directory: str,
    column: str | None,
    depth: int | None,
    train: int | None,
    form: str,
    times: str | None,
    stop: str,
    ridge: float,
    networks: tuple[str, ...],
) -> int:
    """Gradient flow of RUN's kernels: accuracy and loss at any time, and when to stop.

    One eigendecomposition of a stored Gram matrix gives the predictions at every time; at infinite time they
    are those of kernel regression. The stopping time is chosen without the test images. Writes
    RUN/flow/COLUMN-DEPTH.json, .png and .svg.
    """
    from cntk_bench.analyses import analysis
    from cntk_bench.analyses import flow as stage
    from cntk_bench.report import flow as report
    from cntk_bench.report import style

    listed = None if times is None else _numbers(times, "--times", "0.1,1,10")
    _require_ridge(ridge, "--ridge")
    curves = [report.network_curve(options.path(file, "--network")) for file in networks]
    opened = _opened(directory, train)
    cells = analysis.cells(opened, "flow", column, depth)
    if curves and len(cells) > 1:
        raise UserError(
            f"--network is the curve of one cell, but {len(cells)} are analysed: add --column and --depth"
        )

    def one(cell: tuple[str, int]) -> dict:
        facts = stage.follow(opened, *cell, times=listed, stop=stop, ridge=ridge)
        return facts | {"networks": curves} if curves else facts

    results, keep = [], _Keeping()
    for facts, stem in _each(opened, "flow", cells, one, keep):
        results.append(facts)
        words = report.title(facts), report.note(facts)
        keep(partial(style.save, stem, partial(report.figure, facts, words=words)))
        if form != "csv":
            _print(report.listing(facts), form)
    if form == "csv":
        _print(report.together(results), form)
    return _end(opened, "flow", results, form, keep)


@click.command()
@_of_run
@click.option("--sizes", metavar="N,N,...",
              help="Numbers of training images.  [default: all, halved down to two per class]")  # fmt: skip
@click.option("--ridge", type=options.Number(0),
              help="Ridge, relative to the mean diagonal of the whole matrix.  [default: solve.ridge of "
              "the run]")  # fmt: skip
@click.option("--extrapolate", type=click.IntRange(2, 10**9), metavar="N",
              help="Fit a power law, and extrapolate it to N training images.")  # fmt: skip
def curve(
    directory: str,
    column: str | None,
    depth: int | None,
    train: int | None,
    form: str,
    sizes: str | None,
    ridge: float | None,
    extrapolate: int | None,
) -> int:
    """Learning curves of RUN's kernels: test accuracy on the first N training images, for several N.

    One Cholesky factor of a stored Gram matrix gives all sizes. Training images are in a seeded order in
    which the first N are balanced over the classes, for every N. Several draws give a mean and a standard
    deviation. Writes RUN/curve/COLUMN-DEPTH.json, and accuracy.png and .svg with all cells.
    """
    from cntk_bench.analyses import analysis
    from cntk_bench.analyses import curve as stage
    from cntk_bench.report import curve as report
    from cntk_bench.report import extrapolation, style

    listed = None if sizes is None else _numbers(sizes, "--sizes", "100,200,400", whole=True)
    if ridge is not None:
        _require_ridge(ridge, "--ridge")
    opened = _opened(directory, train, every=True)
    cells = analysis.cells(opened, "curve", column, depth)

    def one(cell: tuple[str, int]) -> dict:
        return stage.follow(opened, *cell, listed=listed, ridge=ridge, extrapolate=extrapolate)

    keep = _Keeping()
    results = [facts for facts, _ in _each(opened, "curve", cells, one, keep)]
    words = report.title(results), report.note(results)
    stem = opened.run.path / "curve" / "accuracy"
    keep(partial(style.save, stem, partial(report.figure, results, words=words)))
    _print(report.listing(results), form)
    code = _end(opened, "curve", results, form, keep)
    refused = extrapolation.refusals(results)
    if refused:
        others = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        streams.complain(refused[0] + others)
    return 2 if refused else code


@click.command()
@_of_run
@click.option("--ridge", type=options.Number(0), metavar="R",
              help="Noise variance, relative to the mean diagonal.  [default: maximum "
              "likelihood]")  # fmt: skip
@click.option("--path", metavar="FILE", help="Where the data set is, if it has moved.")
def posterior(
    directory: str,
    column: str | None,
    depth: int | None,
    train: int | None,
    form: str,
    ridge: float | None,
    path: str | None,
) -> int:
    """Calibration of the Gaussian process posterior for the NNGP columns of RUN (CNN-GP-*, FC-NNGP).

    Reports the negative log likelihood of the test targets, coverage of intervals, and calibration of class
    probabilities. Reads the test images, to compute the kernel of each with itself. Writes
    RUN/posterior/COLUMN-DEPTH.json, .npz, .png and .svg.
    """
    from cntk_bench.analyses import analysis
    from cntk_bench.analyses import posterior as stage
    from cntk_bench.report import posterior as report
    from cntk_bench.report import style

    if ridge is not None:
        _require_ridge(ridge, "--ridge")
    opened = _opened(directory, train)
    cells = analysis.cells(opened, "posterior", column, depth, stage.is_nngp, "an NNGP column", "CNN-GP-V")
    place = None if path is None else options.path(path, "--path").absolute()
    moved = () if place is None else (options.assigned("dataset.path", place),)
    with progress.bar("kernels", "images") as advance:
        advance(0, total=opened.sizes[1], done=0)
        own = stage.own_kernels(opened, opened.run.config(moved), cells, lambda: advance(1))

    def one(cell: tuple[str, int]) -> dict:
        facts, arrays = stage.infer(opened, *cell, own[opened.readout(*cell)], ridge)
        keep(partial(analysis.keep, opened, "posterior", "{}-{}".format(*cell), arrays))
        return facts

    results, keep = [], _Keeping()
    for facts, stem in _each(opened, "posterior", cells, one, keep):
        results.append(facts)
        words = report.title(facts), report.note(facts)
        keep(partial(style.save, stem, partial(report.figure, facts, words=words)))
        if form == "text":
            _print(report.calibration(facts), form)
    _print(report.listing(results), form)
    return _end(opened, "posterior", results, form, keep)


COMMANDS = (flow, posterior, curve)


def _opened(directory: str, train: int | None, every: bool = False) -> "OpenRun":
    """Open a run, and report what is not analysed; `every` draw is, unless `train` is given."""
    from cntk_bench.analyses import analysis
    from cntk_bench.report.caveats import caveats
    from cntk_bench.runs.access import open_run

    opened = open_run(options.path(directory, "RUN"))
    logfile.begin(opened.run.path)
    opened = opened if train is None else opened.first(train)
    for words in caveats([{"ignored": analysis.ignored(opened, every)}]):
        streams.complain(words[:1].lower() + words[1:].rstrip("."))
    return opened


def _numbers(text: str, option: str, example: str, whole: bool = False) -> list:
    """Parse positive finite numbers separated by commas; if `whole`, integers."""
    found = []
    for word in text.split(","):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0) or whole and value != int(value):
            kind = "integers above 0" if whole else "positive numbers"
            raise UserError(f"{option} {short(text)}: give {kind} with commas between, such as {example}")
        found.append(int(value) if whole else value)
    return found


def _require_ridge(value: float, option: str) -> None:
    from cntk_bench.regression import LARGEST_RIDGE

    if value > LARGEST_RIDGE:
        raise UserError(f"{option} {value:g}: give a number from 0 to {LARGEST_RIDGE:g}")


class _Keeping:
    """Writes what an analysis found. If that fails, the results are still printed; `failed` tells of it."""

    failed = False

    def __call__(self, write: Callable[[], object]) -> None:
        if self.failed:
            return
        try:
            write()
        except UserError as error:
            self.failed = True
            streams.complain(f"results are printed, but not all are kept: {error}")


def _each(
    opened: "OpenRun",
    name: str,
    cells: Sequence[tuple[str, int]],
    one: Callable[[tuple[str, int]], dict],
    keep: _Keeping,
) -> Iterator[tuple[dict, Path]]:
    """Analyse cell after cell, keeping each at once so that nothing is lost.

    Yields each cell's facts, and the path of its files without their suffixes.
    """
    from cntk_bench.analyses import analysis

    with progress.bar(name) as advance:
        advance(0, total=len(cells), done=0)
        for cell in cells:
            facts, stem = one(cell), "{}-{}".format(*cell)
            keep(partial(analysis.save, opened, name, stem, facts))
            yield facts, opened.run.path / name / stem
            advance(1)


def _print(listing: "Listing", form: str) -> None:
    """Print a table, unless the format is JSON, which is printed at the end."""
    from cntk_bench.report.listing import written

    if form != "json":
        streams.say(written(listing, form))


def _end(opened: "OpenRun", name: str, results: Sequence[dict], form: str, keep: _Keeping) -> int:
    """Print where results are, or all as JSON, and which cannot be trusted; return the exit code."""
    from cntk_bench.records import record

    folder = opened.run.path / name
    document.add(run=opened.run.path, folder=folder, results=results)
    if form == "json":
        streams.say(json.dumps(record.plain(results), indent=2, allow_nan=False))
    elif form == "text" and not keep.failed:
        streams.say(f"All results are in {folder}")
    doubtful = [facts for facts in results if facts["doubt"]]
    if not doubtful:
        return 2 if keep.failed else 0
    from cntk_bench.report import name_of

    first = doubtful[0]
    streams.complain(
        f"{len(doubtful)} of {len(results)} results are not to be trusted: {name_of(first)}: {first['doubt']}"
    )
    return 2
