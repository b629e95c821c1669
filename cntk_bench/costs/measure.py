"""Measure how many pairs of images a backend computes per second, alone and with tiles stored on disk."""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from statistics import median

import numpy as np

from cntk_bench import backends
from cntk_bench.backends import Backend
from cntk_bench.costs.span import Span
from cntk_bench.errors import UserError
from cntk_bench.grams import compute as grams
from cntk_bench.grams import growth
from cntk_bench.grams.compute import Job
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.tiles import SMALLEST
from cntk_bench.kernels.spec import Spec
from cntk_bench.system.files import writing

IMAGES = 4096  # made-up images, to time a backend on
SCRATCH = 10**9  # bytes of tiles that timing the stage may write, about


@dataclass(frozen=True)
class Rate:
    """How fast a backend computes pairs: each timed call computed `pairs` of them; `times` in seconds."""

    pairs: int
    times: tuple[float, ...]

    @property
    def runs(self) -> int:
        """Number of timed calls."""
        return len(self.times)

    @property
    def seconds(self) -> float:
        """Median seconds of a call."""
        return median(self.times)

    @property
    def pairs_per_second(self) -> float:
        return self.pairs / self.seconds

    def span(self, pairs: int) -> Span:
        """Return the time for `pairs` pairs, from the pace of the fastest call to that of the slowest."""
        return Span.of(self.times) * (pairs / self.pairs)


def rate(backend: Backend, images: np.ndarray, seconds: float = 1.0, runs: int = 3) -> Rate:
    """Time a backend on square tiles of images, after a warm-up that also compiles.

    Parameters
    ----------
    backend : Backend
    images : array (n, C, P, P), float32
        As many as the largest tile to be tried has along a side.
    seconds : float
        The tile is enlarged until it takes about so long, and is no smaller than a stored one, or until no
        images are left.
    runs : int
        Timed repetitions of that tile.
    """
    _times(backend, images[:1])
    side, (elapsed,) = 1, _times(backend, images[:1])
    while (elapsed < seconds / 2 or side < SMALLEST) and side < len(images):
        side = min(2 * side, len(images))
        (elapsed,) = _times(backend, images[:side])
    return Rate(side**2, tuple(_times(backend, images[:side], runs)))


def _times(backend: Backend, images: np.ndarray, runs: int = 1) -> list[float]:
    """Time several runs of a tile of prepared images, in seconds.

    Preparation that a backend defers until it is needed falls into the first run, which a median leaves out.
    """
    x, z = backend.prepare(images), backend.prepare(images)
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        backend.tile(x, z)
        times.append(time.perf_counter() - started)
    return times


def stage(
    backend: Backend,
    images: np.ndarray,
    alone: Rate,
    seconds: float,
    folder: Path,
    look: Callable | None = None,
) -> Rate:
    """Time the `compute` stage: tiles computed, checked, and stored on the disk.

    Parameters
    ----------
    backend : Backend
        Warm.
    images : array (n, C, P, P), float32
        Repeated, if they are too few.
    alone : Rate
        The backend's own rate.
    seconds : float
        Approximate time of the stage; less if it would write more than SCRATCH.
    folder : Path
        Where the tiles go; they are removed afterwards.
    look : callable, optional
        Called with the store and the images before the tiles are removed.

    Raises
    ------
    UserError
        If the folder cannot be written, or has too little space.
    """
    pairs = min(alone.pairs_per_second * seconds, SCRATCH / (4 * len(backend.spec.readouts)))
    n = max(2, isqrt(int(2 * pairs)))
    # Tiles as in a large computation, but at least six of them, unless they would be tiny.
    tile = min(grams.make_plan(backend.spec, 50_000, 0, backend.name).tile, max(-(-n // 3), 24))
    plan = grams.make_plan(backend.spec, n, 0, backend.name, tile)
    images = np.resize(images, (n, *images.shape[1:]))
    attributes = {"readouts": [str(readout) for readout in backend.spec.readouts]}
    with writing(folder):
        scratch = tempfile.TemporaryDirectory(dir=folder, prefix="cntk-bench-")
    with scratch as path:
        free = shutil.disk_usage(folder).free
        if plan.bytes > free:
            raise UserError(
                f"{folder} has {free / 2**30:.1f} GiB free, the timed tiles need "
                f"{plan.bytes / 2**30:.1f} GiB: free space there, or use another --scratch"
            )
        labels = np.zeros(n, int), np.zeros(0, int)
        target = growth.create(Path(path) / "gram.zarr", plan, attributes, ImageFacts(labels))
        started = time.perf_counter()
        grams.compute(Job(target, lambda _: backend, images, images[:0]))
        elapsed = time.perf_counter() - started
        if look is not None:
            look(target, images)
        # A tile narrower than its lanes takes as long as a full one; in a large computation, few are.
        return Rate(plan.computed(backends.together(backend.name)), (elapsed,))


@dataclass(frozen=True)
class Benchmark:
    """A backend's name, its rate alone, that of the `compute` stage, and the hardware's limit if known."""

    backend: str
    alone: Rate
    stage: Rate
    limit: float | None


def benchmark(spec: Spec, backend_name: str, seconds: float, folder: Path) -> Benchmark:
    """Measure a backend for a spec, on random images; the stage's tiles go to `folder`, and are removed."""
    backend = backends.create(backends.choose(backend_name, spec), spec)
    images = made_up(spec)
    alone = rate(backend, images, seconds)
    return Benchmark(backend.name, alone, stage(backend, images, alone, seconds, folder), backend.limit())


def made_up(spec: Spec) -> np.ndarray:
    """Random images of a spec's shape, always the same: (IMAGES, C, P, P), float32."""
    shape = (IMAGES, spec.channels, spec.size, spec.size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
