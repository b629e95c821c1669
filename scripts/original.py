"""Rung 0 of the ladder: the original algorithm on a GPU, which benchmarks compare with.

One pair after another, layer by layer through global memory (kernels_cuda/original.cu), as in the
script published with Arora et al., "On Exact Computation with an Infinitely Wide Neural Net". It is
no backend that a user may choose: it is slow, float32 throughout, and knows neither LAP nor several
trainings in one pass.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cntk_bench.backends.cuda import Gpu  # noqa: E402
from cntk_bench.backends.cuda import sources as cuda_sources  # noqa: E402
from cntk_bench.kernels.convolutional import box2  # noqa: E402
from cntk_bench.kernels.spec import Spec  # noqa: E402


def text() -> str:
    """The kernels' source."""
    return cuda_sources.joined("original.cu")


def options(spec: Spec) -> tuple[str, ...]:
    """Compiler options: exact division, square root and arccos, as the original had."""
    return (f"-DP={spec.size}", f"-DCHANNELS={spec.channels}")


class Original:
    """The original algorithm for one spec; `prepare` and `tile` as in `cntk_bench.backends.Backend`.

    Parameters
    ----------
    spec : Spec
        Pools "v" and "gap"; one training for all NTK readouts.
    gpu : Gpu, optional
        The device; tests put a CPU emulator in its place.
    """

    def __init__(self, spec: Spec, gpu=None):
        trainings = {r.train for r in spec.readouts if r.kernel == "ntk"} or {"all"}
        if len(trainings) > 1 or not set(map(str, spec.pools)) <= {"v", "gap"}:
            raise ValueError(f"the original computes V and GAP for one training, not {spec.readouts}")
        self.spec, self.hidden = spec, np.int32("hidden" in trainings)
        self.gpu = gpu or Gpu()
        self.kernels = self.gpu.module(text(), options(spec))

    def prepare(self, images):
        """Images (n, C, P, P), float32 -> channels and deviations (n, stages, P, P) on the device."""
        stages = []
        for image in np.asarray(images, np.float64):
            v = box2((image**2).sum(0))
            deviations = [np.sqrt(v)]
            for _ in range(self.spec.layers - 1):
                v = box2(v / 9)
                deviations.append(np.sqrt(v))
            stages.append([*image, *deviations])
        return self.gpu.upload(np.array(stages, np.float32))

    def tile(self, x, z, symmetric=False):
        """Prepared x (n images) and z (m images) -> float32 (readouts, n, m), `symmetric` or not."""
        n, m, size, depths = len(x), len(z), self.spec.size, self.spec.depths
        planes = (2 * size - 1) ** 2
        S, T = (self.gpu.empty((size,) * 4, np.float32) for _ in range(2))
        sums = self.gpu.empty((n, m, len(depths), 2, planes), np.float32)
        for i, j in np.ndindex(n, m):
            self._pair(x[i], z[j], S, T, sums[i, j])
        sums = self.gpu.download_later(sums)().astype(np.float64)
        sums = {"v": sums[..., planes // 2], "gap": sums.sum(-1) / size**4}
        values = [
            sums[r.pool][:, :, depths.index(r.depth), int(r.kernel == "ntk")] for r in self.spec.readouts
        ]
        return np.array(values, np.float32)

    def _pair(self, x, z, S, T, sums):
        channels, depths = self.spec.channels, self.spec.depths
        self._run("products", x, z, S)
        self._run("box", S)
        self._run("start", S, T, np.int32(1 - self.hidden))
        for depth in range(2, depths[-1] + 1):
            if depth > 2:
                self._run("box", S)
                self._run("box", T)
            stage = channels + depth - 2
            self._run("activate", x[stage], z[stage], S, T)
            if depth in depths:
                self._run("sums", S, T, self.hidden, sums[depths.index(depth)])

    def _run(self, kernel, *arguments):
        size = self.spec.size
        self.kernels(kernel, (2 * size - 1) ** 2, size**2, arguments)
