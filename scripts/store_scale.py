"""Times what a store costs that has many tiles: opening it, its status, and what follows a writer.

No kernel is computed: journals are written as writers leave them, and no chunks.

    python scripts/store_scale.py 1000 50000 1000000
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cntk_bench.grams import growth, store  # noqa: E402
from cntk_bench.grams.images import Images  # noqa: E402
from cntk_bench.grams.journal import FOLDER, Entry  # noqa: E402
from cntk_bench.grams.tiles import Plan  # noqa: E402

WRITERS = 8


def written(folder: Path, tiles: int, readouts: int) -> store.Store:
    """A store of about so many tiles, all of them logged by several writers."""
    n = int((2 * tiles + 0.25) ** 0.5 - 0.5)
    plan = Plan(n, 0, 1, readouts)
    labels = Images((np.zeros(n, int), np.zeros(0, int)))
    gram = growth.create(folder / "gram.zarr", plan, {"readouts": [f"r{i}" for i in range(readouts)]}, labels)
    (gram.path / FOLDER).mkdir()
    every, digests = tuple(range(readouts)), np.random.default_rng(0).integers(1, 2**63, (WRITERS, readouts))
    logs = [(gram.path / FOLDER / f"w{i}.jsonl").open("w") for i in range(WRITERS)]
    for number, tile in enumerate(plan.tiles()):
        values = tuple(int(d) for d in digests[number % WRITERS])
        logs[number % WRITERS].write(f"\n{Entry(tile, every, values, seconds=0.5, time=1.7e9).line()}\n")
    for log in logs:
        log.close()
    return gram


def timed(function):
    started = time.perf_counter()
    found = function()
    return found, time.perf_counter() - started


def row(path: Path, readouts: int) -> str:
    """What opening a store and looking at it takes, as a row of the table."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, opening = timed(lambda: store.open(path))
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    missing, looking = timed(found.progress.missing)
    assert missing == []
    _, again = timed(found.progress.refresh)
    figures = f"{opening:.2f} | {looking:.2f} | {again:.4f} | {memory:.0f}"
    return f"| {found.plan.count:,} | {readouts} | {figures} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tiles", nargs="+", type=int)
    parser.add_argument("--readouts", type=int, default=1)
    arguments = parser.parse_args()
    print("| tiles | readouts | open, s | missing, s | refresh, s | memory, MiB |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    for tiles in arguments.tiles:
        with tempfile.TemporaryDirectory() as folder:
            path = written(Path(folder), tiles, arguments.readouts).path
            child = os.fork()  # so that the memory is that of opening alone
            if child == 0:
                print(row(path, arguments.readouts), flush=True)
                os._exit(0)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
