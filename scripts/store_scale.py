"""Times what a store costs that has many tiles: opening it, its status, and following its writers.

No kernel is computed: journals are written as writers leave them, and no chunks. Seconds are of CPU
time, which other programs change less than elapsed time.

    python scripts/store_scale.py 1000 50000 1000000 --kinds plain,taken,grown,overlapping
"""

import argparse
import os
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cntk_bench.grams import growth, store  # noqa: E402
from cntk_bench.grams.image_facts import ImageFacts  # noqa: E402
from cntk_bench.grams.journal import FOLDER  # noqa: E402
from cntk_bench.grams.lines import Line  # noqa: E402
from cntk_bench.grams.tiles import Plan  # noqa: E402
from cntk_bench.records.directory import Run  # noqa: E402
from cntk_bench.runs.status import Follower  # noqa: E402
from cntk_bench.system import memory  # noqa: E402

WRITERS = 8
SIDE = 8  # of a tile
KINDS = {
    "plain": "each tile computed once",
    "taken": "each taken from another run",
    "grown": "a run of 0.7 times as many images computed first, whose last tiles were computed again",
    "overlapping": "each tile computed by two of the writers",
}


def logged(plan: Plan, kind: str):
    """The journal lines of a store of some kind, as (writer, line)."""
    readouts, rng = tuple(range(plan.readouts)), np.random.default_rng(0)
    digests = rng.integers(1, 2**63, (plan.count, plan.readouts)).tolist()
    small = Plan(int(0.7 * plan.n_train) // SIDE * SIDE + 3, 0, SIDE, plan.readouts)
    first = small.tiles() if kind == "grown" else []
    whole = {tile for tile in first if min(tile.shape(small)[1:]) == SIDE}
    for number, tile in enumerate(chain(first, (tile for tile in plan.tiles() if tile not in whole))):
        values = tuple(digests[number % plan.count])
        shape = None if number >= len(first) or tile in whole else tile.shape(small)[1:]
        line = Line(tile, readouts, values, shape, seconds=0.5, time=1.7e9, taken=kind == "taken")
        yield number % WRITERS, line
        if kind == "overlapping":
            yield (number + 1) % WRITERS, line


def written(folder: Path, tiles: int, readouts: int, kind: str) -> store.Store:
    """A store of about so many tiles, all of them logged by several writers."""
    n = SIDE * int((2 * tiles + 0.25) ** 0.5 - 0.5)
    plan = Plan(n, 0, SIDE, readouts)
    labels = ImageFacts((np.zeros(n, int), np.zeros(0, int)))
    gram = growth.create(folder / "gram.zarr", plan, {"readouts": [f"r{i}" for i in range(readouts)]}, labels)
    (gram.path / FOLDER).mkdir()
    logs = [(gram.path / FOLDER / f"w{i}.jsonl").open("w") for i in range(WRITERS)]
    for writer, line in logged(plan, kind):
        logs[writer].write(f"\n{line}\n")
    for log in logs:
        log.close()
    return gram


def timed(function):
    started = time.process_time()
    found = function()
    return found, time.process_time() - started


def row(path: Path, kind: str, readouts: int) -> str:
    """Time and memory of opening a store and looking at it, as a row of the table."""
    before = memory.peak()
    found, opening = timed(lambda: store.open(path))
    grown = (memory.peak() - before) / 2**20
    missing, listing = timed(found.progress.missing)
    assert missing == [] and found.progress.disputed == set()
    follower = Follower(Run(path.parent))
    follower.look()
    with (path / FOLDER / "w0.jsonl").open("a") as log:  # what a writer adds between two looks
        for tile in found.plan.tiles()[:100]:
            log.write(f"\n{Line(tile, tuple(range(readouts)), (5,) * readouts, round=1)}\n")
    status, looking = timed(follower.look)
    assert status.finished and status.counts.tiles == found.plan.count
    return (
        f"| {found.plan.count:,} | {kind} | {readouts} | {opening:.2f} | {listing:.2f} | {looking:.3f} "
        f"| {grown:.0f} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tiles", nargs="+", type=int)
    parser.add_argument("--readouts", type=int, default=1)
    parser.add_argument("--kinds", default="plain", help=f"among {','.join(KINDS)}")
    arguments = parser.parse_args()
    print("| tiles | journals | readouts | open, s | missing, s | look, s | memory, MiB |")
    print("|---:|---|---:|---:|---:|---:|---:|", flush=True)
    for tiles in arguments.tiles:
        for kind in arguments.kinds.split(","):
            with tempfile.TemporaryDirectory() as folder:
                path = written(Path(folder), tiles, arguments.readouts, kind).path
                child = os.fork()  # so that the memory is that of opening alone
                if child == 0:
                    print(row(path, kind, arguments.readouts), flush=True)
                    os._exit(0)
                os.waitpid(child, 0)


if __name__ == "__main__":
    main()
