"""Commands that do the work: run, fetch, compute, train, solve."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from cntk_bench.cli import document, logfile, options, progress, streams
from cntk_bench.errors import UserError
from cntk_bench.text import short

if TYPE_CHECKING:
    from cntk_bench.config.config import Config
    from cntk_bench.grams.compute import Task
    from cntk_bench.grams.tiles import Plan
    from cntk_bench.records.directory import Run

# Keys of the images that may differ between solves of one run.
OF_IMAGES = ("dataset.train", "dataset.test", "dataset.draws", *options.MOVED)


@click.command()
@options.configured
@options.executor
@options.donor
def run(
    config: str,
    overrides: tuple[str, ...],
    backend: str | None,
    output: str | None,
    executor: str | None,
    donor: str | None,
) -> int:
    """Fetch, compute, train and solve CONFIG, and print its table.

    CONFIG is a YAML file, or the name of a config that ships with the program, such as quickstart.
    """
    from cntk_bench.runs import images
    from cntk_bench.runs import train as stage

    settings, where = options.settings(config, overrides, backend, output, executor)
    stage.require(settings)
    images.fetch(settings.dataset.name, settings.dataset.path, streams.terminal())
    compute_run(settings, where, donor)
    train_run(settings, where)
    code = _solve(where, settings)
    streams.say(f"\nAll results are in {where.path}, with a page in report/index.html")
    return code


@click.command()
@click.argument("dataset")
@click.option("--path", metavar="DIR", help="Folder to keep it in.  [default: data]")
@options.common
def fetch(dataset: str, path: str | None) -> None:
    """Download a data set: DATASET is its name, or a config that uses it.

    A config is a YAML file, or the name of one that ships with the program; `info` lists all names.
    """
    from cntk_bench import data
    from cntk_bench.config import config, source
    from cntk_bench.runs import images

    folder = None if path is None else str(options.path(path, "--path"))
    file = source.located(options.path(dataset, "DATASET"))
    if file.suffix in (".yaml", ".yml") and not data.is_known(dataset):
        settings = config.load(file).dataset
        dataset, folder = settings.name, folder or settings.path
    kept = images.fetch(dataset, folder, streams.terminal())
    document.add(dataset=dataset, path=kept)
    if kept is None:
        streams.say(f"{dataset} needs no download")
    else:
        streams.say(f"{dataset} is in {kept}, with its published checksums")


@click.command()
@options.configured
@options.executor
@click.option(
    "--shard",
    metavar="I/N",
    help="Compute only the I-th of N shares of the tiles; other processes compute the others.",
)
@options.donor
def compute(
    config: str,
    overrides: tuple[str, ...],
    backend: str | None,
    output: str | None,
    executor: str | None,
    shard: str | None,
    donor: str | None,
) -> None:
    """Compute the Gram matrices of CONFIG, continuing where an interrupted call stopped.

    Several processes may compute the same run at once. Images, columns or depths that a run lacks are added.
    """
    settings, where = options.settings(config, overrides, backend, output, executor)
    share = options.share(shard, "--shard")
    compute_run(settings, where, donor, share)
    streams.say(f"computed: {where.gram}" if shard is None else f"computed: share {shard} of {where.gram}")


@click.command("slurm-script")
@options.configured
@click.option(
    "--shards",
    default=8,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Number of jobs in the array.",
)
def slurm_script(
    config: str, overrides: tuple[str, ...], backend: str | None, output: str | None, shards: int
) -> None:
    """Print a Slurm job array that computes CONFIG; the section compute.slurm says what jobs request.

    For example: cntk-bench slurm-script CONFIG --shards 16 > run.sh && sbatch run.sh
    """
    import sys
    from pathlib import Path

    from cntk_bench.runs import sbatch

    settings, where = options.settings(config, overrides, backend, output)
    file = options.located(config).absolute()
    command = [sys.executable, "-m", "cntk_bench", "compute", str(file)]
    for override in overrides:
        command += ["--set", override]
    command += [] if backend is None else ["--backend", backend]
    path, asked = where.path.absolute(), settings.compute
    command += ["--output", str(path)]
    command += ["--executor", "auto"] if asked.executor == "slurm" else []  # the script makes the jobs
    script = sbatch.script(asked.slurm.model_dump(), settings.name, command, path, Path.cwd(), shards)
    document.add(run=where.path, shards=shards, script=script)
    streams.say(script)


@click.command()
@options.configured
def train(config: str, overrides: tuple[str, ...], backend: str | None, output: str | None) -> None:
    """Train the networks of CONFIG, continuing where an interrupted call stopped.

    Several processes may train the same run at once: each takes networks that no other process has.
    """
    from cntk_bench.runs import images
    from cntk_bench.runs import train as stage

    settings, where = options.settings(config, overrides, backend, output)
    if not stage.needed(settings):
        raise UserError(
            f"{short(', '.join(settings.kernel.columns))}: no column here has to be trained: "
            "add one, such as CNN-GAP, to kernel.columns"
        )
    stage.require(settings)
    images.fetch(settings.dataset.name, settings.dataset.path, streams.terminal())
    train_run(settings, where)
    streams.say(f"trained: {where.networks}")


@click.command()
@options.overridable("solve.ridge=loo")
@options.of_run
def solve(directory: str, overrides: tuple[str, ...]) -> int:
    """Solve the kernel regressions of RUN, a computed run directory, and print its table.

    To solve only a part of what was computed, use --set with dataset.train=N, dataset.test=N,
    kernel.columns=[...] or kernel.depths=[...].
    """
    where = options.run_directory(directory)
    for override in overrides:
        if not _solvable(override.partition("=")[0]):
            raise UserError(
                f"--set {short(override)}: only keys of solve, kernel and columns' own sections, "
                f"{', '.join(OF_IMAGES)} can change here; run `compute` for the others"
            )
    return _solve(where, where.config(overrides))


COMMANDS = (run, fetch, compute, slurm_script, train, solve)


def _solvable(key: str) -> bool:
    """Whether a key of the config may differ between solves of one run."""
    from cntk_bench import columns

    section, _, rest = key.partition(".")
    mine = section in ("solve", "kernel", *columns.section_names())
    return bool(rest) and mine or key in OF_IMAGES


def compute_run(settings: "Config", where: "Run", donor: str | None, shard: tuple[int, int] = (1, 1)) -> None:
    from cntk_bench.runs import compute

    logfile.begin(where.path)
    document.add(run=where.path, gram=where.gram, share=list(shard), computed={"tiles": 0, "pairs": 0})
    with progress.bar("computing", "pairs") as advance:

        def begin(plan: "Plan", tasks: "Sequence[Task]") -> "Callable[[Task], None]":
            logfile.catch_up()
            pairs = sum(task.tile.pairs(plan) for task in tasks)
            document.add(computed={"tiles": len(tasks), "pairs": pairs})
            advance(0, total=pairs, done=0)
            return lambda task: advance(task.tile.pairs(plan))

        try:
            other = options.run_directory(donor, "--from") if donor else None
            compute.compute(where, settings, begin, other, shard)
        except KeyboardInterrupt as stopped:
            stopped.add_note("finished tiles are stored; the same command goes on from there")
            raise


def train_run(settings: "Config", where: "Run") -> None:
    from cntk_bench.runs import train

    logfile.begin(where.path)
    with progress.bar("training") as advance:
        try:
            count = train.train(where, settings, lambda done, count, said: advance(0, count, done, said))
        except KeyboardInterrupt as stopped:
            stopped.add_note("what is trained is kept; the same command goes on from there")
            raise
    document.add(run=where.path, networks=where.networks, trained=count)


def _solve(where: "Run", settings: "Config") -> int:
    """Solve, print the table, and report which solutions cannot be trusted; return the exit code."""
    from cntk_bench import report
    from cntk_bench.analyses import page as pages
    from cntk_bench.report.notes import notes
    from cntk_bench.runs import solve as stage

    logfile.begin(where.path)
    with progress.bar("solving") as advance:
        advance(0, total=len(settings.kernel.cells), done=0)
        solved = stage.solve(where, settings, lambda *_: advance(1), progress.reporter(advance))
    document.add(run=where.path, solve=solved["solve"], rows=report.rows(solved), notes=notes(solved))
    doubtful = stage.doubtful(solved["solutions"])
    try:
        streams.say(report.table(solved))
    finally:  # also if nobody reads the table
        pages.write_after_solve(where, settings, solved["solve"])
        if doubtful:
            first = doubtful[0]
            streams.complain(
                f"{len(doubtful)} of {len(solved['solutions'])} solutions are not to be trusted: "
                f"{report.name_of(first)}: {first.get('doubt') or 'its residual is large'}"
            )
    return 2 if doubtful else 0
