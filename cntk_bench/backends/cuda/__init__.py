"""The recursion on an NVIDIA GPU: compiles the sources in kernels_cuda with CuPy, and launches them.

`deviations` computes what the other kernels read of an image; `diagonal` computes the plane of displacement
(0, 0), which is all that V needs, in more than float32 where rounding matters; `displacements` the other
planes, in float32; `readouts` adds up planes in a fixed order. kernels_cuda/README.md says how they
work. An entry's bits depend only on its two images, not on the batch it is computed in.

Fully connected kernels are in `fully_connected`.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from cntk_bench.backends import rings
from cntk_bench.backends.cuda import limit as cuda_limit
from cntk_bench.backends.cuda import sources as cuda_sources
from cntk_bench.backends.cuda import zones as cuda_zones
from cntk_bench.backends.cuda.device import Array, Gpu, available, devices, downloaded, launched, machine
from cntk_bench.backends.cuda.fully_connected import FullyConnected
from cntk_bench.backends.cuda.zones import LANES
from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import CONVOLUTIONAL, Readout, Spec

__all__ = ["Backend", "FullyConnected", "Gpu", "available", "devices", "machine", "refusal", "source"]

NUMERICS = 1  # raised when the bits of results change (tests/test_numerics.py)
TILE_WORK = 10**12  # entry-layers of a tile: about a second
THREADS = 256  # per block, for kernels that do not run one warp per plane
SIDE = 512  # images of x, and of z, whose stages are on the device at once, at most
LAUNCH = 1 << 24  # planes of one batch of pairs, at most
NEAR = 16  # side of a square of `diagonal`'s tiles: 64 images' stages, 14 MB at 32 x 32 and depth 21

Stages = dict[cuda_zones.Layout, Array]  # of the images of a block, for each layout


def source() -> str:
    """Digest (sha256, hex) of the code that decides the bits of the results."""
    digest = hashlib.sha256()
    for file in (__file__, cuda_sources.__file__, cuda_zones.__file__, rings.__file__):
        digest.update(Path(file).read_bytes())
    for module in cuda_sources.MODULES:
        digest.update(cuda_sources.text(module).encode())
    return digest.hexdigest()


def scale(readout: Readout, size: int) -> float:
    """Factor of the readout's sum over planes."""
    return 1 / readout.pooling.divisor(size) ** 2


def refusal(spec: Spec) -> str | None:
    """Why the GPU cannot compute a spec (`backends.refusal`): a plane's columns lie in a warp's lanes."""
    if spec.part(CONVOLUTIONAL) is None or spec.size <= LANES:
        return None
    return f"takes images of up to {LANES} x {LANES} pixels, not {spec.size} x {spec.size}"


class Backend:
    """The CUDA backend for one spec; see `cntk_bench.backends.Backend`.

    Parameters
    ----------
    spec : Spec
        Images of at most 32 x 32 pixels.
    gpu : Gpu, optional
        The device; tests put a CPU emulator in its place.

    Raises
    ------
    UserError
        If CuPy or a GPU is missing, or images are too large.
    """

    name = "cuda"

    def __init__(self, spec: Spec, gpu: Gpu | None = None) -> None:
        if reason := refusal(spec):
            raise UserError(f"the cuda backend {reason}: use --backend cpu")
        self.spec = spec
        self.source = source()
        self.gpu = gpu or Gpu()
        self.stages = spec.channels + spec.layers
        self.reads = self._upload([depth - 1 for depth in spec.depths], np.int32)
        self.scales = self._upload([scale(r, spec.size) for r in spec.readouts], np.float64)
        self.diagonal, *self.rings = (Planes(zone, self.gpu) for zone in cuda_zones.zones(spec))
        self.readouts = self.gpu.module(cuda_sources.text("readouts"), cuda_sources.options("readouts", {}))
        self.deviations = {
            planes.layout: self.gpu.module(
                cuda_sources.text("deviations"),
                cuda_sources.options("deviations", planes.constants),
            )
            for planes in (self.diagonal, *self.rings)
        }
        self._lists = lru_cache(maxsize=4)(self._lists_of)  # most blocks have one shape

    def prepare(self, images: np.ndarray) -> Array:
        """Images (n, C, P, P), float32 -> the same on the device."""
        return self._upload(images, np.float32)

    def tile(self, x: Array, z: Array, symmetric: bool = False) -> np.ndarray:
        """Prepared x (n images) and z (m images) -> float32 (readouts, n, m)."""
        return self.start(x, z, symmetric)()

    def start(self, x: Array, z: Array, symmetric: bool = False) -> Callable[[], np.ndarray]:
        """Launch a tile; the returned function waits for it, but not for what is launched after it."""
        rows_stages: Stages = {}  # of the block before

        def block(rows: slice, columns: slice, half: bool) -> Array:
            nonlocal rows_stages
            if columns.start == 0:
                rows_stages = self._stages(x[rows])
            return self._block(
                rows_stages, rows_stages if half and z is x else self._stages(z[columns]), half
            )

        blocks = launched(self.gpu, (len(x), len(z)), self._side(), symmetric, block)

        def finish() -> np.ndarray:
            out = np.empty((len(self.spec.readouts), len(x), len(z)), np.float32)
            for rows, columns, numbers in downloaded(blocks):
                if symmetric and rows == columns:
                    numbers = np.tril(numbers) + np.tril(numbers, -1).swapaxes(1, 2)
                elif symmetric:
                    out[:, columns, rows] = numbers.swapaxes(1, 2)
                out[:, rows, columns] = numbers
            return out

        return finish

    def limit(self) -> float:
        """Pairs per second that the GPU's instruction issue would allow."""
        return cuda_limit.pairs_per_second(cuda_zones.zones(self.spec), *self.gpu.issue())

    def tile_bytes(self, side: int) -> int:
        """Peak bytes on the host: the tile, one block of it, and that block's list of pairs."""
        readouts, block = len(self.spec.readouts), min(side, SIDE)
        return side**2 * readouts * 4 + block**2 * (3 * readouts * 4 + 24)

    def _stages(self, images: Array) -> Stages:
        """Images (n, C, P, P) -> for each layout their stages, (n, stages, floats), on the device."""
        out = {}
        for layout, launch in self.deviations.items():
            shape = (len(images), self.stages, layout.floats(self.spec.size))
            out[layout] = self.gpu.empty(shape, np.float32)
            launch("deviations", len(images), THREADS, (images, np.int32(self.stages), out[layout]))
        return out

    def _block(self, x: Stages, z: Stages, half: bool) -> Array:
        """Kernels (readouts, n, m), on the device, of all pairs of two sets of stages; if `half`, of those
        with i >= j."""
        n, m = (len(stages[self.diagonal.layout]) for stages in (x, z))
        totals = self.gpu.empty((len(self.spec.readouts), n, m), np.float64)
        out = self.gpu.empty(totals.shape, np.float32)
        pairs, tiles = self._lists(n, m, half)
        sums = self.diagonal.of_tiles(x, z, tiles, self.stages, self.reads)
        batch = self._batch()
        for first in range(0, len(pairs), batch):
            some = pairs[first : first + batch]
            self._read("read_diagonal", self.diagonal, some, sums, totals, out)
            for ring in self.rings:
                displaced = ring.of_pairs(x, z, some, self.stages, self.reads)
                count = np.int32(len(ring.zone.displacements))
                self._read("read_displacements", ring, some, displaced, totals, out, count)
        return out

    def _lists_of(self, n: int, m: int, half: bool) -> tuple[Array, Array]:
        """A block's pairs and, for `diagonal`, its tiles' first images: on the device, (count, 2) each."""
        side = self.diagonal.constants["TILE"]
        tiles = _pairs(-(-n // side), -(-m // side), half)
        # In squares of NEAR x NEAR tiles, so that the GPU's cache holds the images of the tiles in progress.
        tiles = tiles[np.lexsort((*tiles.T, *(tiles // NEAR).T))]
        return self._upload(_pairs(n, m, half), np.int32), self._upload(side * tiles, np.int32)

    def _read(
        self, kernel: str, planes: "Planes", pairs: Array, sums: Array, totals: Array, out: Array, *more: Any
    ) -> None:
        """Adds a zone's sums to the totals of some pairs."""
        readouts, n, m = totals.shape
        block = (pairs, np.int32(len(pairs)), np.int32(n), np.int32(m), sums, np.int32(sums.shape[-1]))
        results = (planes.columns, self.scales, np.int32(readouts), totals, out)
        self.readouts(kernel, -(-len(pairs) * readouts // THREADS), THREADS, (*block, *results, *more))

    def _side(self) -> int:
        """Images of x, and of z, at once: their stages take at most a quarter of the free memory."""
        one = 4 * self.stages * sum(layout.floats(self.spec.size) for layout in self.deviations)
        return int(np.clip(self.gpu.free_bytes() // 4 // (2 * one), 1, SIDE))

    def _batch(self) -> int:
        """Pairs at once: their sums over planes take at most a quarter of the free memory."""
        planes = max((len(ring.zone.displacements) for ring in self.rings), default=1)
        one = max((4 * len(r.zone.displacements) * r.zone.width for r in self.rings), default=1)
        return int(np.clip(self.gpu.free_bytes() // 4 // one, 1, min(SIDE**2, LAUNCH // planes)))

    def _upload(self, values: ArrayLike, dtype: DTypeLike) -> Array:
        return self.gpu.upload(np.ascontiguousarray(values, dtype))


class Planes:
    """A zone's compiled kernel, with its arrays of constants on the device."""

    def __init__(self, zone: cuda_zones.Zone, gpu: Gpu) -> None:
        self.zone, self.gpu, self.layout = zone, gpu, zone.layout
        self.weights = gpu.upload(np.ascontiguousarray(zone.weights()))
        self.columns = gpu.upload(np.array([zone.columns(r) for r in zone.spec.readouts], np.int32))
        self.constants = constants = zone.constants(gpu.shared_bytes())
        options = cuda_sources.options(zone.kernel, constants)
        self.launch = gpu.module(cuda_sources.text(zone.kernel), options)
        if zone.diagonal:
            self.threads = LANES * constants["TILE"] ** 2
            self.shared = constants["BUFFERS"] * 2 * constants["TILE"] * zone.stage_bytes
        else:
            self.threads = LANES * constants["WARPS"]
            self.shared = 2 * 2 * zone.stage_bytes
            self.a_block = constants["WARPS"] * constants["COLUMNS"]  # planes
            self.rows = [
                (np.int32(a), self._open(a), gpu.upload(b), np.int32(first)) for a, first, b in zone.rows()
            ]

    def of_tiles(self, x: Stages, z: Stages, tiles: Array, stages: int, reads: Array) -> Array:
        """Sums over plane (0, 0) of the pairs of all tiles: (n, m, width)."""
        x, z = x[self.layout], z[self.layout]
        sums = self.gpu.empty((len(x), len(z), self.zone.width), np.float32)
        images = (x, z, tiles, np.int32(len(x)), np.int32(len(z)), np.int32(stages))
        arguments = (*images, self.weights, reads, np.int32(len(reads)), sums)
        self.launch("diagonal", len(tiles), self.threads, arguments, self.shared)
        return sums

    def of_pairs(self, x: Stages, z: Stages, pairs: Array, stages: int, reads: Array) -> Array:
        """Sums over each plane of the zone: (pairs, planes, width)."""
        x, z, planes = x[self.layout], z[self.layout], len(self.zone.displacements)
        sums = self.gpu.empty((len(pairs), planes, self.zone.width), np.float32)
        for a, rows, b, first in self.rows:
            blocks = len(pairs) * -(-len(b) // self.a_block)
            which = (pairs, a, rows, b, np.int32(len(b)), first, np.int32(planes), np.int32(stages))
            arguments = (x, z, *which, self.weights, reads, np.int32(len(reads)), sums)
            self.launch("displacements", blocks, self.threads, arguments, self.shared)
        return sums

    def _open(self, a: int) -> np.ndarray:
        """The kernel's `Rows`, a struct passed by value: 1 if row i - 1 is a neighbour of row i, else 0."""
        size = self.zone.spec.size
        rows = np.ones(size, np.float32)
        rows[[0, (size - a) % size]] = 0
        return rows.view([("open", np.float32, size)]).reshape(())


def _pairs(n: int, m: int, half: bool) -> np.ndarray:
    """All (i, j) with i < n and j < m, or if `half` those with i >= j too: (pairs, 2)."""
    return np.argwhere(np.tri(n, m, dtype=bool) if half else np.ones((n, m), bool))
