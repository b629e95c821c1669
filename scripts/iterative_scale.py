"""Memory, time and agreement of the iterative solvers beside the direct one, on kernels of made-up vectors.

    python scripts/iterative_scale.py 2000 6000 20000 --streamed 40000 --output results

For each number of training images a fully connected NTK of Gaussian vectors is computed into a store. Then
each solver reads it, solves one ridge and predicts, in a process of its own, whose peak beyond what it had
when libraries were loaded is Linux's account. `cg` is given the memory for a preconditioner of rank n / 40,
as `solve.memory` would, and the script fails where it takes more. Times are ratios to the direct solve of the
same size, measured in the same run. Sizes after --streamed are solved by `cg` alone, for the direct solve
would not fit or take too long; what tells of them is the residual, which is computed in float64. Writes
iterative-scale.json and iterative-scale.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cntk_bench.backends import create
from cntk_bench.grams import compute as grams
from cntk_bench.grams import growth, matrix, store, stream
from cntk_bench.grams.compute import Job
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.stream import Stored
from cntk_bench.kernels.spec import Readout, Spec
from cntk_bench.records import provenance
from cntk_bench.regression import iterative, partial, placement, prediction, ridge
from cntk_bench.regression.attempts import How
from cntk_bench.system import memory
from cntk_bench.system.memory import GIB

CLASSES, TEST, FEATURES, TILE, RIDGE = 10, 256, 20, 512, 1e-3
READOUT = Readout("fc-ntk", "", 3)
SOLVERS = ("cholesky", "refined", "cg")


def made(folder: Path, n: int) -> None:
    """A store of n training images: vectors around the centres of ten classes."""
    rng = np.random.default_rng(n)
    labels = rng.integers(0, CLASSES, n + TEST)
    x = rng.standard_normal((n + TEST, FEATURES)) + 1.5 * rng.standard_normal((CLASSES, FEATURES))[labels]
    x = x.astype(np.float32).reshape(n + TEST, FEATURES, 1, 1)
    spec = Spec([READOUT], FEATURES, 1)
    plan = grams.make_plan(spec, n, TEST, "cpu", TILE)
    images = ImageFacts((labels[:n], labels[n:]))
    target = growth.create(folder / "gram.zarr", plan, {"readouts": [str(READOUT)]}, images)
    grams.compute(Job(target, lambda spec: create("cpu", spec), x[:n], x[n:], None, create("cpu", spec)))


def solved(folder: Path, solver: str) -> dict:
    """Time and memory of one solve, and other facts; its test scores are saved in a file."""
    gram = store.open(folder / "gram.zarr")
    n, labels = gram.plan.n_train, gram.labels[0]
    small, some = np.eye(64, dtype=np.float32), np.arange(64) % CLASSES
    iterative.cg(Stored(gram, 0, sizes=(64, 1)), some, classes=CLASSES, rank=8)  # libraries are loaded
    iterative.refined(small, some, classes=CLASSES)
    next(iter(gram_blocks(gram, "cg", sizes=(64, 1))))
    more: dict = {"streaming": stream.memory(gram.plan)}
    if solver == "cg":
        least = placement.streamed(n, classes=CLASSES, free=0, streaming=more["streaming"]).host
        more["limit"] = (least + partial.memory(n, n // 40)) / GIB
    place = placement.choose(n, classes=CLASSES, device="cpu", solver=solver, **more)
    before, started = memory.peak(), time.perf_counter()
    if solver == "cg":
        found = iterative.cg(
            Stored(gram, 0), labels, classes=CLASSES, ridge=RIDGE, rank=place.rank, how=How()
        )
    else:
        held = matrix.matrix(gram, "train", 0, place.dtype, triangle="lower")
        solve = ridge.solve if solver == "cholesky" else iterative.refined
        found = solve(held, labels, classes=CLASSES, ridge=RIDGE, overwrite=True)
    at = time.perf_counter() - started
    scores = [prediction.scored(found.alpha, block)[0] for block in gram_blocks(gram, solver)]
    np.save(folder / f"{solver}.npy", np.concatenate(scores))
    facts = {
        "seconds": at,
        "peak": memory.peak() - before,
        "predicted": place.host,
        "rank": place.rank or None,
    }
    facts |= {"limit": int(more["limit"] * GIB) if "limit" in more else None}
    facts |= {"doubt": found.chosen.doubt, "residual": found.chosen.residual}
    return facts | {"iterations": found.facts.get("iterations")}


def gram_blocks(gram: store.Store, solver: str, **more):
    """Rows of test images, as a solver of a run is given them."""
    if solver == "cg":
        return stream.test_blocks(gram, 0, **more)
    return (block for _, block in matrix.row_blocks(gram, 0, **more))


def of_one(script: str, folder: str, name: str, *more: str, threads: int | None = None) -> dict:
    """The facts of one solve, from a process of its own, as the script prints them with --one.

    threads : threads of its BLAS, if not as many as in this process.
    """
    command = [sys.executable, script, "--one", folder, name, *more]
    names = () if threads is None else ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | {each: str(threads) for each in names}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    return json.loads(done.stdout)


def measured(n: int, solvers: tuple[str, ...]) -> list[dict]:
    """A row for each solver, with its agreement with the direct one if that is among them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder), n)
        for solver in solvers:
            rows.append(of_one(__file__, folder, solver) | {"n": n, "solver": solver})
        scores = {solver: np.load(Path(folder) / f"{solver}.npy") for solver in solvers}
    direct = scores.get("cholesky")
    for row in rows:
        if row["limit"] is not None and row["peak"] > row["limit"]:
            raise RuntimeError(f"{row['solver']} of {n} took {row['peak']} bytes, more than {row['limit']}")
        known = direct is not None
        row["agreement"] = (
            float(abs(scores[row["solver"]] - direct).max() / abs(direct).max()) if known else None
        )
        row["time_ratio"] = row["seconds"] / rows[0]["seconds"] if known else None
    return rows


def table(facts: dict) -> str:
    """Rows as Markdown."""
    made, machine = facts["made"], facts["machine"]
    lines = [
        "# Iterative solvers beside the direct one",
        "",
        f"`python scripts/iterative_scale.py {made['arguments']}` at commit",
        f"{made['commit']}; {machine['cores']} cores of an {machine['cpu']},",
        f"BLAS threads: {made['threads']}, shared with other programs. {READOUT} of vectors of {FEATURES}",
        f"features, ridge {RIDGE:g}, {CLASSES} classes, tiles of {TILE}. Peak: the most memory that a",
        "process uses beyond its libraries, as Linux counts it; predicted: by `placement`; allowed: as by",
        "`solve.memory`. A float64 matrix of n images has n^2 / 131,072 MiB. Time: relative to the direct",
        "solve of the same number of images, including reading, but not predicting. Agreement: the largest",
        "difference between test scores and the direct solve's, relative to the largest score. Residual:",
        "|(K + r I) alpha - Y| / |Y|.",
        "",
        "| n | solver | peak, MiB | predicted, MiB | allowed, MiB | time | iterations | rank | agreement "
        "| residual |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in facts["rows"]:
        sizes = [f"{row[key] / 2**20:.0f}" if row[key] else "" for key in ("peak", "predicted", "limit")]
        cells = [f"{row['n']:,}", row["solver"], *sizes]
        cells += [f"{row['time_ratio']:.2f}" if row["time_ratio"] else ""]
        cells += [str(row["iterations"] or ""), str(row["rank"] or "")]
        cells += [f"{row['agreement']:.0e}" if row["agreement"] else "", f"{row['residual']:.0e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def begun(words: str, output: Path | None) -> dict:
    """What is kept of a script called with these arguments: machine, versions, commit, and no rows yet."""
    if output:  # fails now, not after the first size
        output.mkdir(parents=True, exist_ok=True)
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "all")
    made = {"arguments": words, "commit": provenance.commit(), "ridge": RIDGE, "threads": threads}
    return {"machine": provenance.machine(), "versions": provenance.versions(), "made": made, "rows": []}


def tell(facts: dict, text: str, output: Path | None, name: str) -> None:
    """Print the table, and write it, after each size: the next one may take hours."""
    print(text)
    if output:
        (output / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
        (output / f"{name}.md").write_text(text)


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int)
    parser.add_argument("--streamed", nargs="*", type=int, default=[])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(solved(Path(arguments.one[0]), arguments.one[1])))
        return
    words = " ".join(map(str, arguments.sizes))
    if arguments.streamed:
        words += f" --streamed {' '.join(map(str, arguments.streamed))}"
    facts = begun(words, arguments.output)
    sizes = [(n, SOLVERS) for n in arguments.sizes] + [(n, ("cg",)) for n in arguments.streamed]
    for n, solvers in sizes:
        facts["rows"] += measured(n, solvers)
        tell(facts, table(facts), arguments.output, "iterative-scale")


if __name__ == "__main__":
    main()
