"""Zones: groups of planes that a CUDA kernel computes in the same way, their constants and their sums."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cntk_bench.backends.rings import rings
from cntk_bench.kernels.pool import Pool
from cntk_bench.kernels.spec import Readout, Spec

LANES = 32  # threads of a warp, and the most columns an image may have
WARPS = 4  # warps per block of `displacements`
COLUMNS = 2  # columns of a plane per lane of `displacements`: two halve the number of shuffles
REGISTERS = 1 << 16  # of a multiprocessor
# Registers per thread, at most, that `displacements` needs beside its planes and sums to avoid spills: a
# fixed number, and a number per column. Found by compiling all sizes.
SPARE, SPARE_A_COLUMN = 44, 24


@dataclass(frozen=True)
class Layout:
    """How images lie in device memory for a kernel, stage after stage (kernels_cuda/layout.cuh).

    columns : columns of a plane per lane.  parts : floats per number (2: float-float).
    """

    columns: int
    parts: int

    def floats(self, size: int) -> int:
        """Floats of one stage of an image of size x size pixels."""
        stride = 4 * ((size + 3) // 4 | 1)
        return self.parts * self.columns * -(-size // self.columns) * stride


@dataclass(frozen=True)
class Zone:
    """Planes that one kernel computes in the same way, with the same states and the same sums.

    Parameters
    ----------
    spec : Spec
    pools : tuple of Pool
        Those with nonzero weights in these planes.
    displacements : tuple of int
        a P + b, for each plane (a, b), ascending; (0, 0) has a zone of its own.
    """

    spec: Spec
    pools: tuple[Pool, ...]
    displacements: tuple[int, ...]

    @property
    def diagonal(self) -> bool:
        """Whether this is plane (0, 0), which needs more precision than float32."""
        return self.displacements == (0,)

    @property
    def kernel(self) -> str:
        """The kernel that computes these planes."""
        return "diagonal" if self.diagonal else "displacements"

    @cached_property
    def trainings(self) -> tuple[str, ...]:
        """Trainings for which T is computed, in the order of the kernels' states."""
        needed = {r.train for r in self.spec.readouts if r.kernel == "ntk" and r.pooling in self.pools}
        return tuple(t for t in ("hidden", "all") if t in needed)

    @cached_property
    def windows(self) -> tuple[Pool, ...]:
        """The pools that weight entries, such as those of LAP. V and GAP are plain sums."""
        return tuple(pool for pool in self.pools if not pool.plain(self.spec.size))

    @property
    def width(self) -> int:
        """Number of sums that a plane yields: depths x pools x quantities, as in plane.cuh."""
        return len(self.spec.depths) * (1 + len(self.windows)) * (1 + len(self.trainings))

    def columns(self, readout: Readout) -> tuple[int, int]:
        """Indices of the sum that the readout adds and of the one that it subtracts; -1 for none."""
        if readout.pooling not in self.pools:
            return -1, -1
        depth = self.spec.depths.index(readout.depth)
        pool = 1 + self.windows.index(readout.pooling) if readout.pooling in self.windows else 0
        K = (depth * (1 + len(self.windows)) + pool) * (1 + len(self.trainings))
        if readout.kernel == "nngp":
            return K, -1
        G = K + 1 + self.trainings.index(readout.train)
        return G, K if readout.train == "hidden" else -1

    def weights(self) -> np.ndarray:
        """The pools' axis weights times their divisors, exact: (windows, P, P) float32.

        At [w, a, i] is the weight of pixels i and (i + a) % P of an axis, the same for rows and columns.
        """
        size = self.spec.size
        pixel = np.arange(size)
        shifted = (pixel[:, None] + pixel) % size  # [a, i]
        counts = [window.counts(size)[pixel, shifted] for window in self.windows]
        return np.array(counts, np.float32).reshape(-1, size, size)

    def rows(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """For each a among the planes: a, the number of its first plane, its values of b (count,) int32."""
        planes = np.array(self.displacements)
        for a in np.unique(planes // self.spec.size):
            (numbers,) = np.nonzero(planes // self.spec.size == a)
            yield int(a), int(numbers[0]), (planes[numbers] % self.spec.size).astype(np.int32)

    @property
    def layout(self) -> Layout:
        if self.diagonal:
            return Layout(columns=1, parts=2)
        # Three states of two columns would not fit the registers.
        return Layout(columns=1 if len(self.trainings) == 2 else COLUMNS, parts=1)

    @property
    def stage_bytes(self) -> int:
        """Bytes of one stage of an image."""
        return 4 * self.layout.floats(self.spec.size)

    def tiling(self, shared_bytes: int) -> tuple[int, int]:
        """TILE and BUFFERS of `diagonal`, chosen so that many warps fit.

        A block takes TILE x TILE pairs and copies their 2 TILE images into BUFFERS buffers in turn.
        """
        images = shared_bytes // self.stage_bytes  # that a multiprocessor can hold
        if images >= 3 * 2 * 4:  # three blocks of 4 warps
            return 2, 2
        # If not even two blocks fit with one buffer, one of 9 warps may; but its warps have fewer registers.
        few_registers = len(self.trainings) < 2 and not self.windows
        return (3 if images < 2 * 4 and few_registers else 2), 1

    def _minimum(self, shared_bytes: int) -> int:
        """Blocks of `diagonal` that a multiprocessor must hold at once.

        Without a bound, some compilers use 233 registers, which leaves room for two blocks; with one state
        and no windows 168 suffice, and three fit. With more states registers would spill.
        """
        images = shared_bytes // self.stage_bytes
        plain = len(self.trainings) < 2 and not self.windows
        return 3 if plain and images >= 3 * 2 * 4 else 1

    def constants(self, shared_bytes: int) -> dict[str, int]:
        """Constants that these planes' kernels are compiled with; `shared_bytes` is of a multiprocessor."""
        tile, buffers = self.tiling(shared_bytes)
        layout, size, quantities = self.layout, self.spec.size, 1 + len(self.trainings)
        numbers = layout.columns * quantities * (size + 1 + len(self.windows))
        needed = numbers + SPARE + SPARE_A_COLUMN * layout.columns  # registers per thread
        return {
            "P": size,
            "CHANNELS": self.spec.channels,
            "COLUMNS": layout.columns,
            "PARTS": layout.parts,
            "HIDDEN": int("hidden" in self.trainings),
            "ALL": int("all" in self.trainings),
            "WINDOWS": len(self.windows),
            "WARPS": WARPS,
            "BLOCKS": max(REGISTERS // (LANES * WARPS * needed), 8 // WARPS, 1),  # 2 warps a scheduler
            "TILE": tile,
            "BUFFERS": buffers,
            "MINIMUM": self._minimum(shared_bytes),
        }


def zones(spec: Spec) -> list[Zone]:
    """The planes that some readout needs: (0, 0), which all of them need, then ring after ring."""
    size = spec.size
    return [
        Zone(spec, ring.pools, tuple(a * size + b for a, b in ring.displacements)) for ring in rings(spec)
    ]
