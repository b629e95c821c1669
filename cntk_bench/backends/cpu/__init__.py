"""The CPU backend: cuts a tile's displacements into tasks and runs them in threads.

Fully connected kernels are in `fully_connected`.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cntk_bench.backends import rings as all_rings
from cntk_bench.backends.cpu import planes as cpu_planes
from cntk_bench.backends.cpu.fully_connected import FullyConnected
from cntk_bench.backends.rings import rings
from cntk_bench.kernels.spec import Readout, Spec
from cntk_bench.system.cores import threads

__all__ = ["Backend", "FullyConnected", "available", "source"]

NUMERICS = 1  # raised when the bits of results change (tests/test_numerics.py)
TILE_WORK = 10**10  # entry-layers of a tile: some seconds of two cores
SLAB = 1024  # entries of a slab, at most (or one plane): its arrays stay in the L1 cache
BLOCK = 4  # column images of a task, so that a row image's deviations are read once for all

Prepared = dict[type, tuple[np.ndarray, ...]]  # dtype: images and deviations, planes flat


@dataclass(frozen=True)
class Pass:
    """Displacements computed alike: in one precision, with the same trainings, for the same pools."""

    wide: type  # dtype of S, n and u
    columns: list[int]  # displacements b
    rows: list[np.ndarray]  # displacements a, for each b
    states: np.ndarray  # trainings whose T is run: HIDDEN, ALL
    reads: np.ndarray  # (r, 4) of layer, readout, quantity, pool; ascending layers


def passes(spec: Spec) -> list[Pass]:
    """The rings of displacements that a spec needs as passes: (0, 0) in float64, the others in float32."""
    first, *others = rings(spec)
    return [_one_pass(spec, first, np.float64), *(_one_pass(spec, ring, np.float32) for ring in others)]


def _one_pass(spec: Spec, ring: all_rings.Ring, wide: type) -> Pass:
    columns = sorted({b for _, b in ring.displacements})
    rows = [np.array([a for a, other in ring.displacements if other == b]) for b in columns]
    reads = sorted(
        (readout.depth - 2, number, _quantity(readout), spec.pools.index(readout.pooling))
        for number, readout in enumerate(spec.readouts)
        if readout.pooling in ring.pools
    )
    trained = {quantity for _, _, quantity, _ in reads} - {cpu_planes.NNGP}
    return Pass(wide, columns, rows, np.array(sorted(trained)), np.array(reads))


def _quantity(readout: Readout) -> int:
    if readout.kernel == "nngp":
        return cpu_planes.NNGP
    return cpu_planes.ALL if readout.train == "all" else cpu_planes.HIDDEN


class Backend:
    """The CPU backend for one spec; see `cntk_bench.backends.Backend`."""

    name = "cpu"
    numerics = NUMERICS

    def __init__(self, spec: Spec):
        self.spec = spec
        self.source = source()
        self.passes = passes(spec)
        self.weights = np.array([pool.weights(spec.size) for pool in spec.pools])

    def prepare(self, images: np.ndarray) -> Prepared:
        """Images (n, C, P, P) -> {dtype: (images, deviations sqrt(v_h))}, planes flat."""
        n, size = len(images), self.spec.size
        deviations = np.empty((n, self.spec.layers, size, size))
        v = box2((images.astype(np.float64) ** 2).sum(1))
        for layer in range(self.spec.layers):
            deviations[:, layer] = np.sqrt(v)
            v = box2(v / 9)
        arrays = [array.reshape(n, -1, size * size) for array in (images, deviations)]
        return {each.wide: tuple(a.astype(each.wide) for a in arrays) for each in self.passes}

    def tile(self, x: Prepared, z: Prepared, symmetric: bool = False) -> np.ndarray:
        """Prepared x (n images) and z (m images) -> float32 (readouts, n, m)."""
        n, m = len(x[np.float64][0]), len(z[np.float64][0])
        total = np.zeros((len(self.spec.readouts), n, m))
        for each in self.passes:
            # One after the other, whatever the tile: the order of a sum decides its bits.
            for part in self._displacements(each, x[each.wide], z[each.wide], symmetric, total.shape):
                total += part
        if symmetric:
            total += np.tril(total, -1).swapaxes(1, 2)
        return total.astype(np.float32)

    def start(self, x: Prepared, z: Prepared, symmetric: bool = False) -> Callable[[], np.ndarray]:
        """The numbers are computed when they are asked for: the CPU has nothing to run beside."""
        return lambda: self.tile(x, z, symmetric)

    def limit(self) -> None:
        """Not known."""
        return None

    def _displacements(
        self,
        each: Pass,
        x: tuple[np.ndarray, ...],
        z: tuple[np.ndarray, ...],
        symmetric: bool,
        shape: tuple[int, ...],
    ) -> np.ndarray:
        """What every column of displacements of a pass adds: (columns, readouts, n, m)."""
        size, m = self.spec.size, shape[2]
        planes = min(max(1, SLAB // size**2), max(map(len, each.rows)))
        x = tuple(np.tile(array, planes) for array in x)
        out = np.zeros((len(each.columns), *shape))

        def run(job: tuple[int, int]) -> None:
            column, first = job
            block = tuple(array[first : first + BLOCK] for array in z)
            cpu_planes.task(size, planes, each.rows[column], each.columns[column], x, block, first,
                            each.states, each.reads, self.weights, symmetric, out[column])  # fmt: skip

        with ThreadPoolExecutor(threads()) as pool:
            jobs = [(column, first) for column in range(len(out)) for first in range(0, m, BLOCK)]
            for _ in pool.map(run, jobs):
                pass  # raises what a job raised
        return out

    def tile_bytes(self, side: int) -> int:
        """Two prepared blocks, what each column of displacements adds, and the threads' arrays."""
        image = self.spec.size**2 * (self.spec.channels + self.spec.layers)
        prepared = sum(np.dtype(each.wide).itemsize for each in self.passes) * image
        parts = max(len(each.columns) for each in self.passes) + 2
        return (
            side * 3 * prepared + parts * len(self.spec.readouts) * side**2 * 8 + threads() * BLOCK * prepared
        )


def source() -> str:
    """Digest (sha256, hex) of the code that decides the bits of the results."""
    files = (Path(__file__), Path(cpu_planes.__file__), Path(all_rings.__file__))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def available() -> bool:
    """A CPU is always there."""
    return True


def box2(a: np.ndarray) -> np.ndarray:
    """Sum of the 3x3 neighbours of each pixel of a (n, P, P), zero outside."""
    size = a.shape[-1]
    padded = np.pad(a, ((0, 0), (1, 1), (1, 1)))
    return sum((padded[:, s : s + size, t : t + size] for s in range(3) for t in range(3)), np.zeros_like(a))
