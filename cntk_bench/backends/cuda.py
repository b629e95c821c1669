"""The recursion on an NVIDIA GPU: compiles the sources in kernels_cuda with CuPy, and launches them.

`deviations` computes what the other kernels read of an image; `diagonal` the plane of displacement
(0, 0), in float64 where rounding shows, which is all of V; `displacements` the other planes, in
float32; `readouts` adds up planes in a fixed order. kernels_cuda/README.md says how they work. An
entry's bits depend on its two images alone, not on the batch it is computed in.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.spec import Spec

# A module of kernels: its files, and the constants it is compiled with.
PLANE = "P CHANNELS HIDDEN ALL WINDOWS"
MODULES = {
    "deviations": (("deviations.cu",), "P CHANNELS"),
    "diagonal": (("plane.cuh", "diagonal.cu"), f"{PLANE} TILE"),
    "displacements": (("plane.cuh", "displacements.cu"), f"{PLANE} WARPS BLOCKS"),
    "readouts": (("readouts.cu",), ""),
}

OLDEST = 75  # compute capability x 10
LANES = 32  # threads of a warp, and the most columns an image may have
WARPS = 4  # planes a block of `displacements`
TILE = 2  # a block of `diagonal` takes TILE x TILE pairs
THREADS = 256  # a block of the other kernels
SIDE = 512  # images of x, and of z, whose stages are held at once, at most
LAUNCH = 1 << 24  # planes of one launch of `displacements`, at most: half a second on an H200


def sources() -> dict[str, str]:
    """The files of kernels_cuda, the folder beside the package: name -> text."""
    folder = Path(__file__).parents[2] / "kernels_cuda"
    texts = {path.name: path.read_text() for path in sorted(folder.glob("*.cu*"))}
    if not texts:
        raise UserError(f"the CUDA sources are missing from {folder}: install cntk-bench again")
    return texts


def source() -> str:
    """Digest (sha256, hex) of the code that decides the bits of the results."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for module in MODULES:
        digest.update(module_text(module).encode())
    return digest.hexdigest()


def module_text(module: str) -> str:
    """One module's whole source."""
    return joined(*MODULES[module][0])


def joined(*names: str) -> str:
    """Files of kernels_cuda, one after another. Not #included: CuPy's cache would miss an edited header."""
    files = sources()
    return "\n".join(f'#line 1 "{name}"\n{files[name]}' for name in names)


@dataclass(frozen=True)
class Zone:
    """Planes that one kernel computes alike: which states it runs, and what it sums.

    Parameters
    ----------
    spec : Spec
    pools : tuple of str
        Pools with a share in these planes.
    displacements : tuple of int
        a P + b, for each plane (a, b).
    """

    spec: Spec
    pools: tuple[str, ...]
    displacements: tuple[int, ...]

    @cached_property
    def trainings(self) -> tuple[str, ...]:
        """Trainings of which T is run, in the order of the kernels' states."""
        needed = {r.train for r in self.spec.readouts if r.kernel == "ntk" and r.pool in self.pools}
        return tuple(t for t in ("hidden", "all") if t in needed)

    @cached_property
    def windows(self) -> tuple[str, ...]:
        """The pools that weight entries. V and GAP are plain sums."""
        return tuple(pool for pool in self.pools if pool.startswith("lap"))

    @property
    def width(self) -> int:
        """Numbers a plane gives: depths x pools x quantities, as in plane.cuh."""
        return len(self.spec.depths) * (1 + len(self.windows)) * (1 + len(self.trainings))

    def column(self, readout) -> int:
        """The readout's place among those numbers; -1 if it has no share in these planes."""
        if readout.pool not in self.pools:
            return -1
        depth = self.spec.depths.index(readout.depth)
        pool = 1 + self.windows.index(readout.pool) if readout.pool in self.windows else 0
        quantity = 0 if readout.kernel == "nngp" else 1 + self.trainings.index(readout.train)
        return (depth * (1 + len(self.windows)) + pool) * (1 + len(self.trainings)) + quantity

    def weights(self) -> np.ndarray:
        """(windows, P, P) float32: m(a, b) (2c + 1)^2 = #{o: |o - a| <= c and |o - b| <= c}, exact."""
        size = self.spec.size
        pixel = np.arange(size)
        near = [abs(pixel[:, None] - pixel) <= int(window[4:]) for window in self.windows]
        return np.array([a.astype(np.float32) @ a for a in near], np.float32).reshape(-1, size, size)

    def options(self, module: str) -> tuple[str, ...]:
        """Compiler options of a module for these planes."""
        values = {
            "P": self.spec.size,
            "CHANNELS": self.spec.channels,
            "HIDDEN": int("hidden" in self.trainings),
            "ALL": int("all" in self.trainings),
            "WINDOWS": len(self.windows),
            "WARPS": WARPS,
            # Blocks a multiprocessor: as many as leave each thread the registers it needs.
            "BLOCKS": 2 if len(self.trainings) == 2 else 3 if self.windows else 4,
            "TILE": TILE,
        }
        defines = (f"-D{name}={values[name]}" for name in MODULES[module][1].split())
        return ("--use_fast_math", *defines)


def zones(spec: Spec) -> list[Zone]:
    """The planes that some readout needs: (0, 0), which all of them need, then ring after ring.

    The pools' displacements are squares, one inside the other; a ring is what one has beyond the
    one before.
    """
    reaches = {pool: set(spec.displacements(pool)) for pool in spec.pools}
    out, done = [Zone(spec, spec.pools, (0,))], {0}
    for reach in sorted(reaches.values(), key=len):
        ring = {a * spec.size + b for a in reach for b in reach} - done
        if ring:
            pools = tuple(pool for pool in spec.pools if reaches[pool] >= reach)
            out.append(Zone(spec, pools, tuple(sorted(ring))))
            done |= ring
    return out


def _pairs(n, m, half):
    """All (i, j) with i < n and j < m, or if `half` those with i >= j too: (pairs, 2)."""
    return np.argwhere(np.tri(n, m, dtype=bool) if half else np.ones((n, m), bool))


def _one_ahead(items):
    """The same items, each given once the next has been made."""
    made = []
    for item in items:
        made.append(item)
        if len(made) == 2:
            yield made.pop(0)
    yield from made


def scale(readout, size: int) -> float:
    """What the readout's sum over planes is multiplied by."""
    return 1 / size**4 if readout.window is None else 1 / (2 * readout.window + 1) ** 4


class Gpu:
    """The few things asked of the current CUDA device, by way of CuPy."""

    def __init__(self):
        try:
            import cupy
        except ImportError as error:
            raise UserError(
                "the cuda backend needs CuPy: install the extra cntk-bench[cuda13] (cntk-bench[cuda12] for a "
                f"CUDA 12 driver) with pip install -e '.[cuda13]', or use --backend cpu ({error})"
            ) from None
        if not available():
            raise UserError(
                "the cuda backend found no NVIDIA GPU with a working driver: see nvidia-smi, "
                "or use --backend cpu"
            )
        device = cupy.cuda.Device()
        if int(device.compute_capability) < OLDEST:
            raise UserError(
                f"the cuda backend needs a GPU of compute capability {OLDEST / 10} or newer, this one has "
                f"{int(device.compute_capability) / 10}: use --backend cpu"
            )
        try:
            cupy.cuda.nvrtc.getVersion()
        except Exception as error:  # whatever the loader raises
            raise UserError(
                "the cuda backend cannot load NVRTC, which compiles its kernels: install the extra "
                f"cntk-bench[cuda13] (cntk-bench[cuda12] for a CUDA 12 driver), which brings it ({error})"
            ) from None
        self.cupy = cupy
        self.copies = cupy.cuda.Stream(non_blocking=True)

    def upload(self, array):
        return self.cupy.asarray(array)

    def empty(self, shape, dtype):
        return self.cupy.empty(shape, dtype)

    def download(self, array):
        return self.cupy.asnumpy(array)

    def download_later(self, array):
        """A function that gives the array as what was launched until now leaves it, on the host.

        It copies beside the kernels launched since, and does not wait for them.
        """
        ready = self.cupy.cuda.Event(disable_timing=True)
        ready.record()

        def download():
            self.copies.wait_event(ready)
            return array.get(stream=self.copies)

        return download

    def free_bytes(self) -> int:
        return self.cupy.cuda.Device().mem_info[0] + self.cupy.get_default_memory_pool().free_bytes()

    def module(self, text, options):
        """The compiled text: a function of (kernel's name, blocks, threads, arguments, shared bytes)."""
        compiled = self.cupy.RawModule(code=text, options=options)

        def launch(name, blocks, threads, arguments, shared_bytes=0):
            kernel = compiled.get_function(name)
            if shared_bytes:
                kernel.max_dynamic_shared_size_bytes = shared_bytes
            kernel((blocks,), (threads,), arguments, shared_mem=shared_bytes)

        return launch


def available() -> bool:
    """Whether CuPy is installed and sees a GPU."""
    try:
        import cupy

        return cupy.cuda.is_available()
    except Exception:  # a broken driver raises whatever it likes; the answer is no
        return False


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

    def __init__(self, spec: Spec, gpu=None):
        if spec.size > LANES:
            raise UserError(
                f"the cuda backend takes images of up to {LANES} x {LANES} pixels, "
                f"not {spec.size} x {spec.size}: use --backend cpu"
            )
        self.spec = spec
        self.source = source()
        self.gpu = gpu or Gpu()
        self.stage_count = spec.channels + spec.layers
        self.reads = self._upload([depth - 1 for depth in spec.depths], np.int32)
        self.scales = self._upload([scale(r, spec.size) for r in spec.readouts], np.float64)
        self.zones = zones(spec)
        self.deviations = self._module("deviations", self.zones[0])
        self.readouts = self._module("readouts", self.zones[0])
        self.planes = [
            self._module("displacements" if k else "diagonal", z) for k, z in enumerate(self.zones)
        ]
        self.displacements = [self._upload(zone.displacements, np.int32) for zone in self.zones]
        self.weights = [self._upload(zone.weights(), np.float32) for zone in self.zones]
        self.columns = [
            self._upload([zone.column(readout) for readout in spec.readouts], np.int32) for zone in self.zones
        ]

        self._lists = lru_cache(maxsize=4)(self._lists_of)  # most blocks have one shape

    def prepare(self, images):
        """Images (n, C, P, P), float32 -> the same on the device."""
        return self._upload(images, np.float32)

    def tile(self, x, z, symmetric=False):
        """Prepared x (n images) and z (m images) -> float32 (readouts, n, m)."""
        out = np.empty((len(self.spec.readouts), len(x), len(z)), np.float32)
        try:
            # While the GPU computes a block, the one before it is copied and put in its place.
            for rows, columns, block in _one_ahead(self._blocks(x, z, symmetric)):
                block = block()
                if symmetric and rows == columns:
                    block = np.tril(block) + np.tril(block, -1).swapaxes(1, 2)
                elif symmetric:
                    out[:, columns, rows] = block.swapaxes(1, 2)
                out[:, rows, columns] = block
        except MemoryError as error:  # CuPy's, too
            raise UserError(f"the GPU's memory is full: free some, or use --backend cpu ({error})") from None
        return out

    def tile_bytes(self, side):
        """The tile, one block of it, and that block's list of pairs."""
        readouts, block = len(self.spec.readouts), min(side, SIDE)
        return side**2 * readouts * 4 + block**2 * (3 * readouts * 4 + 24)

    def _blocks(self, x, z, symmetric):
        """Launches one block after another: its rows, its columns, a function that gives its numbers."""
        n, m, side = len(x), len(z), self._side()
        for i in range(0, n, side):
            rows = self._stages(x[i : i + side])
            for j in range(0, min(m, i + 1) if symmetric else m, side):
                half = symmetric and i == j
                columns = rows if half else self._stages(z[j : j + side])
                numbers = self.gpu.download_later(self._block(rows, columns, half))
                yield slice(i, i + side), slice(j, j + side), numbers

    def _stages(self, images):
        """Images (n, C, P, P) -> channels and deviations (n, stages, P, P), in float64 and float32."""
        shape = (len(images), self.stage_count, self.spec.size, self.spec.size)
        doubles, floats = self.gpu.empty(shape, np.float64), self.gpu.empty(shape, np.float32)
        self.deviations(
            "deviations", len(images), THREADS, (images, np.int32(self.stage_count), doubles, floats)
        )
        return doubles, floats

    def _block(self, x, z, half):
        """Kernels of all pairs of two sets of stages, or if `half` of those with i >= j, on the device:
        (readouts, n, m)."""
        shape = n, m = len(x[0]), len(z[0])
        totals = self.gpu.empty((len(self.spec.readouts), *shape), np.float64)
        out = self.gpu.empty(totals.shape, np.float32)
        pairs, tiles = self._lists(n, m, half)
        batch = self._batch()
        for first in range(0, len(pairs), batch):
            some = pairs[first : first + batch]
            if first == 0:
                sums = self._diagonal(x[0], z[0], tiles)
            self._read("read_diagonal", 0, some, sums, totals, out)
            for zone in range(1, len(self.zones)):
                displaced = self._displacements(zone, x[1], z[1], some)
                planes = np.int32(len(self.displacements[zone]))
                self._read("read_displacements", zone, some, displaced, totals, out, planes)
        return out

    def _lists_of(self, n, m, half):
        """A block's pairs and, for `diagonal`, its tiles' first images: on the device, (count, 2) each."""
        tiles = TILE * _pairs(-(-n // TILE), -(-m // TILE), half)
        return self._upload(_pairs(n, m, half), np.int32), self._upload(tiles, np.int32)

    def _diagonal(self, x, z, tiles):
        """Sums over plane (0, 0) of the pairs of all tiles: (n, m, width)."""
        sums = self.gpu.empty((len(x), len(z), self.zones[0].width), np.float64)
        images = (x, z, tiles, np.int32(len(x)), np.int32(len(z)), np.int32(self.stage_count))
        buffers = 2 * 2 * TILE * self.spec.size**2 * 8  # bytes: two, each of 2 TILE planes
        self.planes[0](
            "diagonal",
            len(tiles),
            LANES * TILE**2,
            (*images, self.weights[0], self.reads, np.int32(len(self.reads)), sums),
            buffers,
        )
        return sums

    def _displacements(self, zone, x, z, pairs):
        """Sums over each plane of a zone: (pairs, planes, width)."""
        displacements = self.displacements[zone]
        sums = self.gpu.empty((len(pairs), len(displacements), self.zones[zone].width), np.float32)
        images = (x, z, pairs, displacements, np.int32(len(displacements)), np.int32(self.stage_count))
        self.planes[zone](
            "displacements",
            len(pairs) * -(-len(displacements) // WARPS),
            LANES * WARPS,
            (*images, self.weights[zone], self.reads, np.int32(len(self.reads)), sums),
        )
        return sums

    def _read(self, kernel, zone, pairs, sums, totals, out, *more):
        """Adds a zone's sums to the totals of some pairs."""
        readouts, n, m = totals.shape
        block = (pairs, np.int32(len(pairs)), np.int32(n), np.int32(m), sums, np.int32(sums.shape[-1]))
        results = (self.columns[zone], self.scales, np.int32(readouts), totals, out)
        self.readouts(kernel, -(-len(pairs) * readouts // THREADS), THREADS, (*block, *results, *more))

    def _side(self) -> int:
        """Images of x, and of z, at once: their stages take at most a quarter of the free memory."""
        one = self.stage_count * self.spec.size**2 * (8 + 4)
        return int(np.clip(self.gpu.free_bytes() // 4 // (2 * one), 1, SIDE))

    def _batch(self) -> int:
        """Pairs of one launch: their sums take at most a quarter of the free memory."""
        one = max(len(zone.displacements) * zone.width * 4 for zone in self.zones)
        planes = max(len(zone.displacements) for zone in self.zones)
        return int(np.clip(self.gpu.free_bytes() // 4 // one, 1, min(SIDE**2, LAUNCH // planes)))

    def _module(self, name, zone):
        return self.gpu.module(module_text(name), zone.options(name))

    def _upload(self, values, dtype):
        return self.gpu.upload(np.ascontiguousarray(values, dtype))
