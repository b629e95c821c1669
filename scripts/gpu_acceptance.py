"""Accept a GPU machine: check every kernel there, time it, and write down what was measured.

    python scripts/gpu_acceptance.py            # within nine minutes, offline
    python scripts/gpu_acceptance.py --quick    # two: without the tests, the large solve and comparisons

Sections stand alone: one that fails does not lose the others, one that cannot run says why. Writes
gpu-acceptance.json and .md, or gpu-acceptance-quick, to --output. Exit codes: 0 all checks passed, 1 some
failed, 2 no GPU or nowhere to write, 3 none failed but some could not run or finish.

Needs cupy, numpy and scipy; the stage zarr, the tests all packages, the comparison jax and
neural-tangents.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from math import isqrt
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import acceptance_report  # noqa: E402
import acceptance_suite  # noqa: E402
import count_sass  # noqa: E402
import precision  # noqa: E402
from original import Original  # noqa: E402

from cntk_bench.backends import cuda  # noqa: E402
from cntk_bench.backends.cuda import limit as cuda_limit  # noqa: E402
from cntk_bench.backends.cuda import zones as cuda_zones  # noqa: E402
from cntk_bench.costs import measure  # noqa: E402
from cntk_bench.errors import UserError  # noqa: E402
from cntk_bench.kernels import convolutional as reference  # noqa: E402
from cntk_bench.kernels.spec import Readout, Spec  # noqa: E402
from cntk_bench.records import provenance, record  # noqa: E402
from cntk_bench.regression import placement, ridge  # noqa: E402
from cntk_bench.system import memory  # noqa: E402

DEPTHS = (3, 4, 6, 11, 21)
# Why instructions cannot be counted: no nvdisasm, another compiler, another loop.
UNCOUNTED = (OSError, ImportError, ValueError, KeyError, RuntimeError, subprocess.SubprocessError)
V = tuple(Readout("ntk", "v", depth) for depth in DEPTHS)
GAP = tuple(Readout(kernel, "gap", depth) for kernel in ("ntk", "nngp") for depth in DEPTHS)


class Skipped(Exception):
    """Raised by a section that cannot run here, or not to its end; the message says why."""


@dataclass(frozen=True)
class Machine:
    """The facts about a GPU from which the share of its issue limit is computed."""

    gpu: str
    arch: str  # "sm_90"
    multiprocessors: int
    clock: float  # Hz, the highest

    def issued(self, pairs_per_second: float, entry_layers: int, instructions: float) -> float:
        """Share used of the instructions that the schedulers could issue, for `entry_layers` per pair."""
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
    """One acceptance run, with what every section needs.

    gpu is called to make the object through which `cuda.Backend` launches; tests pass an emulator.
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
        beside = {name: provenance.installed(name) for name in ("jax", "neural-tangents")}
        packages = provenance.versions() | beside
        fields = "driver_version,clocks.sm,clocks.max.sm,power.limit,temperature.gpu,memory.total"
        # The memory first of all: a virtual machine's may start small and grow.
        free = {"host_free_gib": memory.available() / memory.GIB}
        with suppress(UserError):
            free["gpu_free_gib"] = memory.available("cuda") / memory.GIB
        return {**free, "packages": packages, "nvidia_smi": nvidia_smi(fields)}

    def clocks(self):
        """The clock, power and temperature while GAP runs: what share of the highest clock is held."""
        backend, samples, done = cuda.Backend(self.spec(GAP), self.gpu()), [], threading.Event()
        fields = "clocks.sm,power.draw,temperature.gpu"

        def watch():
            while not done.wait(0.5):
                samples.append(nvidia_smi(fields))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            rate = measure.rate(backend, self.images, 0.5 if self.quick else 2.0)
        finally:
            done.set()
            watcher.join()
        return {"passed": None, "samples": samples, "pairs_per_second": rate.pairs_per_second}

    def cuda_tests(self):
        return self.tests(["tests/test_cuda.py"], min(self.left, 120))

    def whole_suite(self):
        """All other tests."""
        if missing := acceptance_suite.missing_packages():
            raise Skipped(f"not installed: {', '.join(missing)}")
        files = [file.relative_to(ROOT) for file in sorted(ROOT.glob("tests/test_*.py"))]
        return self.tests([file for file in files if file.name != "test_cuda.py"], self.left)

    def tests(self, files, seconds):
        if not provenance.installed("pytest"):
            raise Skipped("not installed: pytest")
        return acceptance_suite.run(files, seconds, at_once=max(1, (os.cpu_count() or 2) // 2))

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
        """Rung 0. Its float32 angle is off where images agree, so self-pairs are not checked."""
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
        """`displacements` with one column per lane: twice the warps, more instructions."""
        return self.variant(COLUMNS=1)

    def large_blocks(self):
        """`displacements` in blocks of 8 warps: half the copies, one block a multiprocessor."""
        return self.variant(WARPS=8)

    def variant(self, **constants):
        """GAP with other constants than those shipped: is the choice right on this GPU?"""
        with patch.multiple(cuda_zones, **constants):
            return {**self.shipped(GAP, committed=False), **constants}

    def shipped(self, readouts, committed=True):
        backend = cuda.Backend(self.spec(readouts), self.gpu())
        zone = (backend.rings or [backend.diagonal])[0].zone
        counted = self.instructions(
            lambda: count_sass.count(zone.kernel, zone, self.machine.arch, backend.gpu.shared_bytes()),
            zone if committed else None,
        )
        return self.rung(backend, readouts, counted, 1e-6, zone.kernel)

    def instructions(self, count, zone=None) -> float | None:
        """Instructions per entry-layer, counted here.

        If counting is impossible, or would take too long in a quick run, those committed for sm_90, or None.
        """
        try:
            if not self.quick:
                count_sass.disassembler()
                return count().total
        except UNCOUNTED as error:
            print(f"instructions are not counted: {type(error).__name__}: {error}")
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
            work = backend.spec.work
            found["share"] = self.machine.issued(alone, work, instructions)
        return found

    def kernel_seconds(self, backend, rate, kernel) -> float:
        x = backend.prepare(self.images[: isqrt(rate.pairs)])
        return median(backend.gpu.seconds(lambda: backend.tile(x, x))[kernel] for _ in range(rate.runs))

    def neural_tangents(self):
        """GAP at the largest depth, by neural-tangents on the same GPU; its error is relative to ours."""
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave the others their memory
        try:
            import jax
            from make_fixtures import hidden_kernel, network

            where = jax.default_backend()
        except Exception as error:  # versions that do not fit raise whatever they like
            raise Skipped(f"{type(error).__name__}: {error}") from None
        if where != "gpu":
            raise Skipped(f"jax runs on the {where}, not on the GPU")
        jax.config.update("jax_default_matmul_precision", "highest")  # or convolutions may round to 10 bits
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
            "passed": True if error <= 1e-4 else None,  # otherwise it may be theirs that rounds
            "device": str(jax.devices()[0]),
            "packages": {name: provenance.installed(name) for name in ("jax", "neural-tangents")},
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
            """Check that two tiles of the store have the bits that the backend gives for a corner of them."""
            tiles = store.plan.tiles()
            for tile in tiles[-1], next((tile for tile in tiles if not tile.diagonal), tiles[0]):
                x, z = (images[part][:8] for part in (tile.rows(store.plan), tile.cols(store.plan)))
                corner = backend.tile(backend.prepare(x), backend.prepare(z), symmetric=tile.diagonal)
                same.append(np.array_equal(store.read(tile)[:, : len(x), : len(z)], corner))

        if shutil.disk_usage(tempfile.gettempdir()).free < 2 * measure.SCRATCH:
            raise Skipped(f"{tempfile.gettempdir()} has too little space: set TMPDIR")
        try:
            found = measure.stage(backend, self.images, alone, seconds, Path(tempfile.gettempdir()), look)
        except ImportError as error:
            raise Skipped(f"the store: {error}") from None
        return {
            "passed": same == [True, True],
            "pairs": found.pairs,
            "seconds_computing": found.seconds,
            "pairs_per_second": found.pairs_per_second,
            "of_the_backend_alone": found.pairs_per_second / alone.pairs_per_second,
        }

    def solve_small(self):
        return self.solve(10_000)

    def solve_large(self):
        return self.solve(50_000, matrices=len(DEPTHS))

    def solve(self, n, matrices=1):
        """Solve a ridge path in float64 on some Gram matrices, as for a column's depths; check the memory.

        They are all one random positive definite matrix, solved again and again while there is time.
        """
        import cupy

        try:
            place = placement.choose(n, classes=10, device="cuda", dtype="float64")
        except UserError as error:  # it does not fit
            raise Skipped(str(error)) from None
        with peak_memory(cupy) as used:
            gram, labels = random_gram(n, cupy), np.random.default_rng(n).integers(0, 10, n)
            paths, seconds = [], []
            while not paths or (len(paths) < matrices and self.left > max(seconds)):
                started = time.perf_counter()
                paths.append(ridge.solve(gram, labels, classes=10, ridge=(0.0, 1e-3), device="cuda").path)
                seconds.append(time.perf_counter() - started)
        cupy.get_default_memory_pool().free_all_blocks()
        residual = float(np.max([fit.residual for path in paths for fit in path]))  # NaN, if any is
        right = residual < 1e-8 and used["bytes"] <= place.gpu
        return {
            "passed": right if not right or len(paths) == matrices else None,
            "n": n,
            "solved": f"{len(paths)} of {matrices} matrices, {len(paths[0])} ridges each",
            "solve_seconds": sum(seconds),
            "residual": residual,
            "predicted_gpu_gib": place.gpu / 2**30,
            "used_gpu_gib": used["bytes"] / 2**30,
        }


# In this order, each run only if so many seconds are left.
SECTIONS = {
    "environment": 5,
    "cuda_tests": 30,
    "precision": 30,
    "displacements": 30,
    "diagonal": 20,
    "original": 20,
    "one_column": 30,  # the choices that only a GPU can judge come early
    "large_blocks": 30,
    "clocks": 15,
    "stage_gap": 25,
    "stage_v": 25,
    "solve_small": 10,
    "solve_large": 40,
    "neural_tangents": 90,
    "whole_suite": 30,
}
QUICK = (
    *("environment", "precision", "displacements", "diagonal", "original"),
    *("stage_gap", "stage_v", "solve_small"),
)
OPTIONAL = ("neural_tangents", "one_column", "large_blocks", "clocks")  # without them a run is complete


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
    """The largest GPU memory in use beyond that at the start, sampled every `every` seconds."""
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


def run_section(acceptance, name: str) -> dict:
    """One section's findings, its time, and its `passed`: True, False, or None where it has no verdict."""
    started = time.perf_counter()
    needed = SECTIONS.get(name, 5) / (3 if acceptance.quick else 1)
    try:
        if acceptance.left < needed:
            raise Skipped(f"no time left: it may need {needed:.0f} s")
        found = {"passed": True, **getattr(acceptance, name)()}
    except Skipped as reason:
        found = {"passed": None, "note": str(reason)}
    except Exception as error:
        traceback.print_exc()
        found = {"passed": False, "note": f"{type(error).__name__}: {error}"}
    return {**found, "seconds": round(time.perf_counter() - started, 2)}


def accept(acceptance, commit: str | None, folder: Path, sections=tuple(SECTIONS)) -> dict:
    """Run the sections in turn; the results so far are written before and after each."""
    started = time.perf_counter()
    results = {
        "machine": asdict(acceptance.machine),
        "commit": commit,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "verdict": "",
        "pairs_per_second": {},  # of sections whose check passed
        "quick": acceptance.quick,
        "seed": acceptance.seed,
        "planned": list(sections),
        "optional": list(OPTIONAL),
        "sections": {},
    }

    def keep():
        results["seconds"] = round(time.perf_counter() - started, 1)
        results["verdict"] = acceptance_report.verdict(results)
        acceptance_report.write(results, folder)

    keep()
    for name in sections:
        print(f"{name} ...", flush=True)
        found = results["sections"][name] = run_section(acceptance, name)
        if found["passed"] and "pairs_per_second" in found:
            results["pairs_per_second"][name] = found["pairs_per_second"]
        keep()
        print(f"{name}: {json.dumps(record.plain(found))}", flush=True)
    return results


def nvidia_smi(fields: str) -> dict[str, str]:
    """The driver's tool on the first GPU: field -> value with its unit."""
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return {"nvidia-smi": f"does not answer: {error}"}
    return dict(zip(fields.split(","), answer.partition("\n")[0].split(", "), strict=False))


def find_machine() -> Machine:
    """The current GPU; UserError where there is none that works."""
    gpu = cuda.Gpu()
    name = gpu.cupy.cuda.runtime.getDeviceProperties(gpu.cupy.cuda.Device().id)["name"]
    capability, multiprocessors, clock = gpu.issue()
    name = name.decode() if isinstance(name, bytes) else name
    return Machine(name, f"sm_{capability}", multiprocessors, clock)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two minutes instead of nine")
    parser.add_argument("--output", type=Path, default=ROOT / "results", help="a folder")
    options = parser.parse_args(arguments)
    try:
        machine = find_machine()
        deadline = time.monotonic() + (110 if options.quick else 480)
        acceptance = Acceptance(machine, TimedGpu, options.quick, deadline, seed=int(time.time()))
        sections = QUICK if options.quick else tuple(SECTIONS)
        results = accept(acceptance, provenance.commit(), options.output, sections)
    except UserError as error:
        print(f"no acceptance: {error}", file=sys.stderr)
        return 2
    print("\n" + acceptance_report.table(results))
    return {"passed": 0, "failed": 1, "incomplete": 3}[results["verdict"].partition(":")[0]]


if __name__ == "__main__":
    sys.exit(main())
