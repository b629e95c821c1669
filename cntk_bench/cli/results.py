"""Commands that inspect a run: table, solves, status, verify, export."""

import shlex
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cntk_bench.cli import document, logfile, options, progress, streams, units
from cntk_bench.errors import UserError
from cntk_bench.text import short

MOST_NAMED = 16  # processes that `status` names

if TYPE_CHECKING:
    from cntk_bench.grams.progress import Counts
    from cntk_bench.grams.verify import Verification
    from cntk_bench.records.directory import Run
    from cntk_bench.runs.status import Status


@click.command()
@options.formatted
@click.option(
    "--solve",
    "number",
    type=click.IntRange(1),
    metavar="N",
    help="Show solve N.  [default: the last]",
)
@click.option("--caption", metavar="LATEX", help="With --format latex: a caption in place of the title.")
@click.option(
    "--label",
    metavar="KEY",
    help="With --format latex: the key for \\ref.  [default: tab:NAME, the run's name]",
)
@options.of_run
def table(directory: str, form: str, number: int | None, caption: str | None, label: str | None) -> None:
    """Print the table of RUN, a solved run directory."""
    from cntk_bench import report
    from cntk_bench.records.solves import none_now
    from cntk_bench.report.notes import notes
    from cntk_bench.runs.solve import solved

    where = options.run_directory(directory)
    found = solved(where, number)
    if not found["solutions"]:
        raise none_now(where)
    document.add(run=directory, solve=found.get("solve"), rows=report.rows(found), notes=notes(found))
    streams.say(report.table(found, form, caption=caption, label=label))


@click.command()
@options.of_run
def solves(directory: str) -> None:
    """List the solves of RUN: when and how each was made, and its accuracies."""
    from cntk_bench.records.solves import none_now
    from cntk_bench.report.rows import DOUBTED
    from cntk_bench.runs import solve

    where = options.run_directory(directory)
    found = solve.solves(where)
    if not found:
        raise none_now(where)
    facts = [_facts(solve) for solve in found]
    document.add(run=directory, solves=facts)
    lines: list[tuple[str, ...]] = [("solve", "date (UTC)", "ridge", "precision", "device", "accuracy")]
    lines += [_line(solve) for solve in found]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        streams.say("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    doubted = [str(one["solve"]) for one in facts if not one.get("trusted", True)]
    if doubted:
        named = f"solve{'s' if len(doubted) > 1 else ''} {short(', '.join(doubted))}"
        streams.say(f"{DOUBTED} Not to be trusted: cells of {named}; `table --solve N` says which, and why")


def _facts(solve: dict) -> dict:
    """Return the facts shown of one solve.json; a damaged one is returned with its damage."""
    from cntk_bench.report.rows import is_trusted

    if "damaged" in solve:
        return solve
    asked = solve.get("settings", {}).get("solve", {})
    scores = [s["accuracy"] for s in solve["solutions"] if s["accuracy"] is not None]
    return {
        "solve": solve["solve"],
        "started": solve.get("started"),
        "ridge": asked.get("ridge"),
        "precision": solve.get("precision", asked.get("precision")),
        "device": solve.get("device", asked.get("device")),
        "accuracy": [min(scores), max(scores)] if scores else None,
        "trusted": all(map(is_trusted, solve["solutions"])),
    }


def _line(solve: dict) -> tuple[str, ...]:
    """Format one solve.json as the cells of a row."""
    from cntk_bench.report.rows import DOUBTED, is_trusted

    if "damaged" in solve:
        return str(solve["solve"]), short(f"damaged: {solve['damaged']}", 100), "-", "-", "-", "-"
    facts = _facts(solve)
    doubted = [one["accuracy"] for one in solve["solutions"] if not is_trusted(one)]
    bounds = [f"{score:.2f}{DOUBTED * (score in doubted)}" for score in facts["accuracy"] or ()]
    ridge = facts["ridge"]
    cells = (
        facts["solve"],
        None if facts["started"] is None else str(facts["started"])[:19].replace("T", " "),
        " ".join(map(str, ridge)) if isinstance(ridge, list) else ridge,
        facts["precision"],
        facts["device"],
        f"{' to '.join(dict.fromkeys(bounds))} %" if bounds else None,
    )
    return tuple("-" if cell is None else short(str(cell), 40) for cell in cells)


@click.command()
@click.option("--follow", "--watch", "follow", is_flag=True, help="Repeat until everything is computed.")
@click.option("--every", type=options.Number(0.1, 86400), default=10.0, show_default=True,
              metavar="SECONDS", help="With --follow: time between updates.")  # fmt: skip
@options.of_run
def status(directory: str, follow: bool, every: float) -> None:
    """Show the progress of RUN: tiles, rate, time left, and trained networks of each column that has any.

    With --follow, wait if the run does not exist yet.
    """
    from cntk_bench.runs.status import Follower

    where = options.run_directory(directory)
    follower = Follower(where)
    if follow and not follower.begun():
        streams.say(f"{short(str(where.path))} has no computed tiles yet: waiting for them")
        while not follower.begun():
            time.sleep(every)
    while True:
        found = follower.look()
        _tell(found, where)
        if not follow or found.finished:
            return
        time.sleep(every)


def _tell(found: "Status", where: "Run") -> None:
    document.add(
        run=where.path,
        finished=found.finished,
        tiles=found.counts and asdict(found.counts),
        pairs_per_second=found.pairs_per_second,
        seconds_left=found.seconds_left,
        at_work=found.writers,
        workers_lost=found.lost,
        trained=[asdict(cell) for cell in found.trained],
    )
    if found.counts is not None:
        _tell_tiles(found, found.counts)
    elif not found.trained:
        streams.say(f"nothing to compute: the columns of {short(str(where.path))} need no Gram matrix")
    for cell in found.trained:
        streams.say(f"{cell.label}: {cell.done} of {cell.count} trained")
        for line in cell.words:
            streams.say(f"  {line}")


def _tell_tiles(found: "Status", counts: "Counts") -> None:
    numbers = (counts.taken, "taken from another run"), (counts.in_part, "taken in part from another run")
    taken = " and ".join(f"{number} of them {how}" for number, how in numbers if number)
    streams.say(
        f"{counts.tiles} of {counts.all_tiles} tiles done{taken and f', {taken}'}, "
        f"{counts.pairs:,} of {counts.all_pairs:,} pairs"
    )
    if found.pairs_per_second and found.seconds_left is not None:
        many = len(found.writers) > 1
        who = f"with {len(found.writers)} processes" if many else "on the same machine"
        left = f", {units.duration(found.seconds_left)} left {who}" if found.seconds_left else ""
        streams.say(f"{found.pairs_per_second:,.1f} pairs per second and process{left}")
    if not found.writers and counts.tiles < counts.all_tiles:
        streams.say("at work: no process seen from here; `compute` with the run's config continues")
    if found.writers:
        places = [name.rsplit("-", 2)[:2] for name in found.writers]
        named = ", ".join(" process ".join(place) for place in places[:MOST_NAMED])
        more = f" and {len(places) - MOST_NAMED} more" if len(places) > MOST_NAMED else ""
        streams.say(f"at work: {short(named, 1000)}{more}")
    if found.lost:
        streams.say(
            f"workers lost: {len(found.lost)}, the last one by {found.lost[-1]}; others have their tiles"
        )


@click.command()
@options.of_column(required=True, help="Column to export, such as CNTK-GAP.")
@click.option("--depth", required=True, type=click.IntRange(1), metavar="D", help="Depth to export.")
@click.option("--to", "target", required=True, metavar="FILE",
              help="File to write: .npz, .npy (one file per array), .h5, .hdf5 or .pt.")  # fmt: skip
@click.option("--draw", type=click.IntRange(1), default=1, show_default=True, metavar="N",
              help="Draw of training images to export, if dataset.draws is more than 1.")  # fmt: skip
@options.of_run
def export(directory: str, column: str, depth: int, target: str, draw: int) -> None:
    """Write the Gram matrices of one column and depth of RUN to a file, with labels and image indices.

    The arrays are train (n, n), test (m, n), both float64, y_train, y_test, train_index and test_index.
    """
    from cntk_bench.runs import export as formats
    from cntk_bench.runs.access import open_run

    file = options.path(target, "--to")
    formats.require(file)
    opened = open_run(options.path(directory, "RUN"))
    opened.store.require_images()  # else indices would be left out in silence
    gram = opened.gram(column, depth, draw)
    files = list(formats.write(gram, file))
    document.add(run=directory, column=column, depth=depth, draw=draw, files=files)
    for written in files:
        streams.say(f"written: {written}")


@click.command()
@click.option("--sample", type=click.IntRange(0), default=4, show_default=True,
              help="Number of pairs to recompute in float64.")  # fmt: skip
@click.option("--repair", is_flag=True, help="Recompute damaged tiles.")
@options.overridable("dataset.path=FILE if the data have moved, compute.backend for a repair")
@options.of_run
def verify(directory: str, sample: int, repair: bool, overrides: tuple[str, ...]) -> int:
    """Check the tiles of RUN (checksums, consistency, a sample recomputed in float64) and its networks."""
    from cntk_bench.runs import train, verify

    options.require_moved(overrides, "compute")
    where = options.run_directory(directory)
    settings = where.config(overrides)
    if repair:  # only a repair changes tiles, and is logged
        logfile.begin(where.path)
    document.add(run=where.path)
    stage, found = verify.begun(settings, sample, repair), None
    if settings.kernel.readouts or where.gram.exists():
        with progress.bar("verifying") as advance:
            found = verify.verify(where, settings, sample, repair, lambda *_: advance(1))
    elif not train.needed(settings):
        streams.say(f"nothing to verify: the columns of {short(str(where.path))} need no Gram matrix")
    trained = train.checked(where, settings)
    any_training = bool(trained.there or trained.missing)
    if found is not None or any_training:
        verify.keep(where, stage, found, trained)
    code = 0 if found is None else _tell_verified(found, where, directory)
    damaged = trained.damaged
    document.add(training={"checked": trained.there, "missing": trained.missing, "damaged": damaged})
    for label, fault in damaged.items():
        streams.say(f"damaged: {short(label, 100)}: {short(fault, 200)}")
    if any_training:
        left = f", {trained.missing} not finished yet" if trained.missing else ""
        streams.say(f"{trained.there} pieces of training checked, {len(damaged)} damaged{left}")
    if damaged:
        streams.complain("run `cntk-bench train` on the run's config to train what is damaged anew")
    return 1 if damaged else code


def _tell_verified(found: "Verification", where: "Run", directory: str) -> int:
    """Print what was found about the tiles; return the exit code."""
    document.add(
        tiles={
            "checked": found.checked,
            "missing": found.missing,
            "damaged": {str(tile): fault for tile, fault in found.damaged.items()},
            "unreadable": {str(tile): str(fault) for tile, fault in found.unreadable.items()},
        },
        entries=[
            {name: getattr(entry, name) for name in ("row", "col", "stored", "exact", "error", "tolerance")}
            | {"tile": str(entry.tile), "readout": str(entry.readout)}
            for entry in found.entries
        ],
    )
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
        streams.complain(
            f"run `cntk-bench verify {short(shlex.quote(directory), 150)} --repair` to compute them anew"
        )
        return 1
    if found.unreadable:
        raise UserError(
            f"{len(found.unreadable)} tiles of {short(str(where.gram))} cannot be read now, so nothing is "
            "known of them: mend that and run `verify` again"
        )
    return 0


COMMANDS = (table, solves, status, verify, export)
