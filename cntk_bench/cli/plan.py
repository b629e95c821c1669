"""The command that estimates costs: plan."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cntk_bench.cli import document, options, streams, traffic, units
from cntk_bench.errors import UserError
from cntk_bench.text import short

if TYPE_CHECKING:
    from cntk_bench.config.config import Config
    from cntk_bench.costs.cost import Cost
    from cntk_bench.costs.span import Span
    from cntk_bench.data import Dataset
    from cntk_bench.kernels.spec import Readout
    from cntk_bench.records.directory import Run


@click.command()
@options.configured
@click.option("--workers", type=click.IntRange(1, 100_000), default=1, metavar="N",
              help="Number of workers in a cluster, each as fast as this machine.")  # fmt: skip
@click.option("--price-per-hour", "price", type=options.Number(0, 1e9), metavar="P",
              help="Price of one worker per hour, to estimate the total cost.")  # fmt: skip
@click.option("--currency", metavar="WORD", help="Currency of --price-per-hour, such as EUR.")
def plan(
    config: str,
    overrides: tuple[str, ...],
    backend: str | None,
    output: str | None,
    workers: int,
    price: float | None,
    currency: str | None,
) -> None:
    """Estimate what CONFIG would cost here: tiles, disk, memory and time, from short measurements.

    Of a run that exists, only missing tiles and networks count. Times are ranges, from the fastest
    measurement to a quarter above the slowest. For trained columns: the number of networks, and upper limits
    of epochs, steps and time, from a few timed steps. Money is for all workers until the last one has
    computed its tiles, and for one worker afterwards.
    """
    from cntk_bench import columns
    from cntk_bench.costs.span import Span
    from cntk_bench.runs import images, train

    _require_price(price, currency)
    settings, where = options.settings(config, overrides, backend, output)
    trains = train.needed(settings)
    if not settings.kernel.readouts and not trains:
        streams.say("nothing to compute: these columns need no Gram matrix")
        return
    if trains:
        train.require(settings)
    loaded = images.load(settings)
    known, unknown, paid = [], [], Span(0, 0)
    if settings.kernel.readouts:
        cost = _plan_grams(settings, where, loaded, workers)
        known.append(cost.time * cost.share(workers))
        paid = known[0] * (workers - 1)  # the other workers'
        if cost.solve_time is None:
            unknown.append("the solve")
        else:
            known.append(cost.solve_time)
    if trains:
        training, told = _plan_training(settings, where, loaded)
        known.append(training)
        unknown += [] if told else ["some of the training"]
    if any(not readouts and columns.trained(name) is None for name, readouts in _cells(settings)):
        unknown.append("columns that need no Gram matrix")
    whole = sum(known, Span(0, 0))
    document.add(time_all=asdict(whole), not_in_time_all=unknown)
    without = f", without {' and '.join(unknown)}" if unknown else ""
    if settings.kernel.readouts:  # else training is the only long stage
        streams.line("time, all", units.span(whole) + without)
    if price is not None:
        _tell_money(whole + paid, price, currency, without)


def _require_price(price: float | None, currency: str | None) -> None:
    if currency is not None and price is None:
        raise UserError(f"--currency {short(currency)} needs a price: add --price-per-hour")


def _tell_money(time: "Span", price: float, currency: str | None, without: str) -> None:
    """Print what this much time, summed over workers, costs."""
    money = time * (price / 3600)
    low, high = (f"{some:,.2f}" for some in (money.low, money.high))
    unit = f" {short(currency, 20)}" if currency else ""
    document.add(
        time_paid=asdict(time), money=asdict(money) | {"price_per_hour": price, "currency": currency}
    )
    streams.line(
        "money",
        f"{low if low == high else f'{low} to {high}'}{unit}, at {price:g}{unit} for each hour of a worker, "
        f"{units.span(time)} of all together{without}",
    )


def _cells(settings: "Config") -> "list[tuple[str, tuple[Readout, ...]]]":
    """Each cell's column, and the readouts that it needs."""
    from cntk_bench import columns

    return [(name, columns.find(name).needs(depth)) for name, depth in settings.kernel.cells]


def _plan_grams(settings: "Config", where: "Run", loaded: "Dataset", workers: int) -> "Cost":
    from cntk_bench import backends
    from cntk_bench.costs.cost import cost as predict
    from cntk_bench.runs import stored
    from cntk_bench.system.bucket import Bucket

    spec = stored.spec_of(settings, loaded)
    backend = stored.backend_name(settings.compute.backend, where, spec)
    tiles = stored.cut(spec, settings, loaded, backend, where)
    worker = backends.create(backend, spec)
    matrices = sum(bool(readouts) for _, readouts in _cells(settings)) * tiles.draws
    how = settings.solve
    missing = stored.remaining(where, tiles, spec, settings, loaded, backend)
    x = loaded.x_train
    cost = predict(spec, tiles, x, worker, where.path, loaded.classes, how, matrices, missing)
    solving = units.size(cost.solve.host) + (
        f", {units.size(cost.solve.gpu)} on the GPU" if cost.solve.gpu else ""
    )
    if not cost.solve_fits:
        solving += ", which this machine does not have free"
    solving += f", by {cost.solve.words}"
    disk = {"disk": f"{units.size(cost.disk)} of {units.size(cost.disk_free)} free"}
    kept = traffic.lines(cost, where.gram, workers) if isinstance(where.gram, Bucket) else disk
    document.add(run=where.path, **_facts(cost, worker.name, workers))
    for name, value in {
        "readouts": f"{tiles.readouts} from one pass of depth {spec.depths[-1]}",
        "pairs": f"{tiles.pairs:,}"
        + (f", {tiles.wasted:,} of them of two draws, which are not used" if tiles.wasted else ""),
        "tiles": f"{tiles.count:,} of {tiles.tile} x {tiles.tile} pairs",
        **_done(cost),
        **kept,
        "memory, compute": units.size(cost.compute_memory),
        "memory, solve": solving,
        **_rate(cost, worker.name),
        "time, compute": units.span(cost.time),
    }.items():
        streams.line(name, value)
    if workers > 1 and cost.missing.count:
        busy = min(workers, cost.missing.count)
        streams.line(
            "time, cluster",
            f"{units.span(cost.time * cost.share(workers))} with {busy:,} workers, "
            "each as fast as this machine"
            + (f"; {workers - busy:,} have nothing to do" if busy < workers else "")
            + (": use a smaller compute.tile" if busy < workers and not cost.done[0] else ""),
        )
    streams.line("time, solve", _solving(cost))
    return cost


def _done(cost: "Cost") -> dict[str, str]:
    """The line about what the run has already, if it has anything."""
    tiles, pairs = cost.done
    if not tiles and not cost.in_part:
        return {}
    said = f"{tiles:,} of these tiles, {pairs:,} of {cost.tiles.pairs:,} pairs"
    if cost.in_part:
        said += f", and {cost.in_part:,} tiles for some of the readouts"
    return {"done": said + ("; only the rest is computed" if cost.missing.count else "")}


def _rate(cost: "Cost", backend: str) -> dict[str, str]:
    """The lines about the backend's rate, if there is anything to compute."""
    rate, tile = cost.pairs_per_second, cost.tile_seconds
    if rate is None or tile is None:
        return {}
    return {
        "rate": f"{rate:,.1f} pairs per second ({backend}, measured here)",
        "time, tile": (units.brief if tile < 1 else units.duration)(tile),
    }


def _facts(cost: "Cost", backend: str, workers: int) -> dict:
    """Return the plan of the Gram matrices for JSON: bytes, and seconds from `low` to `high`."""
    plan, solving = cost.tiles, cost.solve_time
    return {
        "backend": backend,
        "readouts": plan.readouts,
        "pairs": plan.pairs,
        "pairs_not_used": plan.wasted,
        "pairs_done": cost.done[1],
        "tiles": plan.count,
        "tiles_done": cost.done[0],
        "tiles_done_in_part": cost.in_part,
        "tile": plan.tile,
        "disk": cost.disk,
        "disk_free": cost.disk_free,
        "memory_compute": cost.compute_memory,
        "memory_solve": cost.solve.host,
        "memory_solve_gpu": cost.solve.gpu,
        "memory_solve_fits": cost.solve_fits,
        "solver": cost.solve.method,
        "pairs_per_second": cost.pairs_per_second,
        "time_tile": cost.tile_seconds,
        "time_compute": asdict(cost.time),
        "workers": workers,
        "time_compute_by_workers": asdict(cost.time * cost.share(workers)),
        "matrices": cost.solving.matrices,
        "time_solve": solving and asdict(solving),
    }


def _solving(cost: "Cost") -> str:
    """Describe the time of the solve."""
    from cntk_bench.costs.cost import UNKNOWN

    solving = cost.solving
    of = f"{solving.matrices:,} {'matrix' if solving.matrices == 1 else 'matrices'}"
    if cost.solve_time is not None and solving.each is not None:
        each = f", {units.span(solving.each.beyond(UNKNOWN))} each" if solving.matrices > 1 else ""
        return f"{units.span(cost.solve_time)}: {of}{each}"
    if solving.one_pass is not None:
        one = units.span(solving.one_pass.beyond(UNKNOWN))
        return (
            f"not known before: {of}, {one} for each iteration of conjugate gradients, however many it takes"
        )
    return f"not known before: {of}, by a solver of another package"


def _plan_training(settings: "Config", where: "Run", loaded: "Dataset") -> "tuple[Span, bool]":
    """Print the plan of the training; return its time, and whether that covers all of it."""
    from cntk_bench.costs import effort
    from cntk_bench.costs.span import Span

    cells = effort.efforts(where, settings, loaded)
    left = sum(cell.left for cell in cells)
    count = sum(cell.count for cell in cells)
    streams.line("networks", f"{left:,} of {count:,} to be trained" if left else f"all {count:,} are trained")
    known = [(cell, cell.each) for cell in cells if cell.each is not None]
    for cell, each in known:
        streams.line(
            "training",
            f"{cell.label}: {cell.left:,}, each at most {each.epochs:,} epochs, {each.steps:,} steps of "
            f"{each.batch:,} images, {units.brief(each.step_seconds)} a step (timed on {each.basis}): "
            f"{units.duration(cell.left * each.seconds)}",
        )
    for cell in cells:
        if cell.left and cell.each is None:
            streams.line(
                "training", f"{cell.label}: {cell.left:,}, of which the column does not tell the time"
            )
    seconds = sum(cell.left * each.seconds for cell, each in known)
    document.add(networks={"all": count, "left": left}, time_train=_of_cells(known))
    if known:
        disk = sum(cell.left * each.disk for cell, each in known)
        streams.line("disk, train", f"{units.size(disk + max(each.checkpoint for _, each in known))} at most")
        streams.line("memory, train", units.size(max(each.memory for _, each in known)))
        streams.line(
            "time, train",
            f"{units.duration(seconds)} at most, in one process; less where networks fit all training images",
        )
    return Span(0, seconds), all(cell.each is not None for cell in cells if cell.left)


def _of_cells(known: Sequence[tuple]) -> list[dict]:
    """Return the training with predicted time, cell by cell: seconds at most."""
    return [
        {"label": cell.label, "left": cell.left, "epochs": each.epochs, "steps": each.steps,
         "seconds": cell.left * each.seconds}
        for cell, each in known
    ]  # fmt: skip


COMMANDS = (plan,)
