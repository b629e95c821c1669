"""The command `bench`: measure this machine's speed."""

import re
from typing import TYPE_CHECKING

import click

from cntk_bench.cli import document, options, ratios, streams, units
from cntk_bench.errors import UserError
from cntk_bench.text import short

if TYPE_CHECKING:
    from cntk_bench.kernels.spec import Readout


@click.command()
@click.option(
    "--columns", default="CNTK-V,CNTK-GAP", show_default=True, help="Columns to time, one at a time."
)
@click.option("--depths", default="3,4,6,11,21", show_default=True, help="Depths computed in one pass.")
@click.option("--size", type=click.IntRange(1), default=32, show_default=True, help="Image side in pixels.")
@click.option(
    "--channels", type=click.IntRange(1), default=3, show_default=True, help="Channels of an image."
)
@click.option("--backend", metavar="NAME", default="auto", show_default=True,
              help="Where to compute: a backend that `info` lists.")  # fmt: skip
@click.option("--seconds", type=options.Number(0.001, 3600), default=2.0, show_default=True,
              help="Time for each of three timed calls, and for a stage that stores tiles.")  # fmt: skip
@click.option("--scratch", metavar="DIR", default=".", show_default=True,
              help="Folder for the stored tiles, which are removed afterwards.")  # fmt: skip
@click.option("--baseline", type=click.Choice(ratios.NAMES), is_flag=False, flag_value=ratios.NAMES[0],
              help="Also time this library, if installed; neural-tangents if none is named.")  # fmt: skip
@options.common
def bench(
    columns: str,
    depths: str,
    size: int,
    channels: int,
    backend: str,
    seconds: float,
    scratch: str,
    baseline: str | None,
) -> int:
    """Measure this machine's speed in pairs per second, without and with storing tiles.

    On a GPU, also report the upper bound that its instruction issue sets.
    """
    from cntk_bench import columns as table
    from cntk_bench.costs import comparison, measure
    from cntk_bench.kernels.spec import Spec

    listed = _depths(depths)
    folder = options.path(scratch, "--scratch")
    if not folder.is_dir():
        raise UserError(f"--scratch {short(scratch)} is not a folder: make it, or give another")
    specs = {
        column: Spec(_readouts(table.readouts((column, depth) for depth in listed), column), channels, size)
        for column in map(str.strip, columns.split(","))
    }
    _require_memory(channels, size)
    library, wrong = ratios.library(baseline, backend, specs.values()), False
    results: list[dict] = []
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
        streams.say(
            f"{column:12} {found.backend}: {units.brief(1 / rate)} per pair, {rate:,.1f} pairs per second"
            f" ({entry_layers:.3g} entry-layers per second); {stored:,.1f} with tiles stored"
            + (f"; at most {found.limit:,.1f} by instruction issue" if found.limit else "")
        )
        if library:
            compared = comparison.compare_made_up(library, spec, found, seconds)
            wrong |= isinstance(compared, comparison.Refusal) and compared.wrong
            results[-1]["baseline"] = ratios.facts(compared)
            streams.say(ratios.line(compared))
        document.add(columns=results)
    return int(wrong)


COMMANDS = (bench,)


def _readouts(readouts: "tuple[Readout, ...]", column: str) -> "tuple[Readout, ...]":
    if not readouts:
        raise UserError(f"column {short(column)} needs no Gram matrix: there is nothing to time")
    return readouts


def _depths(text: str) -> list[int]:
    from cntk_bench.config.config import MOST_DEPTH

    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,9}", word) and int(word) <= MOST_DEPTH for word in words):
        raise UserError(
            f"--depths {short(text)}: give integers up to {MOST_DEPTH:,} separated by commas, such as 3,4,6"
        )
    return [int(word) for word in words]


def _require_memory(channels: int, size: int) -> None:
    """Require memory for the made-up images: else the system would kill us without a message."""
    from cntk_bench.costs import measure
    from cntk_bench.system import memory

    need, free = 4 * measure.IMAGES * channels * size**2, memory.available()
    if free is not None and need > free / 2:  # preparing them makes a copy
        raise UserError(
            f"--size {size} and --channels {channels}: {measure.IMAGES:,} images take {units.size(need)}, "
            f"and {units.size(free)} of memory are free: use smaller ones"
        )
