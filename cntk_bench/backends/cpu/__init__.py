"""The CPU backend: splits a tile into jobs of some images x and LANES images z, and runs them in threads.

Fully connected kernels are in `fully_connected`.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, log2
from pathlib import Path
from weakref import finalize

import numpy as np

from cntk_bench.backends import rings as all_rings
from cntk_bench.backends import scaling
from cntk_bench.backends.cpu import activation, lanes
from cntk_bench.backends.cpu import layers as cpu_layers
from cntk_bench.backends.cpu import planes as cpu_planes
from cntk_bench.backends.cpu import slabs as cpu_slabs
from cntk_bench.backends.cpu.compilation import machine
from cntk_bench.backends.cpu.fully_connected import FullyConnected
from cntk_bench.backends.rings import rings
from cntk_bench.kernels.spec import Readout, Spec
from cntk_bench.system.cores import threads

__all__ = ["Backend", "FullyConnected", "available", "machine", "source"]

NUMERICS = 2  # raised when the bits of results change (tests/test_numerics.py)
TILE_WORK = 2 * 10**10  # entry-layers of a tile: some seconds of work on two cores
TOGETHER = lanes.LANES
LEAST = 64  # rectangles per job, at least, so that laying out its images z costs little
JOBS = 16  # per thread, so that none is left alone with the last job for long
AT_ONCE = 32  # images prepared at a time, so that their planes stay in the cache


@dataclass(frozen=True)
class Prepared:
    """Images scaled by 2^-exponents, and their deviations, as flat planes, in each dtype a pass needs."""

    exponents: np.ndarray  # (n,)
    arrays: dict[type, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Pass:
    """Displacements computed in the same way: in one precision, for the same trainings and pools."""

    wide: type  # dtype of S, n and n - S
    places: list[tuple[int, int]]  # displacements (a, b), -P < a, b < P
    states: np.ndarray  # trainings for which T is computed: HIDDEN, ALL
    reads: np.ndarray  # (r, 4) of layer, readout, quantity, pool; ascending layers
    slabs: tuple  # `slabs.slabs` of the places

    @property
    def exact(self) -> cpu_layers.Flag:
        """The flag of `layers.layer`."""
        return cpu_layers.ON if self.wide is np.float64 else cpu_layers.OFF


def passes(spec: Spec) -> list[Pass]:
    """Passes for the rings of displacements that a spec needs: (0, 0) in float64, the others in float32."""
    first, *others = rings(spec)
    return [_one_pass(spec, first, np.float64), *(_one_pass(spec, ring, np.float32) for ring in others)]


def _one_pass(spec: Spec, ring: all_rings.Ring, wide: type) -> Pass:
    reads = sorted(
        (readout.depth - 2, number, _quantity(readout), spec.pools.index(readout.pooling))
        for number, readout in enumerate(spec.readouts)
        if readout.pooling in ring.pools
    )
    trained = {quantity for _, _, quantity, _ in reads} - {cpu_layers.NNGP}
    places, states = _places(spec, ring), np.array(sorted(trained), np.int64)
    return Pass(wide, places, states, np.array(reads), cpu_slabs.slabs(spec.size, places))


def _places(spec: Spec, ring: all_rings.Ring) -> list[tuple[int, int]]:
    """Displacements (a, b) behind a ring's cyclic ones, where one of its pools has nonzero weights."""
    size = spec.size
    weights = sum(pool.counts(size) != 0 for pool in ring.pools)
    used = {d for d in range(1 - size, size) if np.diagonal(weights, d).any()}
    return [(a, b) for a in sorted(used) for b in sorted(used) if (a % size, b % size) in ring.displacements]


def _quantity(readout: Readout) -> int:
    if readout.kernel == "nngp":
        return cpu_layers.NNGP
    return cpu_layers.ALL if readout.train == "all" else cpu_layers.HIDDEN


class Backend:
    """The CPU backend for one spec; see `cntk_bench.backends.Backend`."""

    name = "cpu"

    def __init__(self, spec: Spec):
        self.spec = spec
        self.source = source()
        self.passes = passes(spec)
        size = spec.size
        counts = np.array([pool.counts(size) for pool in spec.pools], np.float64)
        # n is below 9 C times the brightest pixels' product, and its square has to be a float32, too.
        self.brightest = scaling.BRIGHTEST - max(0, ceil((log2(9 * spec.channels) - 2) / 2))
        self.scales = scales(spec, self.brightest)
        self.numbers = counts, self.scales, activation.CONSTANTS
        self.divisors = np.array([readout.pooling.divisor(size) ** 2 for readout in spec.readouts])
        # The same threads for all tiles: they come to the next tile when the previous one has no job left.
        self.pool = lru_cache(maxsize=1)(ThreadPoolExecutor)

    def prepare(self, images: np.ndarray) -> Prepared:
        """Images (n, C, P, P) -> scaled images and their deviations sqrt(v_h)."""
        n, size = len(images), self.spec.size**2
        exponents = np.frexp(abs(images).max((1, 2, 3)))[1] - self.brightest
        arrays: dict[type, tuple[np.ndarray, np.ndarray]] = {
            each.wide: (
                np.empty((n, self.spec.channels, size), each.wide),
                np.empty((n, self.spec.layers, size), each.wide),
            )
            for each in self.passes
        }
        for first in range(0, n, AT_ONCE):
            some = slice(first, first + AT_ONCE)
            scaled = np.ldexp(images[some].astype(np.float64), -exponents[some, None, None, None])
            v = box2((scaled**2).sum(1))
            for pixels, _ in arrays.values():
                pixels[some] = scaled.reshape(len(v), -1, size)
            for layer, scale in enumerate(self.scales):
                v *= scale
                deviation = np.sqrt(v).reshape(-1, size)
                for _, deviations in arrays.values():
                    deviations[some, layer] = deviation
                v = box2(v / 9)
        return Prepared(exponents, arrays)

    def tile(self, x: Prepared, z: Prepared, symmetric: bool = False) -> np.ndarray:
        """Prepared x (n images) and z (m images) -> float32 (readouts, n, m)."""
        return self.start(x, z, symmetric)()

    def start(self, x: Prepared, z: Prepared, symmetric: bool = False) -> Callable[[], np.ndarray]:
        """Start a tile in threads, which go on while the next images are prepared and the next one starts."""
        n, m = len(x.exponents), len(z.exponents)
        total = np.zeros((len(self.spec.readouts), n, m))
        groups = range(0, m, lanes.LANES)
        least = -(-LEAST // sum(len(each.places) for each in self.passes))
        rows = max(least, n * len(groups) // (JOBS * threads()))

        def run(begin: int, first: int) -> None:
            some = slice(max(begin, first) if symmetric else begin, begin + rows)
            block = slice(first, first + lanes.LANES)
            out = np.zeros_like(total[:, some, block])
            for each in self.passes:  # in turn: the order of a sum decides its bits
                self._add(each, x, some, z, block, out)
            total[:, some, block] = out

        jobs = [(begin, first) for first in groups for begin in range(0, n, rows)]
        with_pairs = [job for job in jobs if not symmetric or job[0] + rows > job[1]]
        pool = self.pool(threads())
        begun = [pool.submit(run, *job) for job in with_pairs]

        def finish() -> np.ndarray:
            for job in begun:
                job.result()  # raises what the job raised
            tile = np.ldexp(total / self.divisors[:, None, None], x.exponents[:, None] + z.exponents)
            if symmetric:
                tile = np.tril(tile) + np.tril(tile, -1).swapaxes(1, 2)
            return tile.astype(np.float32)

        finalize(finish, _cancel, begun)  # cancels the jobs when nobody can ask for the tile any more
        return finish

    def _add(self, each: Pass, x: Prepared, some: slice, z: Prepared, block: slice, out: np.ndarray) -> None:
        """Add a pass's share, for some images x and a block of z, to out (readouts, n, up to LANES)."""
        xs = tuple(array[some] for array in x.arrays[each.wide])
        zs = tuple(array[block] for array in z.arrays[each.wide])
        spec, counts, trained = self.spec, self.numbers[0], len(each.states)
        width = cpu_slabs.width_of(each.slabs[0])
        room = cpu_slabs.room_of(
            spec.size, width, spec.channels, spec.layers, each.wide, trained, len(each.reads), len(counts)
        )
        cpu_planes.recursion(
            spec.size,
            *each.slabs,
            each.exact,
            xs,
            zs,
            each.states,
            each.reads,
            *self.numbers,
            *room,
            out,
        )

    def limit(self) -> None:
        """None: no bound is known."""
        return None

    def tile_bytes(self, side: int) -> int:
        """Peak bytes of a tile and the next one, three prepared blocks, the sums, and the threads' arrays."""
        size, spec = self.spec.size, self.spec
        widths = {np.dtype(each.wide).itemsize for each in self.passes}
        image = sum(widths) * size**2 * (spec.channels + spec.layers)
        plane = (size + 1) * max(cpu_slabs.width_of(each.slabs[0]) for each in self.passes)
        of_z, of_planes = max(widths) * size**2 * (spec.channels + spec.layers), (max(widths) + 8) * plane
        own = lanes.LANES * (of_z + of_planes)
        return 3 * side * image + 4 * len(spec.readouts) * side**2 * 8 + threads() * own


def scales(spec: Spec, brightest: int) -> np.ndarray:
    """Powers of two, one per layer, that multiply its S, T and n so that n^2 stays in float32's range.

    Zero padding shrinks them in every layer, in images of 2 x 2 pixels to 4 / 9. The largest n, that of
    images bright everywhere, is kept above 2^-32 of its value in the first layer. For CIFAR-10 all are 1.
    """
    v = box2(np.full((1, spec.size, spec.size), spec.channels * 4.0**brightest))
    top, found = v.max(), np.ones(spec.layers)
    for layer in range(1, spec.layers):
        v = box2(v / 9)
        if v.max() < top * 2.0**-32:
            found[layer] = 2.0 ** floor(log2(top / v.max()))
            v *= found[layer]
    return found


def _cancel(jobs: list[Future]) -> None:
    for job in jobs:
        job.cancel()


def source() -> str:
    """Digest (sha256, hex) of the code that decides the bits of the results."""
    modules = (cpu_planes, cpu_layers, cpu_slabs, activation, lanes, all_rings, scaling)
    files = (Path(__file__), *(Path(str(module.__file__)) for module in modules))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def available() -> bool:
    """A CPU is always there."""
    return True


def box2(a: np.ndarray) -> np.ndarray:
    """Sum of the 3x3 neighbours of each pixel of a (n, P, P), zero outside."""
    size = a.shape[-1]
    padded = np.pad(a, ((0, 0), (1, 1), (1, 1)))
    return sum((padded[:, s : s + size, t : t + size] for s in range(3) for t in range(3)), np.zeros_like(a))
