"""The definition against neural-tangents, finite random networks, closed forms and symmetries."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import convolve
from threadpoolctl import threadpool_limits

from cntk_bench.kernels.convolutional import gram
from cntk_bench.kernels.spec import Readout

FIXTURES = Path(__file__).parent / "fixtures"
POOLS = ("v", "gap", "lap:1")
KINDS = (("ntk", "all"), ("ntk", "hidden"), ("nngp", "all"))


def every(*depths, pools=POOLS):
    return [
        Readout(kernel, pool, depth, train) for depth in depths for pool in pools for kernel, train in KINDS
    ]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def assert_equal(actual, desired, relative):
    """Every entry within a relative tolerance; entries that should be 0 must be exactly 0."""
    np.testing.assert_allclose(actual, desired, rtol=relative, atol=0)


# Numbers of neural-tangents, written by scripts/make_fixtures.py.


@pytest.mark.parametrize("name", ["c1p5", "c3p6", "c3p8"])
def test_neural_tangents(name):
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as fixture:
        images, values = fixture["images"], fixture["values"]
        readouts = [
            Readout(kernel, pool, int(depth), train)
            for kernel, pool, train, depth in map(str.split, fixture["readouts"])
        ]
    assert {r.depth for r in readouts} == {3, 4, 6, 11, 21} and len(readouts) == 60
    assert_equal(gram(images, readouts=readouts), values, 1e-8)


# Gradients of finite random networks, which involve no kernel formula.


def tangents(x, weights, pools):
    """Gradients of the networks sum(last * (pool @ features)) at x, for each (pool, last).

    Convolutions are matrices on im2col patches, in the NTK parametrisation: N(0, 1) weights, and a factor of
    sqrt(2 / (9 width)) after each ReLU. Returns a list over pools of lists over layers.
    """
    size, a, patches, slopes = x.shape[-1], x, [], []
    for w in weights:
        patches.append(im2col(a))
        u = w @ patches[-1]
        scale = np.sqrt(2 / (9 * len(w)))
        slopes.append(scale * (u > 0))
        a = (scale * np.maximum(u, 0)).reshape(-1, size, size)
    out = []
    for pool, last in pools:
        gradients = [a.reshape(len(a), -1) @ pool.T]
        back = last @ pool
        for w, patch, slope in zip(weights[::-1], patches[::-1], slopes[::-1], strict=True):
            delta = back * slope
            gradients.append(delta @ patch.T)
            back = col2im(w.T @ delta, size)
        out.append(gradients[::-1])
    return out


def im2col(a):
    """(C, P, P) -> (9 C, P P): the zero-padded 3x3 neighbourhood of every pixel."""
    size = a.shape[-1]
    padded = np.pad(a, ((0, 0), (1, 1), (1, 1)))
    shifted = [padded[:, s : s + size, t : t + size] for s, t in product(range(3), repeat=2)]
    return np.stack(shifted, 1).reshape(-1, size * size)


def col2im(columns, size):
    """The transpose of im2col, (9 C, P P) -> (C, P P)."""
    columns = columns.reshape(-1, 3, 3, size, size)
    padded = np.zeros((len(columns), size + 2, size + 2), columns.dtype)
    for s, t in product(range(3), repeat=2):
        padded[:, s : s + size, t : t + size] += columns[:, s, t]
    return padded[:, 1:-1, 1:-1].reshape(len(columns), -1)


@threadpool_limits.wrap(limits=1)  # the matrices are too small for several threads
def test_finite_networks():
    depth, width, networks, size, channels = 4, 128, 128, 4, 2
    x, other = noise(2, channels, size, size, seed=1).astype(np.float32)
    z = (other - x) / 2  # negatively correlated with x
    pixel = np.arange(size)
    window = (abs(pixel[:, None] - pixel) <= 1) / 3
    pools = {"v": np.eye(size**2), "gap": np.full((1, size**2), size**-2), "lap:1": np.kron(window, window)}
    pools = {pool: matrix.astype(np.float32) for pool, matrix in pools.items()}
    shapes = [(width, 9 * channels)] + [(width, 9 * width)] * (depth - 2)
    rng = np.random.default_rng(2)
    samples = []  # for each network a list of (x with x, x with z), one for each readout
    for _ in range(networks):
        weights = [rng.standard_normal(shape, np.float32) for shape in shapes]
        heads = [(pool, rng.standard_normal((width, len(pool)), np.float32)) for pool in pools.values()]
        of_x, of_z = tangents(x, weights, heads), tangents(z, weights, heads)
        samples.append([])
        for at_x, at_z in zip(of_x, of_z, strict=True):
            layers = np.array([[np.vdot(a, b) for a, b in zip(at_x, at, strict=True)] for at in (at_x, at_z)])
            samples[-1] += [layers.sum(1), layers[:, 1:-1].sum(1), layers[:, -1]]  # in the order of KINDS
    exact = gram(x[None], np.stack([x, z]), readouts=every(depth))[:, 0]
    error = np.std(samples, 0, ddof=1) / networks**0.5
    assert (error < 0.05 * abs(exact)).all()  # precise enough to show mistakes
    assert (abs(np.mean(samples, 0) - exact) < 4 * error).all()


# Closed forms.


def test_one_pixel_by_hand():
    """By hand, for orthogonal pixels of length 3 and 4: c = 0, then c = 1/pi."""
    x, z = np.array([[3.0, 0.0], [0.0, 4.0]])[:, None, :, None, None]
    first = 12 / (9 * np.pi)
    c = 1 / np.pi
    k0 = 1 - np.arccos(c) / np.pi
    second = 12 / 81 * (c * k0 + np.sqrt(1 - c**2) / np.pi)
    readouts = [Readout("nngp", "v", 2), Readout("ntk", "v", 3, "hidden"), Readout("nngp", "v", 3)]
    assert_equal(gram(x, z, readouts=readouts)[:, 0, 0], [first, k0 * first / 9, second], 1e-14)


def test_identical_images():
    """V of an image with itself or a copy, where sums over pixels are rounded in float64."""
    x = noise(3, 6, 6)
    v, desired = convolve((x**2).sum(0), np.ones((3, 3)), mode="constant"), []
    for depth in range(3, 22):
        v = convolve(v / 9, np.ones((3, 3)), mode="constant")
        desired += [depth * v.sum() / 9, (depth - 2) * v.sum() / 9, v.sum() / 9]  # in the order of KINDS
    actual = gram(np.stack([x, x]), readouts=every(*range(3, 22), pools=["v"]))
    assert_equal(actual, np.broadcast_to(np.reshape(desired, (-1, 1, 1)), actual.shape), 1e-13)


def test_opposite_images():
    """At displacement 0 of the first layer c = -1, so depth 2 gives exactly 0, and never NaN."""
    x = noise(1, 3, 5, 5)
    assert_equal(gram(x, -x, readouts=[Readout("nngp", "v", 2), Readout("ntk", "v", 3, "hidden")]), 0, 0)
    assert (gram(x, -x, readouts=every(4)) > 0).all()


@pytest.mark.filterwarnings("error")
def test_zero_image():
    x = noise(2, 3, 5, 5)
    x[0] = 0
    values = gram(x, readouts=every(3, 21))
    assert (values[:, 0] == 0).all() and (values[:, 1, 1] > 0).all()


@pytest.mark.parametrize("depth", [3, 6])
def test_pools_at_their_limits(depth):
    """LAP(0) is V; LAP(c) is GAP, up to a factor, once its window always covers the image."""
    size = 5
    v, gap, *lap = (
        gram(noise(2, 3, size, size), readouts=every(depth, pools=[pool]))
        for pool in ("v", "gap", "lap:0", f"lap:{size - 1}", f"lap:{size + 2}")
    )
    assert_equal(lap[0], v, 1e-13)
    for c, value in zip((size - 1, size + 2), lap[1:], strict=True):
        assert_equal(value, size**6 / (2 * c + 1) ** 4 * gap, 1e-13)


# Symmetries, for all readouts in one pass.


def test_each_readout_is_the_same_alone():
    x, readouts = noise(2, 3, 5, 5), every(6, 3)
    alone = [gram(x, readouts=[readout])[0] for readout in readouts]
    assert (gram(x, readouts=readouts) == alone).all()


def test_symmetric():
    x = noise(3, 3, 5, 5)
    values = gram(x, x, readouts=every(3, 6))
    assert_equal(values, values.transpose(0, 2, 1), 1e-13)
    assert_equal(gram(x, readouts=every(3, 6)), values, 1e-13)


def test_homogeneous():
    x, z = noise(2, 2, 3, 5, 5)
    readouts = every(3, 6)
    assert_equal(gram(0.3 * x, 1.7 * z, readouts=readouts), 0.51 * gram(x, z, readouts=readouts), 1e-12)


def test_channels_may_be_permuted():
    x, z = noise(2, 2, 3, 5, 5)
    readouts = every(3, 6)
    order = [2, 0, 1]
    assert_equal(gram(x[:, order], z[:, order], readouts=readouts), gram(x, z, readouts=readouts), 1e-12)


def test_both_images_may_be_flipped_or_transposed_but_not_one():
    x, z = noise(2, 2, 3, 5, 5)
    readouts = every(3, 6)
    values = gram(x, z, readouts=readouts)
    for move in (lambda a: a[..., ::-1, :], lambda a: a[..., ::-1], lambda a: a.swapaxes(2, 3)):
        assert_equal(gram(move(x), move(z), readouts=readouts), values, 1e-12)
        assert (abs(gram(x, move(z), readouts=readouts) / values - 1).max((1, 2)) > 1e-6).all()


def test_positive_semidefinite():
    eigenvalues = np.linalg.eigvalsh(gram(noise(12, 1, 4, 4), readouts=every(3, 6)))
    assert (eigenvalues[:, 0] > 1e-4 * eigenvalues[:, -1]).all()  # and so by far more than rounding
