"""Fully connected kernels on an NVIDIA GPU: launches kernels_cuda/fully_connected.cu."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.backends import fully_connected
from cntk_bench.backends.cuda import sources as cuda_sources
from cntk_bench.backends.cuda.device import Gpu, downloaded, full_memory_explained, launched
from cntk_bench.kernels.spec import Spec

SIDE = 16  # pairs along a side of a block of threads
BLOCK = 1024  # vectors of x, and of z, whose pairs one launch computes
THREADS = 256  # per block of `squares`
STATE_STEP = 4  # STATES is a multiple of it, so that few versions are compiled


@dataclass(frozen=True)
class Vectors:
    """values (n, features) float32, squares x.x and scales 2^e, (n,) float64: on the device."""

    values: Any
    squares: Any
    scales: Any

    def __getitem__(self, some: slice) -> "Vectors":
        return Vectors(self.values[some], self.squares[some], self.scales[some])

    def __len__(self) -> int:
        return len(self.values)


class FullyConnected(fully_connected.FullyConnected):
    """Fully connected kernels of one spec on a GPU.

    Parameters
    ----------
    spec : Spec
        Of plain fully connected readouts; images of any size.
    gpu : Gpu, optional
        The device; tests put a CPU emulator in its place.

    Raises
    ------
    UserError
        If CuPy or a GPU is missing.
    """

    name = "cuda"

    def __init__(self, spec: Spec, gpu: Any = None):
        super().__init__(spec)
        self.gpu = gpu or Gpu()
        states = -(-self.program.most_states // STATE_STEP) * STATE_STEP
        self.launch = self.gpu.module(
            cuda_sources.text("fully_connected"),
            cuda_sources.options("fully_connected", {"SIDE": SIDE, "STATES": states}),
        )
        used = self.program
        arrays = used.squares, used.groups, np.append(used.states, 0).astype(np.int32), used.reads
        self.arrays = [self.gpu.upload(np.ascontiguousarray(array)) for array in arrays]

    @property
    def source(self) -> str:
        """Digest (sha256, hex) of the code that decides the bits of the results."""
        text = cuda_sources.text("fully_connected").encode()
        files = (Path(__file__), Path(fully_connected.__file__))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files) + text).hexdigest()

    def prepare(self, images: np.ndarray) -> Vectors:
        """Images (n, C, P, P) -> vectors on the device."""
        values, scales = fully_connected.vectors(images)
        with full_memory_explained():
            on_device = self.gpu.upload(values)
            squares = self.gpu.empty((len(values),), np.float64)
            count, features = np.int32(len(values)), np.int32(self.spec.features)
            self.launch("squares", -(-len(values) // THREADS), THREADS, (on_device, count, features, squares))
            return Vectors(on_device, squares, self.gpu.upload(scales))

    def _numbers(self, x: Vectors, z: Vectors, symmetric: bool) -> Callable[[], np.ndarray]:
        def block(rows: slice, columns: slice, half: bool) -> Any:
            return self._block(x[rows], z[columns], half)

        blocks = launched(self.gpu, (len(x), len(z)), BLOCK, symmetric, block)

        def finish() -> np.ndarray:
            out = np.zeros((len(self.spec.readouts), len(x), len(z)))
            for rows, columns, numbers in downloaded(blocks):
                out[:, rows, columns] = numbers
            return out

        return finish

    def _block(self, x: Vectors, z: Vectors, half: bool) -> Any:
        """All pairs of two sets, or if `half` at least those with i >= j: (readouts, n, m) on the device."""
        n, m = len(x), len(z)
        out = self.gpu.empty((len(self.spec.readouts), n, m), np.float64)
        tiles = np.indices((-(-n // SIDE), -(-m // SIDE))).reshape(2, -1).T
        if half:
            tiles = tiles[tiles[:, 0] >= tiles[:, 1]]
        tiles = self.gpu.upload(np.ascontiguousarray(SIDE * tiles, np.int32))
        squares, groups, states, reads = self.arrays
        vectors = (
            *(x.values, x.squares, x.scales, np.int32(n)),
            *(z.values, z.squares, z.scales, np.int32(m)),
        )
        program = squares, groups, np.int32(len(squares)), states, reads
        arguments = (*vectors, np.int32(self.spec.features), tiles, *program, out)
        self.launch("fully_connected", len(tiles), SIDE**2, arguments)
        return out

    def tile_bytes(self, side: int) -> int:
        """As on the CPU, plus a block that is being copied from the device."""
        return super().tile_bytes(side) + 8 * len(self.spec.readouts) * min(side, BLOCK) ** 2
