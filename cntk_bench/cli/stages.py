"""Commands that do the work: run, fetch, compute, solve."""

import click

from cntk_bench.cli import options, progress, streams
from cntk_bench.errors import UserError
from cntk_bench.text import short


@click.command()
@options.configured
def run(config, overrides, backend, output):
    """Fetch, compute, solve and print the table of CONFIG, a YAML file."""
    from cntk_bench.runs import pipeline

    settings, where = options.settings(config, overrides, backend, output)
    pipeline.fetch(settings.dataset.name, settings.dataset.path, streams.terminal())
    _compute(settings, where)
    code = _solve(where, settings)
    streams.say(f"\nEverything of this run is in {where.path}")
    return code


@click.command()
@click.argument("dataset")
@click.option("--path", metavar="DIR", help="Folder to keep it in.  [default: data]")
@options.common
def fetch(dataset, path):
    """Download DATASET, a name that `info` lists, or the data set of a config file."""
    from cntk_bench.runs import config, pipeline

    folder = None if path is None else str(options.path(path, "--path"))
    if dataset.endswith((".yaml", ".yml")):
        settings = config.load(options.path(dataset, "DATASET")).dataset
        dataset, folder = settings.name, folder or settings.path
    kept = pipeline.fetch(dataset, folder, streams.terminal())
    if kept is None:
        streams.say(f"{dataset} needs no download")
    else:
        streams.say(f"{dataset} is in {kept}, with its published checksums")


@click.command()
@options.configured
def compute(config, overrides, backend, output):
    """Compute the Gram matrices of CONFIG; goes on where an earlier call was interrupted."""
    settings, where = options.settings(config, overrides, backend, output)
    _compute(settings, where)
    streams.say(f"computed: {where.gram}")


@click.command()
@click.argument("directory", metavar="RUN")
@options.overridable("solve.ridge=loo")
@options.common
def solve(directory, overrides):
    """Solve the kernel regressions of RUN, a computed run directory, and print its table."""
    where = options.run_directory(directory)
    for override in overrides:
        if override.partition("=")[0].partition(".")[0] != "solve":
            raise UserError(
                f"--set {short(override)}: only keys of solve can change here; run `compute` for the others"
            )
    return _solve(where, where.config(overrides))


COMMANDS = (run, fetch, compute, solve)


def _compute(settings, where):
    from cntk_bench.runs import pipeline

    with progress.bar("computing", "pairs") as advance:

        def begin(plan, missing):
            pending = sum(tile.pairs(plan) for tile in missing)
            advance(0, total=plan.pairs, done=plan.pairs - pending)
            return lambda tile: advance(tile.pairs(plan))

        try:
            pipeline.compute(where, settings, begin)
        except KeyboardInterrupt as stopped:
            stopped.add_note("finished tiles are stored; the same command goes on from there")
            raise


def _solve(where, settings) -> int:
    """Solve, print the table, and say which solutions are not to be trusted; the exit code."""
    from cntk_bench import report
    from cntk_bench.runs import pipeline

    with progress.bar("solving") as advance:
        advance(0, total=len(settings.kernel.cells), done=0)
        solved = pipeline.solve(where, settings, lambda *_: advance(1))
    streams.say(report.table(solved))
    doubtful = [solution for solution in solved["solutions"] if not solution.get("trusted", True)]
    if not doubtful:
        return 0
    first = doubtful[0]
    streams.complain(
        f"{len(doubtful)} of {len(solved['solutions'])} solutions are not to be trusted: "
        f"{first['column']} at depth {first['depth']}: {first.get('doubt') or 'its residual is large'}"
    )
    return 2
