"""Commands that measure and tell: plan, bench, info."""

import json
import math
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from cntk_bench import __version__
from cntk_bench.cli import objects, options, streams, units
from cntk_bench.errors import UserError
from cntk_bench.text import short

if TYPE_CHECKING:
    from cntk_bench.data import Dataset
    from cntk_bench.kernels.spec import Readout
    from cntk_bench.runs.config import Config
    from cntk_bench.runs.directory import Run


@click.command()
@options.configured
@click.option("--workers", type=click.IntRange(1, 100_000), default=1, metavar="N",
              help="Workers of a cluster, each as fast as this machine.")  # fmt: skip
def plan(
    config: str, overrides: tuple[str, ...], backend: str | None, output: str | None, workers: int
) -> None:
    """Tell what CONFIG would cost here: tiles, disk, memory and time, from a short measurement.

    Of columns that are trained: how many networks, steps and epochs at most, and the time of as many steps as
    some that are timed.
    """
    from cntk_bench.runs import images, train

    settings, where = options.settings(config, overrides, backend, output)
    trains = train.needed(settings)
    if not settings.kernel.readouts and not trains:
        streams.say("nothing to compute: these columns need no Gram matrix")
        return
    if trains:
        train.require(settings)
    loaded = images.load(settings)
    if settings.kernel.readouts:
        _plan_grams(settings, where, loaded, workers)
    if trains:
        _plan_training(settings, where, loaded)


def _plan_grams(settings: "Config", where: "Run", loaded: "Dataset", workers: int) -> None:
    from cntk_bench import backends
    from cntk_bench.runs import compute, measure
    from cntk_bench.system.bucket import Bucket

    backend = compute.backend_name(settings.compute.backend, where)
    spec, tiles = compute.cut(settings, loaded, backend, where)
    worker = backends.create(backend, spec)
    cost = measure.cost(spec, tiles, loaded.x_train, worker, where.path, loaded.classes, settings.solve)
    solving = units.size(cost.solve.host) + (
        f", {units.size(cost.solve.gpu)} on the GPU" if cost.solve.gpu else ""
    )
    if not cost.solve_fits:
        solving += ", which this machine does not have free"
    solving += f", by {cost.solve.words}"
    disk = {"disk": f"{units.size(cost.disk)} of {units.size(cost.disk_free)} free"}
    kept = objects.lines(cost, where.gram, workers) if isinstance(where.gram, Bucket) else disk
    for name, value in {
        "readouts": f"{tiles.readouts} from one pass of depth {spec.depths[-1]}",
        "pairs": f"{tiles.pairs:,}"
        + (f", {tiles.wasted:,} of them of two draws, which are not used" if tiles.wasted else ""),
        "tiles": f"{len(tiles.tiles()):,} of {tiles.tile} x {tiles.tile} pairs",
        **kept,
        "memory, compute": units.size(cost.compute_memory),
        "memory, solve": solving,
        "rate": f"{cost.rate.pairs_per_second:,.1f} pairs per second ({worker.name}, measured here)",
        "time, tile": (units.brief if cost.tile_seconds < 1 else units.duration)(cost.tile_seconds),
        "time, compute": units.duration(cost.seconds),
    }.items():
        _line(name, value)
    if workers > 1:
        busy = min(workers, cost.tiles.count)
        _line(
            "time, cluster",
            f"{units.duration(cost.seconds_by(workers))} with {busy:,} workers, each as fast as this machine"
            + (
                f"; {workers - busy:,} have nothing to do: use a smaller compute.tile"
                if busy < workers
                else ""
            ),
        )


def _plan_training(settings: "Config", where: "Run", loaded: "Dataset") -> None:
    from cntk_bench.runs import effort

    cells = effort.efforts(where, settings, loaded)
    left = sum(cell.left for cell in cells)
    count = sum(cell.count for cell in cells)
    _line("networks", f"{left:,} of {count:,} to be trained" if left else f"all {count:,} are trained")
    known = [(cell, cell.each) for cell in cells if cell.each is not None]
    for cell, each in known:
        _line(
            "training",
            f"{cell.label}: {cell.left:,}, each at most {each.epochs:,} epochs, {each.steps:,} steps of "
            f"{each.batch:,} images, {units.brief(each.step_seconds)} a step (timed on {each.basis}): "
            f"{units.duration(cell.left * each.seconds)}",
        )
    for cell in cells:
        if cell.left and cell.each is None:
            _line("training", f"{cell.label}: {cell.left:,}, of which the column does not tell the time")
    if known:
        disk = sum(cell.left * each.disk for cell, each in known)
        _line("disk, train", f"{units.size(disk + max(each.checkpoint for _, each in known))} at most")
        _line("memory, train", units.size(max(each.memory for _, each in known)))
        seconds = sum(cell.left * each.seconds for cell, each in known)
        _line(
            "time, train",
            f"{units.duration(seconds)} at most, in one process; less where networks fit all training images",
        )


@click.command()
@click.option("--columns", default="CNTK-V,CNTK-GAP", show_default=True, help="One pass each.")
@click.option("--depths", default="3,4,6,11,21", show_default=True)
@click.option("--size", type=click.IntRange(1), default=32, show_default=True, help="Pixels along a side.")
@click.option("--channels", type=click.IntRange(1), default=3, show_default=True)
@click.option("--backend", metavar="NAME", default="auto", show_default=True,
              help="Where to compute: a backend that `info` lists.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0.001, 3600), default=2.0, show_default=True,
              help="Of each of three timed calls, and of the stage.")  # fmt: skip
@click.option("--scratch", metavar="DIR", default=".", show_default=True,
              help="Folder for the stage's tiles, removed afterwards.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.common
def bench(
    columns: str,
    depths: str,
    size: int,
    channels: int,
    backend: str,
    seconds: float,
    scratch: str,
    as_json: bool,
) -> None:
    """Measure the pairs per second on this machine: computed, and computed and stored.

    On a GPU, also tell how many its instruction issue would allow.
    """
    from cntk_bench import columns as table
    from cntk_bench.kernels.spec import Spec
    from cntk_bench.runs import measure

    listed = _depths(depths)
    if math.isnan(seconds):
        raise UserError("--seconds nan: give a number of seconds, such as 2")
    folder = options.path(scratch, "--scratch")
    if not folder.is_dir():
        raise UserError(f"--scratch {short(scratch)} is not a folder: make it, or give another")
    specs = {
        column: Spec(_readouts(table.readouts((column, depth) for depth in listed), column), channels, size)
        for column in columns.split(",")
    }
    _require_memory(channels, size)
    results = []
    for column, spec in specs.items():
        found = measure.benchmark(spec, backend, seconds, folder)
        rate, stored = found.alone.pairs_per_second, found.stage.pairs_per_second
        entry_layers = spec.work * rate
        results.append(
            {
                "column": column,
                "depths": listed,
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
            streams.say(
                f"{column:12} {found.backend}: {units.brief(1 / rate)} per pair, {rate:,.1f} pairs per second"
                f" ({entry_layers:.3g} entry-layers per second); {stored:,.1f} with tiles stored"
                + (f"; at most {found.limit:,.1f} by instruction issue" if found.limit else "")
            )
    if as_json:
        streams.say(json.dumps(results, indent=2))


@click.command()
@options.common
def info() -> None:
    """Show the version, this machine, the backends that work here and the data sets known."""
    _line("cntk-bench", __version__)
    for what in ("machine", "versions"):
        for name, value in _tried(what, partial(_provenance, what)).items():
            if name == "memory" and value:
                value = units.size(value)
            _line(name, ", ".join(map(str, value)) or "none" if isinstance(value, list) else value)
    for name, function in (("backends", _backends), ("data sets", _data_sets)):
        for key, value in _tried(name, function).items():
            _line(key, value)


COMMANDS = (plan, bench, info)


def _line(name: str, value: object) -> None:
    streams.say(f"{name:16} {value}")


def _readouts(readouts: "tuple[Readout, ...]", column: str) -> "tuple[Readout, ...]":
    if not readouts:
        raise UserError(f"column {short(column)} needs no Gram matrix: there is nothing to time")
    return readouts


def _depths(text: str) -> list[int]:
    from cntk_bench.runs.config import MOST_DEPTH

    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,9}", word) and int(word) <= MOST_DEPTH for word in words):
        raise UserError(
            f"--depths {short(text)}: give integers up to {MOST_DEPTH:,} separated by commas, such as 3,4,6"
        )
    return [int(word) for word in words]


def _require_memory(channels: int, size: int) -> None:
    """The made-up images must fit: the system would kill us without a word."""
    from cntk_bench.runs import measure
    from cntk_bench.system import memory

    need, free = 4 * measure.IMAGES * channels * size**2, memory.available()
    if free is not None and need > free / 2:  # prepared, they are there twice
        raise UserError(
            f"--size {size} and --channels {channels}: {measure.IMAGES:,} images take {units.size(need)}, "
            f"and {units.size(free)} of memory are free: use smaller ones"
        )


def _tried(name: str, function: Callable[[], dict]) -> dict:
    """What a function finds; where it cannot, the reason in its place: `info` is for the lost."""
    try:
        return function()
    except Exception as error:
        return {name: f"unknown ({_reason(error)})"}


def _reason(error: Exception) -> str:
    return short(f"{type(error).__name__}: {error}", 150)


def _provenance(function: str) -> dict:
    from cntk_bench.runs import provenance

    return getattr(provenance, function)()


def _backends() -> dict[str, str]:
    """The backends that work, and what keeps a broken one from being asked."""
    from cntk_bench import backends

    working, broken = [], {}
    for name in backends.names():  # in order of preference
        try:
            if backends.module(name).available():
                working.append(name)
        except Exception as error:
            broken[f"backend {name}"] = f"is broken ({_reason(error)})"
    auto = f" (auto: {working[0]})" if working else ""
    return {"backends": f"{', '.join(working) or 'none'}{auto}"} | broken


def _data_sets() -> dict[str, str]:
    from cntk_bench.data.dataset import names

    return {"data sets": ", ".join(names())}
