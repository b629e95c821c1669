"""The command line: parses, calls, prints."""

import json
import logging
import sys
from contextlib import contextmanager
from pathlib import Path

import click

from cntk_bench import __version__
from cntk_bench.errors import UserError
from cntk_bench.report import FORMATS
from cntk_bench.text import short


def main() -> None:
    """Run a command; a user's error is one line and exit code 2 (1: a failed verification)."""
    debug = "--debug" in sys.argv
    try:
        sys.exit(cli(standalone_mode=False))
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:  # bad usage
        click.echo(f"error: {' '.join(error.format_message().split())} See --help.", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as stopped:
        click.echo(": ".join(("interrupted", *(stopped.__cause__ or stopped).args)), err=True)
        sys.exit(130)
    except UserError as error:
        if debug:
            raise
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if debug:
            raise
        click.echo(f"error: {_unforeseen(error)}", err=True)
        sys.exit(2)


def _unforeseen(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out of memory: use fewer images or smaller tiles (--set compute.tile=...)"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}: use another path"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}: this is a fault of cntk-bench; see --debug, and report it"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cntk-bench")
def cli():
    """Exact convolutional neural tangent kernels and their accuracy, depth by depth.

    `run` does everything; the other commands are its steps, each useful alone.
    """


def _common(command):
    """Options of every command."""

    def set_level(_context, _parameter, verbose):
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        logging.getLogger("cntk_bench").setLevel(logging.INFO if verbose else logging.WARNING)

    command = click.option(
        "--verbose", is_flag=True, expose_value=False, callback=set_level, help="Say what is being done."
    )(command)
    return click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")(command)


def _configured(command):
    """A config file, its overrides, and the run directory."""
    command = click.option(
        "--output", metavar="DIR", help="Run directory.  [default: runs/NAME, NAME from the config]"
    )(command)
    command = click.option(
        "--backend", metavar="NAME", help="auto, cpu or cuda; the same as --set compute.backend=NAME."
    )(command)
    return _common(click.argument("config")(_overridable("dataset.train=200")(command)))


def _overridable(example):
    text = f"Override a key, such as {example}. May be given again."
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=text)


def _settings(path, overrides, backend, output):
    """The config and the run it names."""
    from cntk_bench import config, pipeline

    if backend:
        overrides = (*overrides, f"compute.backend={backend}")
    settings = config.load(path, overrides)
    return settings, pipeline.Run(Path(output or Path("runs", settings.name)))


def _run(directory):
    from cntk_bench.pipeline import Run

    return Run(Path(directory))


@cli.command()
@_configured
def run(config, overrides, backend, output):
    """Fetch, compute, solve and print the table of CONFIG, a YAML file."""
    from cntk_bench import pipeline, report

    settings, where = _settings(config, overrides, backend, output)
    pipeline.fetch(settings.dataset.name, settings.dataset.path, sys.stderr.isatty())
    _compute(settings, where)
    click.echo(report.table(_solve(where, settings)), nl=False)
    click.echo(f"\nEverything of this run is in {where.path}")


@cli.command()
@_configured
def compute(config, overrides, backend, output):
    """Compute the Gram matrices of CONFIG; goes on where an earlier call was interrupted."""
    settings, where = _settings(config, overrides, backend, output)
    _compute(settings, where)
    click.echo(f"computed: {where.gram}")


@cli.command()
@click.argument("directory", metavar="RUN")
@_overridable("solve.ridge=loo")
@_common
def solve(directory, overrides):
    """Solve the kernel regressions of RUN, a computed run directory, and print its table."""
    from cntk_bench import report

    where = _run(directory)
    wrong = [override for override in overrides if not override.startswith("solve.")]
    if wrong:
        raise UserError(f"--set {wrong[0]}: only keys of solve can change here; run `compute` for the others")
    click.echo(report.table(_solve(where, where.config(overrides))), nl=False)


@cli.command()
@click.argument("directory", metavar="RUN")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@_common
def table(directory, form):
    """Print the table of RUN, a solved run directory."""
    from cntk_bench import record, report

    click.echo(report.table(record.load(_run(directory).record), form), nl=False)


@cli.command()
@click.argument("directory", metavar="RUN")
@_common
def status(directory):
    """Tell how far the computation of RUN is: tiles done, rate, time left."""
    from cntk_bench import store

    grams = store.open(_run(directory).gram)
    total = grams.plan.tiles()
    pairs = sum(tile.pairs(grams.plan) for tile in grams.done)
    seconds = sum(done.seconds for done in grams.done.values())
    click.echo(f"{len(grams.done)} of {len(total)} tiles done, {pairs:,} of {grams.plan.pairs:,} pairs")
    if pairs and seconds:
        left = (grams.plan.pairs - pairs) * seconds / pairs
        click.echo(f"{pairs / seconds:,.1f} pairs a second, {_duration(left)} left on the same machine")


@cli.command()
@click.argument("directory", metavar="RUN")
@click.option("--sample", type=click.IntRange(0), default=4, show_default=True,
              help="Pairs to compute again in float64.")  # fmt: skip
@click.option("--repair", is_flag=True, help="Compute damaged tiles anew.")
@_overridable("dataset.path=FILE if the data have moved")
@_common
def verify(directory, sample, repair, overrides):
    """Check RUN's stored tiles: checksums, consistency, and a sample of entries in float64."""
    from cntk_bench import pipeline

    with _bar("verifying", None) as advance:
        where = _run(directory)
        found = pipeline.verify(where, where.config(overrides), sample, repair, lambda *_: advance(1))
    for kind, tiles in (("damaged", found.damaged), ("cannot be read", found.unreadable)):
        for tile, fault in tiles.items():
            click.echo(f"{kind}: {tile}: {fault}")
    errors = [entry.error for entry in found.entries]
    click.echo(
        f"{found.checked} tiles checked, {len(found.damaged)} damaged, {found.missing} not computed yet; "
        f"{len(errors)} entries computed again in float64"
        + (f", largest relative error {max(errors):.1e}" if errors else "")
    )
    if found.damaged:
        click.echo(f"run `cntk-bench verify {directory} --repair` to compute them anew", err=True)
        sys.exit(1)
    if found.unreadable:
        raise UserError(
            f"{len(found.unreadable)} tiles of {short(str(where.gram))} cannot be read now, so nothing is "
            "known of them: mend that and run `verify` again"
        )


@cli.command()
@click.argument("dataset")
@click.option("--path", metavar="DIR", help="Folder to keep it in.  [default: data]")
@_common
def fetch(dataset, path):
    """Download DATASET: cifar10, cifar100, svhn, mnist or fashion-mnist; or that of a config file."""
    from cntk_bench import config, pipeline

    if dataset.endswith((".yaml", ".yml")):
        settings = config.load(dataset).dataset
        dataset, path = settings.name, path or settings.path
    folder = pipeline.fetch(dataset, path, sys.stderr.isatty())
    if folder is None:
        click.echo(f"{dataset} needs no download")
    else:
        click.echo(f"{dataset} is in {folder}, with its published checksums")


@cli.command()
@_configured
def plan(config, overrides, backend, output):
    """Tell what CONFIG would cost here: tiles, disk, memory and time, from a short measurement."""
    from cntk_bench import backends, measure, pipeline

    settings, where = _settings(config, overrides, backend, output)
    images = pipeline.load(settings.dataset)
    backend = pipeline.backend_name(settings.compute.backend, where)
    spec, tiles = pipeline.cut(settings, images, backend)
    worker = backends.create(backend, spec)
    cost = measure.cost(spec, tiles, images.x_train, worker, where.path, images.classes)
    solving = _size(cost.solve.host) + (f", {_size(cost.solve.gpu)} on the GPU" if cost.solve.gpu else "")
    if not cost.solve_fits:
        solving += ", which this machine does not have free"
    for name, value in {
        "readouts": f"{tiles.readouts} from one pass of depth {spec.depths[-1]}",
        "pairs": f"{tiles.pairs:,}",
        "tiles": f"{len(tiles.tiles()):,} of {tiles.tile} x {tiles.tile} pairs",
        "disk": f"{_size(cost.disk)} of {_size(cost.disk_free)} free",
        "memory, compute": _size(cost.compute_memory),
        "memory, solve": solving,
        "rate": f"{cost.rate.pairs_per_second:,.1f} pairs a second ({worker.name}, measured on this machine)",
        "time, compute": _duration(cost.seconds),
    }.items():
        click.echo(f"{name:16} {value}")


@cli.command()
@click.option("--columns", default="CNTK-V,CNTK-GAP", show_default=True, help="One pass each.")
@click.option("--depths", default="3,4,6,11,21", show_default=True)
@click.option("--size", type=click.IntRange(1), default=32, show_default=True, help="Pixels along a side.")
@click.option("--channels", type=click.IntRange(1), default=3, show_default=True)
@click.option("--backend", metavar="NAME", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.001, 3600),
    default=2.0,
    show_default=True,
    help="Of each of three timed calls, and of the stage.",
)
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="Folder for the stage's tiles, removed afterwards.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_common
def bench(columns, depths, size, channels, backend, seconds, scratch, as_json):
    """Measure the pairs a second on this machine: computed, and computed and stored.

    On a GPU, also tell how many its instruction issue would allow.
    """
    from cntk_bench import columns as table
    from cntk_bench import gramian, measure
    from cntk_bench.spec import Spec

    try:
        depths = [int(depth) for depth in depths.split(",")]
    except ValueError:
        raise UserError(f"--depths {depths}: give integers separated by commas, such as 3,4,6") from None
    results = []
    for column in columns.split(","):
        spec = Spec(tuple(table.readout(column, depth) for depth in depths), channels, size)
        found = measure.benchmark(spec, backend, seconds, scratch)
        rate, stored = found.alone.pairs_per_second, found.stage.pairs_per_second
        entry_layers = gramian.work(spec) * rate
        results.append(
            {
                "column": column,
                "depths": depths,
                "size": size,
                "channels": channels,
                "backend": found.backend,
                "pairs_per_second": rate,
                "seconds_per_pair": 1 / rate,
                "entry_layers_per_second": entry_layers,
                "stage_pairs_per_second": stored,
                "limit_pairs_per_second": found.limit,
            }
        )
        if not as_json:
            click.echo(
                f"{column:12} {found.backend}: {_short(1 / rate)} a pair, {rate:,.1f} pairs a second"
                f" ({entry_layers:.3g} entry-layers a second); {stored:,.1f} with tiles stored"
                + (f"; at most {found.limit:,.1f} by instruction issue" if found.limit else "")
            )
    if as_json:
        click.echo(json.dumps(results, indent=2))


@cli.command()
@_common
def info():
    """Show the version, this machine, the backends that work here and the data sets known."""
    from cntk_bench import backends, provenance
    from cntk_bench.data.dataset import READERS

    click.echo(f"{'cntk-bench':16} {__version__}")
    for name, value in (provenance.machine() | provenance.versions()).items():
        if name == "memory" and value:
            value = _size(value)
        if isinstance(value, list):
            value = ", ".join(value) or "none"
        click.echo(f"{name:16} {value}")
    click.echo(f"{'backends':16} {', '.join(backends.available())} (auto: {backends.choose()})")
    click.echo(f"{'data sets':16} {', '.join(READERS)}")


def _compute(settings, where):
    from cntk_bench import pipeline

    with _bar("computing", "pairs") as advance:

        def begin(plan, missing):
            pending = sum(tile.pairs(plan) for tile in missing)
            advance(0, total=plan.pairs, done=plan.pairs - pending)
            return lambda tile: advance(tile.pairs(plan))

        try:
            pipeline.compute(where, settings, begin)
        except KeyboardInterrupt:
            goes_on = "finished tiles are stored; the same command goes on from there"
            raise KeyboardInterrupt(goes_on) from None


def _solve(where, settings):
    from cntk_bench import pipeline

    with _bar("solving", None) as advance:
        advance(0, total=len(settings.kernel.cells), done=0)
        return pipeline.solve(where, settings, lambda *_: advance(1))


@contextmanager
def _bar(title, unit):
    """A progress bar on the terminal, nothing elsewhere; gives advance(count, total=, done=)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None, rate="")

        def advance(count, total=None, done=None):
            if total is not None:
                progress.update(task, total=total, completed=done)
            progress.advance(task, count)
            speed = progress.tasks[0].speed
            if unit and speed:
                progress.update(task, rate=f"{speed:,.0f} {unit}/s")

        yield advance


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.1f} {unit}" if unit != "B" else f"{count} B"
        count /= 1024


def _short(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
