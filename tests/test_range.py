"""At the ends of float32's range an entry is right or refused, but never 0, infinite or imprecise."""

import sys
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from backend_suite import ordinary

from cntk_bench import UserError, backends, gram
from cntk_bench.backends import cpu, scaling
from cntk_bench.grams import compute, growth
from cntk_bench.grams import verify as verification
from cntk_bench.grams.compute import Job
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.tiles import Plan, Tile
from cntk_bench.kernels import convolutional as reference
from cntk_bench.kernels.spec import Readout, Spec

LEAST, MOST = np.finfo(np.float32).tiny, np.finfo(np.float32).max
SCALES = [
    1e-45,
    1e-43,
    1e-38,
    1e-30,
    1e-22,
    1e-20,
    1e-19,
    3e-19,
    1e-18,
    1e-15,
    1e-3,
    1e9,
    1e12,
    1e18,
    1e22,
    1e30,
]


def kinds(depth):
    return (
        Readout("ntk", "v", depth),
        Readout("ntk", "gap", depth),
        Readout("ntk", "lap:1", depth),
        Readout("nngp", "gap", depth),
    )


def worst(K, x, z, readouts):
    """The largest error of a Gram matrix, relative to its tolerance."""
    plan, tile = Plan(len(z), len(x), max(len(x), len(z)), len(readouts)), Tile("test", 0, 0)
    return max(
        entry.error / entry.tolerance
        for i, j in np.ndindex(len(x), len(z))
        for entry in verification._compare(plan, tile, i, j, readouts, K[:, i, j], x[i], z[j])
    )


def right_or_refused(x, readouts, z=None):
    """Whether `gram` computes.

    Computed numbers must be normal floats within `verify`'s tolerance. If they are refused, some entry must
    be out of float32's range (up to the tolerance), or the depth too large.
    """
    try:
        K = gram(x, z, readouts=readouts, backend="cpu")
    except UserError as error:
        assert len(str(error)) <= 300 and "\n" not in str(error)
        if "too deep" not in str(error):
            exact = abs(reference.gram(x, z, readouts=readouts))
            assert ((exact > 0) & (exact < LEAST * 1.001) | (exact > MOST * 0.999)).any()
        return False
    assert np.isfinite(K).all() and (abs(K[K != 0]) >= LEAST).all()
    assert worst(K, x, x if z is None else z, readouts) <= 1
    return True


@pytest.mark.parametrize("dtype", ["f4", "f8", "longdouble"])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_every_scale(size, dtype):
    x = ordinary(3, 2, size).astype("f8") + 0.5
    done = []
    for scale in SCALES:
        with np.errstate(under="ignore"):
            scaled = (x * scale).astype(dtype)
        if right_or_refused(scaled, kinds(3)):
            done.append(scale)
    assert {1e-15, 1e-3, 1e9, 1e12} <= set(done) < set(SCALES)


@pytest.mark.parametrize("size", range(1, 9))
def test_every_depth(size):
    x = np.random.default_rng(size).random((2, 1, size, size)).astype("f4")
    depths = [3, 21, 35, 40, 60, 90, 150, 200, 250, 300, 350, 400, 600, 800, 900, 1100, 1200]
    done = [depth for depth in depths if right_or_refused(x, kinds(depth))]
    assert done == depths[: len(done)] and {3, 21, 35} <= set(done)
    assert done[-1] < 1200


def test_depths_that_are_refused_for_any_image():
    """The remedy names the last possible depth, which is right for images that are bright enough."""
    for size, bright in ((1, 1e9), (2, 1e9), (4, 1e7)):
        with pytest.raises(UserError, match="too deep for images of .* use depths up to") as error:
            gram(ordinary(2, 1, size), readouts=kinds(10**6), backend="cpu")
        last = int(str(error.value).split()[-1])
        x = ordinary(2, 1, size) + 1
        assert right_or_refused(x * np.float32(bright), kinds(last))
        with pytest.raises(UserError, match=f"{last}$"):
            gram(x, readouts=kinds(last + 1), backend="cpu")
    with pytest.raises(UserError, match="depth 1e.22 is too deep"):
        backends.create("cpu", Spec((Readout("ntk", "v", 10**22),), 3, 8))


def test_what_is_left_of_an_image_at_a_depth():
    """The closed form behind `dimmest`, against the definition's diagonal, whose sum is V of the NNGP."""
    x = np.zeros((1, 5, 5))
    x[0, 0, 0] = 1  # a corner pixel loses the most
    for depth in (2, 3, 9, 40):
        (left,) = reference.pair(x, x, [Readout("nngp", "v", depth)])
        layers = depth - 1
        u = 25 * 2.0**-32 / scaling._dimmest(5, layers)
        assert u**2 == pytest.approx(left, rel=1e-12)


def test_dim_and_bright_images_together():
    x = ordinary(6, 1, 4) + 0.5
    x *= np.array([1, 1e15, 1e-15, 1e-17, 1e17, 1e-3], "f4").reshape(-1, 1, 1, 1)
    assert right_or_refused(x, kinds(3))
    assert right_or_refused(x[:3], kinds(21), z=x[3:])
    bright, dark = ordinary(2, 1, 4).astype("f8") * 1e30 + 1e30, ordinary(2, 1, 4) * 1e-45
    assert right_or_refused(bright, kinds(3), z=dark)  # each alone is out of range


def test_one_pixel_that_is_not_zero():
    for value, computed in ((1e-16, True), (1e-20, False), (1e-45, False), (1e17, True)):
        x = np.zeros((2, 1, 6, 6), "f4")
        x[0, 0, 2, 3], x[1, 0, 3, 3] = value, -value
        assert right_or_refused(x, kinds(3)) == computed
        assert right_or_refused(x[:1], kinds(3), z=np.ones((1, 1, 6, 6), "f4")) == (value > 1e-30)


def test_zero_images_stay_zero():
    x = np.zeros((3, 1, 4, 4), "f4")
    x[1] = 1e-16
    assert right_or_refused(x, kinds(3))
    assert not gram(x[:1], readouts=kinds(800 // 4), backend="cpu").any()


def test_pixels_that_float32_rounds_to_zero():
    """1e-50 is 0 as float32: refused if the kernel is out of range, otherwise scaled."""
    x = (ordinary(2, 1, 4) + 1).astype("f8")
    with pytest.raises(UserError, match="float32 cannot hold .*: scale the images up"):
        gram(x * 1e-50, readouts=kinds(3), backend="cpu")
    assert right_or_refused(x * 1e-50, kinds(3), z=x * 1e30)


def test_scaling_changes_no_bit_but_the_exponent():
    x = ordinary(4, 2, 6)
    K = gram(x, readouts=kinds(5), backend="cpu")
    for power in (-58, -40, 29, 55):
        scaled = gram(x * np.float32(2.0**power), readouts=kinds(5), backend="cpu")
        assert (np.ldexp(K.astype("f8"), 2 * power) == scaled).all()


def test_ordinary_images_reach_the_backend_as_they_are():
    class Watched(cpu.Backend):
        def prepare(self, images):
            self.seen = images
            return super().prepare(images)

    backend = scaling.Scaled(Watched(Spec(kinds(21), 1, 8)))
    x = ordinary(3, 1, 8)
    backend.prepare(x)
    assert np.shares_memory(backend.backend.seen, x)
    x[1] *= np.float32(2.0**-40)
    exponents, _ = backend.prepare(x)
    assert exponents[0] == exponents[2] == 0 > exponents[1]


def test_an_entry_depends_on_its_two_images_alone():
    x = ordinary(5, 1, 5) * np.array([1, 1e-17, 1e15, 1e-9, 1], "f4").reshape(-1, 1, 1, 1)
    whole = gram(x, readouts=kinds(4), backend="cpu")
    for i, j in product(range(5), repeat=2):
        part = gram(x[i : i + 1], x[j : j + 1], readouts=kinds(4), backend="cpu")
        if i >= j:
            assert (part[:, 0, 0] == whole[:, i, j]).all()


def test_compute_refuses_what_gram_refuses(tmp_path):
    readouts, labels = kinds(3), (np.arange(6) % 2, np.zeros(0, int))
    for scale, words in ((1e-20, "scale the images up"), (1e25, "scale the images down")):
        x = ordinary(6, 1, 4) * np.float32(scale)
        plan = Plan(6, 0, 2, len(readouts))
        grams = growth.create(
            tmp_path / str(scale), plan, {"readouts": [str(r) for r in readouts]}, ImageFacts(labels)
        )
        with pytest.raises(UserError, match=words):
            compute.compute(Job(grams, partial(backends.create, "cpu"), x, x[:0]))
        assert len(grams.progress.missing()) == len(plan.tiles())


sys.path.insert(0, str(Path(__file__).with_name("emulator")))

from emulated import Emulator, compiler  # noqa: E402


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize(("size", "depth"), [(1, 3), (1, 39), (4, 3), (4, 288)])
def test_the_cuda_backend(size, depth):
    """Scaled images have the numbers of ordinary ones, scaled; the greatest possible depth is right, too."""
    from cntk_bench.backends import cuda

    readouts = kinds(depth)
    backend = scaling.Scaled(cuda.Backend(Spec(readouts, 1, size), Emulator()))
    x = ordinary(3, 1, size) + 1
    x *= np.array([1, 2.0**50, 2.0**-40], "f4").reshape(-1, 1, 1, 1) * np.float32(1 if depth == 3 else 1e9)
    one, other = backend.prepare(x[:1]), backend.prepare(x[1:2])
    assert worst(backend.tile(one, other), x[:1], x[1:2], readouts) <= 1
    with pytest.raises(UserError, match="scale the images up"):
        dim = backend.prepare(x[2:] * np.float32(1e-20))
        backend.tile(dim, dim)
    with pytest.raises(UserError, match="too deep"):
        scaling.Scaled(cuda.Backend(Spec(kinds(10**5), 1, size), Emulator()))
