"""Accept a GPU machine: check every kernel there, time it, and write down what was measured.

    python scripts/gpu_acceptance.py            # within nine minutes, offline
    python scripts/gpu_acceptance.py --quick    # two

Sections stand alone: one that fails does not lose the others, one whose packages are missing says so.
Writes gpu-acceptance.json and gpu-acceptance.md to --output. Exit codes: 0 all checks passed, 1 some
failed, 2 no GPU.

Needs cupy, numpy and scipy; the store zarr, the tests pytest, the comparison jax and neural-tangents.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import traceback
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from math import isqrt
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import count_sass  # noqa: E402
import precision  # noqa: E402
from original import Original  # noqa: E402

from cntk_bench import gramian, measure, reference, ridge  # noqa: E402
from cntk_bench.backends import cuda, cuda_limit, cuda_zones  # noqa: E402
from cntk_bench.errors import UserError  # noqa: E402
from cntk_bench.spec import Readout, Spec  # noqa: E402

DEPTHS = (3, 4, 6, 11, 21)
V = tuple(Readout("ntk", "v", depth) for depth in DEPTHS)
GAP = tuple(Readout(kernel, "gap", depth) for kernel in ("ntk", "nngp") for depth in DEPTHS)


class Skipped(Exception):
    """A section cannot run here; the message says what is missing."""


@dataclass(frozen=True)
class Machine:
    """What the share of the issue limit needs to know of a GPU."""

    gpu: str
    arch: str  # "sm_90"
    multiprocessors: int
    clock: float  # Hz, the highest

    def issued(self, pairs_per_second: float, entry_layers: int, instructions: float) -> float:
        """Share of the instructions that the schedulers could issue: `entry_layers` of a pair."""
        warps = pairs_per_second * entry_layers * instructions / cuda_zones.LANES
        return warps / (self.multiprocessors * cuda_limit.SCHEDULERS * self.clock)


class TimedGpu(cuda.Gpu):
    """A GPU that can time its kernels with events."""

    def __init__(self):
        super().__init__()
        self.events = None  # a list while `seconds` runs

    def module(self, text, options):
        launch = super().module(text, options)

        def timed(name, *arguments):
            if self.events is None:
                return launch(name, *arguments)
            start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
            start.record()
            launch(name, *arguments)
            end.record()
            self.events.append((name, start, end))

        return timed

    def seconds(self, work) -> dict[str, float]:
        """Seconds in each kernel while `work` runs, by kernel."""
        self.events, out = [], defaultdict(float)
        work()
        self.cupy.cuda.Device().synchronize()
        for name, start, end in self.events:
            out[name] += self.cupy.cuda.get_elapsed_time(start, end) / 1000
        self.events = None
        return out


@dataclass(frozen=True)
class Acceptance:
    """One run: what every section is given.

    gpu is a function that makes what `cuda.Backend` launches through; tests give an emulator's.
    """

    machine: Machine
    gpu: type
    quick: bool
    deadline: float  # on time.monotonic's clock
    channels: int = 3
    size: int = 32
    most: int = 2048  # images
    seed: int = 0

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    @cached_property
    def images(self) -> np.ndarray:
        """Random images, never zeros: those compute faster."""
        shape = (self.most, self.channels, self.size, self.size)
        return np.random.default_rng(self.seed).standard_normal(shape, dtype=np.float32)

    def spec(self, readouts) -> Spec:
        return Spec(readouts, self.channels, self.size)

    @cached_property
    def exact(self) -> np.ndarray:
        """(readouts V + GAP, 2, 2) float64: two images, each with itself and with the other."""
        return reference.gram(self.images[:2], readouts=V + GAP)

    def error(self, backend, readouts, self_pairs=True) -> float:
        """Largest relative error of a backend against the definition."""
        x = backend.prepare(self.images[:2])
        exact = self.exact[[(V + GAP).index(readout) for readout in readouts]]
        errors = abs(backend.tile(x, x) / exact - 1)
        return float(errors.max() if self_pairs else errors[:, [0, 1], [1, 0]].max())

    # The sections: each returns what it found; "passed" is False where a check failed.

    def environment(self):
        names = ("cupy-cuda13x", "cupy-cuda12x", "numpy", "scipy", "zarr", "jax", "neural-tangents")
        packages = {name: installed(name) for name in names if installed(name)}
        fields = "driver_version,clocks.sm,clocks.max.sm,power.limit,temperature.gpu,memory.total"
        return {"python": sys.version.split()[0], "packages": packages, "nvidia_smi": nvidia_smi(fields)}

    def cuda_tests(self):
        return run_tests(["tests/test_cuda.py"], 60 if self.quick else 120)

    def whole_suite(self):
        if self.quick:
            raise Skipped("--quick leaves the whole suite out")
        if missing := missing_packages():
            raise Skipped(f"not installed: {', '.join(missing)}")
        return run_tests([], self.left)

    def precision(self):
        """Images that provoke rounding, where this GPU's fast reciprocal and square root would show."""
        images = np.random.default_rng(self.seed).integers(0, 256, (12, self.channels, self.size, self.size))
        backend = cuda.Backend(self.spec(precision.READOUTS), self.gpu())
        passed, errors = True, {}
        for family, pairs in precision.families(images.astype(float)).items():
            found = precision.largest_errors(backend, pairs[:1] if self.quick else pairs[:2])
            passed = passed and bool((found <= precision.bounds(family)).all())  # NaN is not
            errors[family] = dict(zip(precision.COLUMNS, map(float, found), strict=True))
        return {"passed": passed, "errors": errors}

    def original(self):
        """Rung 0. Its float32 angle is off where images agree, so self-pairs are not held against it."""
        rung = Original(self.spec(GAP), self.gpu())
        counted = self.instructions(lambda: count_sass.count_original(rung.spec, self.machine.arch))
        return self.rung(rung, GAP, counted, 1e-5, self_pairs=False)

    def displacements(self):
        """GAP, all depths, NTK of the hidden layers and NNGP."""
        return self.shipped(GAP)

    def diagonal(self):
        """V, all depths."""
        return self.shipped(V)

    def one_column(self):
        """`displacements` with one column a lane: twice the warps, more instructions."""
        return self.variant(COLUMNS=1)

    def large_blocks(self):
        """`displacements` in blocks of 8 warps: half the copies, one block a multiprocessor."""
        return self.variant(WARPS=8)

    def variant(self, **constants):
        """GAP with other constants than are shipped: is the choice right on this GPU?"""
        shipped = {name: getattr(cuda_zones, name) for name in constants}
        try:
            for name, value in constants.items():
                setattr(cuda_zones, name, value)
            return {**self.shipped(GAP, committed=False), **constants}
        finally:
            for name, value in shipped.items():
                setattr(cuda_zones, name, value)

    def shipped(self, readouts, committed=True):
        backend = cuda.Backend(self.spec(readouts), self.gpu())
        zone = (backend.rings or [backend.diagonal])[0].zone
        counted = self.instructions(
            lambda: count_sass.count(zone.kernel, zone, self.machine.arch), zone if committed else None
        )
        return self.rung(backend, readouts, counted, 1e-6, zone.kernel)

    def instructions(self, count, zone=None) -> float | None:
        """Instructions an entry-layer: counted here, or where that cannot be, as committed for sm_90."""
        try:
            count_sass.disassembler()
            return count().total
        except Exception:  # no nvdisasm, or another compiler's loop
            committed = zone is not None and self.machine.arch == "sm_90"
            return cuda_limit.instructions(zone)[0] if committed else None

    def rung(self, backend, readouts, instructions, tolerance, kernel=None, self_pairs=True):
        """Check, then time; the share is of `kernel`'s own time where events give it."""
        error = self.error(backend, readouts, self_pairs)
        rate = measure.rate(backend, self.images, 0.5 if self.quick else 1.0, runs=3 if self.quick else 5)
        found = {
            "passed": error <= tolerance,
            "error": error,
            "pairs": rate.pairs,
            "runs": rate.runs,
            "pairs_per_second": rate.pairs_per_second,
            "instructions": instructions,
        }
        alone = rate.pairs_per_second
        if kernel and hasattr(backend.gpu, "seconds"):
            alone = found["kernel_pairs_per_second"] = rate.pairs / self.kernel_seconds(backend, rate, kernel)
        if instructions:
            work = gramian.work(backend.spec)
            found["share"] = self.machine.issued(alone, work, instructions)
        return found

    def kernel_seconds(self, backend, rate, kernel) -> float:
        x = backend.prepare(self.images[: isqrt(rate.pairs)])
        return median(backend.gpu.seconds(lambda: backend.tile(x, x))[kernel] for _ in range(rate.runs))

    def neural_tangents(self):
        """GAP at the largest depth, by neural-tangents on the same GPU; its error is to ours."""
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave the others their memory
        try:
            import jax
            from make_fixtures import hidden_kernel, network
        except Exception as error:  # versions that do not fit raise whatever they like
            raise Skipped(f"{type(error).__name__}: {error}") from None
        if jax.default_backend() != "gpu":
            raise Skipped(f"jax runs on {jax.default_backend()}, not on the GPU")
        body, head, scale = network("gap", DEPTHS[-1], self.channels, self.size)
        kernel, side = jax.jit(hidden_kernel(body, head)), min(8, self.most // 2)
        x, z = self.images[:side], self.images[side : 2 * side]
        first, other = (np.moveaxis(images, 1, -1) for images in (x, z))
        result = scale * np.asarray(kernel(first, other))  # and compiles
        backend = cuda.Backend(self.spec((Readout("ntk", "gap", DEPTHS[-1]),)), self.gpu())
        (ours,) = backend.tile(backend.prepare(x), backend.prepare(z))
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            kernel(first, other).block_until_ready()
            seconds.append(time.perf_counter() - started)
        error = float(abs(result / ours - 1).max())
        return {
            "passed": error <= 1e-4,
            "device": str(jax.devices()[0]),
            "packages": f"jax {jax.__version__}, neural-tangents {version('neural-tangents')}",
            "error": error,
            "pairs": side**2,
            "runs": len(seconds),
            "pairs_per_second": side**2 / median(seconds),
        }

    def stage_gap(self):
        return self.stage(GAP)

    def stage_v(self):
        return self.stage(V)

    def stage(self, readouts):
        """The `compute` stage: tiles through the store to disk, against the backend alone."""
        backend, seconds = cuda.Backend(self.spec(readouts), self.gpu()), 2.0 if self.quick else 8.0
        alone = measure.rate(backend, self.images, seconds / 4)
        same = []

        def look(store, images):
            """The last tile of the store has the bits that the backend alone gives a corner of it."""
            tile = store.plan.tiles()[-1]
            x, z = (images[part][:8] for part in (tile.rows(store.plan), tile.cols(store.plan)))
            corner = backend.tile(backend.prepare(x), backend.prepare(z), symmetric=tile.diagonal)
            same.append(np.array_equal(store.read(tile)[:, : len(x), : len(z)], corner))

        try:
            found = measure.stage(backend, self.images, alone, seconds, Path(tempfile.gettempdir()), look)
        except ImportError as error:
            raise Skipped(f"the store: {error}") from None
        return {
            "passed": same == [True],
            "pairs": found.pairs,
            "seconds_computing": found.seconds,
            "pairs_per_second": found.pairs_per_second,
            "of_the_backend_alone": found.pairs_per_second / alone.pairs_per_second,
        }

    def solve_small(self):
        return self.solve(4_000 if self.quick else 10_000)

    def solve_large(self):
        return self.solve(10_000) if self.quick else self.solve(50_000, matrices=len(DEPTHS))

    def solve(self, n, matrices=1):
        """A ridge path in float64 on each of some Gram matrices, as for a column's depths; and the memory.

        They are one random positive definite matrix, solved again and again.
        """
        import cupy

        try:
            place = ridge.place(n, classes=10, device="cuda", dtype="float64")
        except UserError as error:  # it does not fit
            raise Skipped(str(error)) from None

        rng = np.random.default_rng(n)
        gram, labels = random_gram(n, cupy), rng.integers(0, 10, n)
        with peak_memory(cupy) as used:
            started = time.perf_counter()
            paths = [
                ridge.solve(gram, labels, classes=10, ridge=(0.0, 1e-3), device="cuda").path
                for _ in range(matrices)
            ]
            seconds = time.perf_counter() - started
        cupy.get_default_memory_pool().free_all_blocks()
        residual = float(np.max([fit.residual for path in paths for fit in path]))  # NaN, if any is
        return {
            "passed": residual < 1e-8 and used["bytes"] <= place.gpu,
            "n": n,
            "matrices": matrices,
            "ridges": len(paths[0]),
            "solve_seconds": seconds,
            "residual": residual,
            "predicted_gpu_gib": place.gpu / 2**30,
            "used_gpu_gib": used["bytes"] / 2**30,
        }


SECTIONS = (
    "environment", "cuda_tests", "precision", "displacements", "diagonal", "one_column", "large_blocks",
    "original", "neural_tangents", "stage_gap", "stage_v", "solve_small", "solve_large", "whole_suite",
)  # fmt: skip


def random_gram(n: int, xp, rank: int = 256) -> np.ndarray:
    """X X^T / rank + I for random X: (n, n) float32 on the host, computed block by block by `xp`."""
    x = xp.asarray(np.random.default_rng(0).standard_normal((n, rank), dtype=np.float32) / rank**0.5)
    gram = np.empty((n, n), np.float32)
    for start in range(0, n, 2048):
        block = x[start : start + 2048] @ x.T
        gram[start : start + 2048] = block.get() if hasattr(block, "get") else block
    gram[np.diag_indices(n)] += 1
    return gram


@contextmanager
def peak_memory(cupy, every=0.02):
    """The most GPU memory that was in use beyond what is now, looked at every so many seconds."""
    cupy.get_default_memory_pool().free_all_blocks()
    before, used, done = cupy.cuda.runtime.memGetInfo()[0], {"bytes": 0}, threading.Event()

    def watch():
        ended = False
        while not ended:  # once more after the end
            ended = done.wait(every)
            used["bytes"] = max(used["bytes"], before - cupy.cuda.runtime.memGetInfo()[0])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield used
    finally:
        done.set()
        watcher.join()


def missing_packages() -> list[str]:
    """What the project's tests need and this machine lacks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w-]+", package)[0] for package in (*project["dependencies"], "pytest")]
    return [name for name in names if not installed(name)]


def installed(name: str) -> str | None:
    """A package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def run_tests(arguments, seconds) -> dict:
    """pytest in its own process; where time runs out, what was counted until then, and no verdict."""
    if not installed("pytest"):
        raise Skipped("not installed: pytest")
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--color=no", *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=seconds)
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        output, code = error.stdout or b"", None
    output = output.decode(errors="replace")
    verdicts = ("PASSED", "FAILED", "ERROR", "SKIPPED")
    counts = Counter(re.findall(rf"^\S+::.* ({'|'.join(verdicts)})\b", output, re.M))
    failed = counts["FAILED"] + counts["ERROR"] > 0
    return {
        "passed": False if failed else None if code is None else code == 0 and counts["PASSED"] > 0,
        "tests": {verdict.lower(): counts[verdict] for verdict in verdicts},
        **({} if code is not None else {"note": f"stopped after {seconds:.0f} s"}),
        **({} if code in (0, None) else {"output": output[-2000:]}),
    }


def run_section(acceptance, name: str) -> dict:
    """One section's findings, its time, and its `passed`: True, False, or None where it was skipped."""
    started = time.perf_counter()
    try:
        if acceptance.left < 5:
            raise Skipped("no time left")
        found = {"passed": True, **getattr(acceptance, name)()}
    except Skipped as reason:
        found = {"passed": None, "note": str(reason)}
    except Exception as error:
        traceback.print_exc()
        found = {"passed": False, "note": f"{type(error).__name__}: {error}"}
    return {**found, "seconds": round(time.perf_counter() - started, 2)}


def table(results: dict) -> str:
    """The results as Markdown: rates first, then every other finding."""
    machine = results["machine"]
    clock = machine["clock"] / 1e9
    lines = [
        f"# {machine['gpu']}, {results['date']}",
        "",
        f"Commit {results['commit']}; {machine['multiprocessors']} multiprocessors, {clock:.2f} GHz; "
        f"{results['seconds']:.0f} s; {'all checks passed' if results['passed'] else 'A CHECK FAILED'}.",
        "",
        "| section | checked | error | pairs/s | kernel alone | instructions | share of issue limit |",
        "|---|---|---|---|---|---|---|",
    ]

    def cell(found, key, form):
        return format(found[key], form) if found.get(key) is not None else "-"

    for name, found in results["sections"].items():
        if "pairs_per_second" in found:
            checked = "yes" if found["passed"] and "error" in found else "-" if found["passed"] else "FAILED"
            lines.append(
                f"| {name} | {checked} | {cell(found, 'error', '.1e')} "
                f"| {cell(found, 'pairs_per_second', ',.0f')} "
                f"| {cell(found, 'kernel_pairs_per_second', ',.0f')} | {cell(found, 'instructions', '.1f')} "
                f"| {cell(found, 'share', '.1%')} |"
            )
    lines += ["", "| section | passed | seconds | found |", "|---|---|---|---|"]
    verdicts = {True: "yes", False: "NO", None: "skipped"}
    for name, found in results["sections"].items():
        if "pairs_per_second" not in found:
            rest = {key: value for key, value in found.items() if key not in ("passed", "seconds")}
            text = "; ".join(f"{key}: {value}" for key, value in rest.items()).replace("|", "/")
            text = " ".join(text.split())
            lines.append(f"| {name} | {verdicts[found['passed']]} | {found['seconds']:.1f} | {text} |")
    return "\n".join(lines) + "\n"


def write(results: dict, folder: Path) -> None:
    """gpu-acceptance.json and gpu-acceptance.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu-acceptance.json").write_text(json.dumps(results, indent=2) + "\n")
    (folder / "gpu-acceptance.md").write_text(table(results))


def accept(acceptance, commit: str, folder: Path, sections=SECTIONS) -> dict:
    """Run the sections in turn; what is known is written after each."""
    machine, started = acceptance.machine, time.perf_counter()
    results = {
        "machine": asdict(machine),
        "commit": commit,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "passed": True,
        "pairs_per_second": {},  # of sections whose check passed
        "quick": acceptance.quick,
        "seed": acceptance.seed,
        "sections": {},
    }
    for name in sections:
        print(f"{name} ...", flush=True)
        found = run_section(acceptance, name)
        results["sections"][name] = found
        if found["passed"] and "pairs_per_second" in found:
            results["pairs_per_second"][name] = found["pairs_per_second"]
        results["passed"] = results["passed"] and found["passed"] is not False
        results["seconds"] = round(time.perf_counter() - started, 1)
        write(results, folder)
        print(f"{name}: {json.dumps(found)}", flush=True)
    return results


def nvidia_smi(fields: str) -> dict[str, str]:
    """The driver's tool on the first GPU: field -> value with its unit."""
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return {"nvidia-smi": f"does not answer: {error}"}
    return dict(zip(fields.split(","), answer.splitlines()[0].split(", "), strict=True))


def find_machine() -> Machine:
    """The current GPU; UserError where there is none that works."""
    gpu = cuda.Gpu()
    name = gpu.cupy.cuda.runtime.getDeviceProperties(gpu.cupy.cuda.Device().id)["name"]
    capability, multiprocessors, clock = gpu.issue()
    name = name.decode() if isinstance(name, bytes) else name
    return Machine(name, f"sm_{capability}", multiprocessors, clock)


def this_commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two minutes instead of nine")
    parser.add_argument("--output", type=Path, default=ROOT / "results", help="a folder")
    parser.add_argument("--commit", default=None, help="to be recorded where git is not at hand")
    options = parser.parse_args(arguments)
    try:
        machine = find_machine()
    except UserError as error:
        print(f"no acceptance without a GPU: {error}", file=sys.stderr)
        return 2
    deadline = time.monotonic() + (110 if options.quick else 520)
    acceptance = Acceptance(machine, TimedGpu, options.quick, deadline, seed=int(time.time()))
    results = accept(acceptance, options.commit or this_commit(), options.output)
    print("\n" + table(results))
    return 0 if results["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
