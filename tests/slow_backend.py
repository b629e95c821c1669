"""A backend without mathematics that takes a millisecond for each pair, on a clock that only it moves."""

import numpy as np

from cntk_bench.costs import measure
from cntk_bench.kernels.spec import Readout, Spec

SPEC = Spec((Readout("ntk", "v", 3), Readout("ntk", "gap", 3)), 1, 4)
IMAGES = np.random.default_rng(0).standard_normal((64, 1, 4, 4)).astype("f4")


class SlowBackend:
    name, source, spec, together = "cpu", "0", SPEC, 1

    def __init__(self, clock):
        self.clock, self.tiles = clock, []

    def prepare(self, images):
        self.clock[0] += 5.0  # not part of a tile's time
        return images

    def tile(self, x, z, symmetric=False):
        first = not self.tiles
        self.tiles.append((len(x), len(z)))
        columns = [i + 1 if symmetric else len(z) for i in range(len(x))]
        pairs = sum(-(-some // self.together) * self.together for some in columns)
        self.clock[0] += 1e-3 * pairs + 100 * first  # the first call also compiles
        return np.ones((len(SPEC.readouts), len(x), len(z)), "f4")

    def start(self, x, z, symmetric=False):
        return lambda: self.tile(x, z, symmetric)

    def tile_bytes(self, side):
        return 1000 * side


def begin(monkeypatch):
    """Return such a backend; `measure` reads its clock."""
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    return SlowBackend(clock)
