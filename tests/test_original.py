"""Rung 0, the benchmarks' baseline: proven right by the emulator, without a GPU, like the backend."""

import sys
from pathlib import Path

import numpy as np
import pytest
from backend_suite import EVERYTHING, ordinary, readouts, relative_errors

sys.path[:0] = [str(Path(__file__).with_name("emulator")), str(Path(__file__).parents[1] / "scripts")]

from emulated import FORWARD, REVERSED, SHUFFLED, Emulator, compiler  # noqa: E402
from original import Original  # noqa: E402

from cntk_bench.kernels.spec import Spec  # noqa: E402

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="no C++ compiler: set CXX, or install g++, clang++ or the package ziglang"
)


@pytest.mark.parametrize("train", ["all", "hidden"])
@pytest.mark.parametrize(("channels", "size"), [(1, 5), (3, 8)])
def test_against_the_definition(channels, size, train):
    chosen = readouts(*(("ntk", pool, train) for pool in ("v", "gap")), ("nngp", "v"), ("nngp", "gap"))
    original = Original(Spec(chosen, channels, size), Emulator())
    x, z = ordinary(2, channels, size), ordinary(1, channels, size, seed=1)
    assert relative_errors(original, x, z).max() < 3e-6


def test_no_race():
    x = ordinary(2, 1, 6)  # 36 threads: a whole warp and part of another

    def tile(*order):
        original = Original(Spec(readouts(("ntk", "gap"), depths=(4,)), 1, 6), Emulator(*order))
        return original.tile(original.prepare(x), original.prepare(x))

    expected = tile(FORWARD)
    assert (tile(REVERSED) == expected).all() and (tile(SHUFFLED, 3) == expected).all()


def test_what_the_original_cannot_is_refused():
    with pytest.raises(ValueError, match="one training"):
        Original(Spec(EVERYTHING, 1, 6), Emulator())


def test_a_pixel_without_variance_gives_zero():
    x = np.zeros((1, 1, 5, 5), np.float32)
    original = Original(Spec(readouts(("ntk", "gap")), 1, 5), Emulator())
    assert (original.tile(original.prepare(x), original.prepare(ordinary(1, 1, 5))) == 0).all()
