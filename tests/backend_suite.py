"""Tests that every backend must pass: subclass `BackendSuite` and say how a backend is created."""

import numpy as np
import pytest

from cntk_bench.kernels import convolutional as reference
from cntk_bench.kernels.spec import Readout, Spec

DEPTHS = (3, 4, 6, 11, 21)


def readouts(*kinds, depths=DEPTHS):
    """Readouts at all depths; each kind is (kernel, pool) or (kernel, pool, train)."""
    return tuple(Readout(kind[0], kind[1], depth, *kind[2:]) for kind in kinds for depth in depths)


TABLE = readouts(("ntk", "v"), ("ntk", "gap"))
EVERYTHING = readouts(
    *(("ntk", pool, train) for pool in ("v", "gap", "lap:1") for train in ("all", "hidden")),
    *(("nngp", pool) for pool in ("v", "gap", "lap:1", "lap:2")),
    depths=(3, 6),
)


def ordinary(count, channels, size, seed=0):
    """Images of independent pixels, which have both positive and negative correlations."""
    return np.random.default_rng(seed).standard_normal((count, channels, size, size)).astype(np.float32)


def relative_errors(backend, x, z=None):
    """Largest relative error of each readout against the float64 definition.

    Errors are relative to the entry. Where negative correlations cancel an entry to almost nothing, they are
    relative to a hundredth of the readout's largest entry instead.
    """
    prepared = backend.prepare(x)
    tile = backend.tile(prepared, prepared if z is None else backend.prepare(z), symmetric=z is None)
    exact = reference.gram(x, z, readouts=backend.spec.readouts)
    assert tile.shape == exact.shape and tile.dtype == np.float32
    floor = 0.01 * abs(exact).max((1, 2), keepdims=True)
    return (abs(tile - exact) / np.maximum(abs(exact), floor)).max((1, 2))


class BackendSuite:
    def create(self, spec):
        raise NotImplementedError

    def check(self, x, chosen, tolerance, z=None):
        backend = self.create(Spec(tuple(chosen), *x.shape[1:3]))
        errors = relative_errors(backend, x, z)
        worst = int(np.argmax(errors))
        assert errors[worst] <= tolerance, f"{chosen[worst]}: {errors[worst]:.1e}"

    @pytest.mark.parametrize(("channels", "size"), [(1, 5), (3, 8), (2, 6), (1, 1), (3, 2)])
    def test_table_of_ordinary_images(self, channels, size):
        self.check(ordinary(3, channels, size), TABLE, 1e-6)

    def test_every_readout_from_one_pass(self):
        self.check(ordinary(2, 3, 6), EVERYTHING, 1e-6, z=ordinary(3, 3, 6, seed=1))

    @pytest.mark.parametrize(
        "kind",
        [("ntk", "v"), ("ntk", "v", "hidden"), ("nngp", "v"), ("ntk", "gap"), ("ntk", "gap", "all"),
         ("nngp", "gap"), ("ntk", "lap:1"), ("ntk", "lap:9", "hidden"), ("nngp", "lap:1")],
        ids="-".join,
    )  # fmt: skip
    def test_a_readout_alone(self, kind):
        self.check(ordinary(2, 1, 7), readouts(kind, depths=(3, 8)), 1e-6)

    def test_zones_of_lap_inside_gap(self):
        """Displacements needed by GAP alone train other layers than those that LAP needs too."""
        chosen = readouts(("ntk", "gap"), ("ntk", "lap:1", "all"), ("nngp", "lap:2"), depths=(3, 5))
        self.check(ordinary(2, 2, 12), chosen, 1e-6)

    def test_depth_2(self):
        self.check(ordinary(2, 1, 5), readouts(("ntk", "v", "all"), ("nngp", "gap"), depths=(2,)), 1e-6)

    def test_identical_and_negated_images(self):
        x = ordinary(3, 3, 8)
        x[1], x[2] = x[0], -x[0]
        self.check(x, TABLE, 1e-6)

    def test_shared_flat_backgrounds(self):
        """Where two images agree, 1 - c is tiny and float32 errors would show; V stays precise."""
        x = ordinary(4, 3, 12)
        x[:, :, :, 5:] = 1.7
        x[2:, :, :4] = -0.6
        self.check(x, readouts(("ntk", "v"), ("nngp", "v")), 1e-6)
        self.check(x, readouts(("ntk", "gap"), ("nngp", "gap")), 3e-6)

    @pytest.mark.parametrize("level", [0.3, 0.9, 1.234, 1.7, 2.0, 2.5])
    def test_flat_backgrounds_of_any_level(self, level):
        """A flat background is rounded alike in a whole plane; at some levels such errors would add up."""
        x = ordinary(2, 3, 16)
        x[:, :, :, 8:] = level
        self.check(x, readouts(("ntk", "gap"), ("nngp", "gap")), 3e-6)

    def test_backgrounds_that_differ_by_a_grey_level_here_and_there(self):
        """Angles that float32 can hardly tell from 0: V resolves them, the NTK of GAP and LAP less so."""
        x = np.full((2, 3, 16, 16), 1.9, np.float32)
        for number, image in enumerate(x):
            image[number, 3 + number :: 4, ::5] -= 1 / 64
            image[:, :4] = ordinary(1, 3, 16, seed=number)[0, :, :4]
        self.check(x, readouts(("ntk", "v"), ("nngp", "v"), ("nngp", "gap")), 1e-6)
        self.check(x, readouts(("ntk", "gap"), ("ntk", "lap:1")), 1e-4)

    def test_bright_dots_on_a_dim_background(self):
        """Images agree on a background a thousand times dimmer than the brightest pixel."""
        x = np.full((4, 1, 10, 10), 0.03, np.float32)
        x[1:] = 0.001
        for number, image in enumerate(x):
            image[0, 2 * number, 3:5] = 1
        self.check(x, readouts(("ntk", "v"), ("nngp", "v")), 1e-6)

    def test_pixels_of_zero_variance(self):
        x = ordinary(4, 1, 8)
        x[0, :, :5] = 0
        x[1, :, :, 3:] = 0
        x[2] = 0
        x[2, 0, 0, 0] = 1
        self.check(x, TABLE, 1e-6)

    def test_an_image_of_zeros_has_kernel_zero(self):
        x = ordinary(2, 1, 5)
        x[1] = 0
        backend = self.create(Spec(TABLE, 1, 5))
        prepared = backend.prepare(x)
        tile = backend.tile(prepared, prepared)
        assert (tile[:, 1] == 0).all() and (tile[:, :, 1] == 0).all() and (tile[:, 0, 0] > 0).all()

    def test_bits_do_not_depend_on_the_tile(self):
        x, z = ordinary(7, 2, 6), ordinary(9, 2, 6, seed=1)
        backend = self.create(Spec(EVERYTHING, 2, 6))
        whole = backend.tile(backend.prepare(x), backend.prepare(z))
        for rows, columns in (
            (slice(2, 3), slice(4, 5)),
            (slice(0, 5), slice(3, 9)),
            (slice(1, 7), slice(0, 1)),
        ):
            part = backend.tile(backend.prepare(x[rows]), backend.prepare(z[columns]))
            assert (part == whole[:, rows, columns]).all()

    def test_symmetric_tile_is_the_lower_half_mirrored(self):
        x = ordinary(6, 1, 6)
        backend = self.create(Spec(TABLE, 1, 6))
        prepared = backend.prepare(x)
        whole, half = backend.tile(prepared, prepared), backend.tile(prepared, prepared, symmetric=True)
        assert (half == half.swapaxes(1, 2)).all()
        lower = np.tril_indices(6)
        assert (half[:, *lower] == whole[:, *lower]).all()

    def test_symmetric_tile_of_mirrored_images(self):
        """K(x, flip z) = K(flip x, z) makes this tile symmetric, too: half is computed, though z is not x."""
        x = ordinary(6, 2, 5)
        backend = self.create(Spec(EVERYTHING, 2, 5))
        one, other = backend.prepare(x), backend.prepare(np.ascontiguousarray(x[..., ::-1]))
        whole, half = backend.tile(one, other), backend.tile(one, other, symmetric=True)
        assert (half == half.swapaxes(1, 2)).all()
        lower = np.tril_indices(6)
        assert (half[:, *lower] == whole[:, *lower]).all()
        np.testing.assert_allclose(half, whole, rtol=2e-6, atol=2e-6 * abs(whole).max())
