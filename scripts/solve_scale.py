"""Time and memory of the direct solve beside LAPACK's factor of the same matrix, of made-up vectors.

    python scripts/solve_scale.py 10000 20000 30000 --memory 24 --output results

For each number of training images a fully connected NTK of Gaussian vectors is computed into a store. Then a
process reads it, solves one ridge in float64 as `solve` does, and predicts. Its peak beyond what it had when
libraries were loaded is Linux's account; the script fails where that is more than `placement` said. Others do
so without leave-one-out, and others factor the same matrix by `scipy.linalg.lapack.dpotrf` in place: all of
them in turn, as often as --repeat says, small ones three times as often. Beside them stands what `plan`
foretells, measured before. --memory is `solve.memory`, in GiB: sizes that do not fit in float64 are refused,
as in a run. Writes solve-scale.json and solve-scale.md.
"""

import argparse
import json
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from iterative_scale import CLASSES, READOUT, RIDGE, TEST, TILE, begun, made, of_one, tell
from scipy.linalg import get_blas_funcs
from scipy.linalg.lapack import dpotrf

from cntk_bench.config.config import Solve
from cntk_bench.costs import forecast
from cntk_bench.grams import matrix, store, stream
from cntk_bench.grams.tiles import Plan
from cntk_bench.regression import placement, prediction, ridge
from cntk_bench.regression.placement import Place
from cntk_bench.system import memory

SOLVES = {"solve": True, "solve, without leave-one-out": False}
QUICK = 6000  # images, below which everything is done three times as often


def placed(n: int, limit: float | None, plan: Plan) -> Place:
    """Where it is to be solved; UserError if it does not fit."""
    return placement.choose(
        n,
        classes=CLASSES,
        device="cpu",
        dtype="float64",
        limit=limit,
        solver="cholesky",
        streaming=stream.memory(plan),
    )


def solved(folder: Path, limit: float | None, leave_one_out: bool) -> dict:
    """Time and memory of reading, solving and predicting."""
    gram = store.open(folder / "gram.zarr")
    n, labels = gram.plan.n_train, gram.labels[0]
    small, some = 2 * np.eye(600), np.arange(600) % CLASSES
    ridge.solve(small, some, classes=CLASSES, overwrite=True)  # libraries are loaded
    next(iter(matrix.row_blocks(gram, 0, sizes=(64, 1))))
    place = placed(n, limit, gram.plan)
    before, times = memory.peak(), [time.perf_counter()]
    held = matrix.matrix(gram, "train", 0, place.dtype, triangle="lower")
    times.append(time.perf_counter())
    found = ridge.solve(
        held, labels, classes=CLASSES, ridge=RIDGE, overwrite=True, leave_one_out=leave_one_out
    )
    times.append(time.perf_counter())
    blocks = (block for _, block in matrix.row_blocks(gram, 0))
    prediction.predict(found.alpha, blocks, found.chosen.largest_residual)
    times.append(time.perf_counter())
    reading, solving, predicting = np.diff(times)
    facts = {
        "seconds": times[-1] - times[0],
        "reading": reading,
        "solving": solving,
        "predicting": predicting,
    }
    facts |= {"peak": memory.peak() - before, "predicted": place.host}
    return facts | {"residual": found.chosen.residual, "doubt": found.chosen.doubt}


def factored(folder: Path) -> dict:
    """Time of LAPACK's factor of the same matrix with the same ridge, in place."""
    held = matrix.matrix(store.open(folder / "gram.zarr"), "train", 0, np.float64, triangle="lower")
    held[np.diag_indices(len(held))] += RIDGE * held.diagonal().mean()
    get_blas_funcs("gemm", dtype=np.float64)(
        1.0, np.ones((600, 600)), np.ones((600, 600))
    )  # threads are started
    started = time.perf_counter()
    _, info = dpotrf(held.T, lower=0, overwrite_a=1, clean=0)  # the lower triangle, in C order
    if info:
        raise RuntimeError(f"potrf failed at pivot {info}")
    return {"seconds": time.perf_counter() - started}


def foretold(folder: Path, limit: float | None, leave_one_out: bool) -> list[float]:
    """Seconds that `plan` forecasts for the same solve, [low, high], without its margin for the unknown."""
    plan = store.open(folder / "gram.zarr").plan
    how = Solve(ridge=RIDGE, leave_one_out=leave_one_out)
    found = forecast.forecast(plan, placed(plan.n_train, limit, plan), how, 1, CLASSES)
    assert found.each is not None  # it is direct
    return [found.each.low, found.each.high]


def of_potrf(folder: str) -> dict:
    """Time of LAPACK's factor; with one thread if several crash the process.

    OpenBLAS 0.3.30 and 0.3.31 crash by SIGSEGV on 2 threads at n = 16,000, though not at 12,000.
    """
    try:
        return of_one(__file__, folder, "potrf")
    except subprocess.CalledProcessError as error:
        if error.returncode != -signal.SIGSEGV:
            raise
        return of_one(__file__, folder, "potrf", threads=1) | {"threads": 1}


def measured(n: int, limit: float | None, repeat: int) -> dict:
    """All runs of one size."""
    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder), n)
        row: dict = {"n": n, "potrf": [], "foretold": {}} | {name: [] for name in SOLVES}
        for name, leave_one_out in SOLVES.items():
            row["foretold"][name] = foretold(Path(folder), limit, leave_one_out)
        for _ in range(repeat * (3 if n < QUICK else 1)):
            row["potrf"].append(of_potrf(folder))
            for name in SOLVES:
                more = [] if limit is None else ["--memory", str(limit)]
                row[name].append(of_one(__file__, folder, name, *more))
    for one in (one for name in SOLVES for one in row[name]):
        if one["peak"] > one["predicted"]:
            raise RuntimeError(f"solving {n} took {one['peak']} bytes, more than {one['predicted']} foretold")
    return row


def ratios(row: dict, name: str) -> list[float]:
    """Times of a solve relative to that of potrf in the same turn, from the least."""
    pairs = zip(row[name], row["potrf"], strict=True)
    return sorted(one["seconds"] / other["seconds"] for one, other in pairs)


def between(values: list[float], form: str) -> str:
    """The range of some values."""
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def table(facts: dict) -> str:
    """Rows as Markdown."""
    origin, machine = facts["made"], facts["machine"]
    lines = [
        "# The direct solve beside LAPACK's factor",
        "",
        f"`python scripts/solve_scale.py {origin['arguments']}` at commit",
        f"{origin['commit']}; {machine['cores']} cores of an {machine['cpu']},",
        f"BLAS threads: {origin['threads']}, shared with other programs. {READOUT} of made-up vectors, ridge",
        f"{RIDGE:g}, {CLASSES} classes, {TEST} test images, tiles of {TILE}, in float64. Each number was",
        "measured in its own process; ranges are over repetitions. Time: seconds, including reading and",
        "predicting; ratio: to the time of `dpotrf` for the same matrix in the same round, which neither",
        "reads nor solves (with 1 thread where several make the process end with SIGSEGV). Forecast: what",
        "`plan` measures and extrapolates, without the quarter that it adds. Peak: the most memory that a",
        "process uses beyond its libraries, as Linux counts it.",
        "",
        "| n | solve | potrf, s | time, s | ratio | reading, s | predicting, s | forecast, s | peak, MiB "
        "| predicted, MiB | residual |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in facts["rows"]:
        for name in SOLVES:
            some = row[name]
            alone = " (1 thread)" * any("threads" in one for one in row["potrf"])
            cells = [f"{row['n']:,}", name, between([one["seconds"] for one in row["potrf"]], ".3g") + alone]
            cells += [between([one["seconds"] for one in some], ".3g"), between(ratios(row, name), ".2f")]
            cells += [between([one[key] for one in some], ".2g") for key in ("reading", "predicting")]
            cells += [between(row["foretold"][name], ".3g")]
            cells += [f"{max(one[key] for one in some) / 2**20:.0f}" for key in ("peak", "predicted")]
            cells += [f"{max(one['residual'] for one in some):.0e}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[10_000, 20_000, 30_000])
    parser.add_argument("--memory", type=float, metavar="GIB")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        folder, name = Path(arguments.one[0]), arguments.one[1]
        one = factored(folder) if name == "potrf" else solved(folder, arguments.memory, SOLVES[name])
        print(json.dumps(one))
        return
    words = " ".join(map(str, arguments.sizes))
    words += "" if arguments.memory is None else f" --memory {arguments.memory:g}"
    words += "" if arguments.repeat == 1 else f" --repeat {arguments.repeat}"
    facts = begun(words, arguments.output)
    for n in arguments.sizes:
        facts["rows"].append(measured(n, arguments.memory, arguments.repeat))
        tell(facts, table(facts), arguments.output, "solve-scale")


if __name__ == "__main__":
    main()
