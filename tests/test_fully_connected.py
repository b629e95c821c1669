"""The definition of fully connected kernels against neural-tangents, closed forms and random networks."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cntk_bench import reference
from cntk_bench.errors import UserError
from cntk_bench.kernels import fully_connected as definition
from cntk_bench.kernels.spec import Readout

FIXTURES = Path(__file__).parent / "fixtures"


def vectors(n, features, seed=0):
    return np.random.default_rng(seed).standard_normal((n, features, 1, 1)).astype(np.float32)


def readouts(depth, bias=0.0):
    """Sigma, and Theta with every possible number of fixed layers."""
    ntk = [Readout("fc-ntk", "", depth, bias=bias, fixed=fixed) for fixed in range(depth)]
    return [Readout("fc-nngp", "", depth, bias=bias), *ntk]


# Numbers of neural-tangents, written by scripts/make_fixtures.py.


@pytest.mark.parametrize("name", ["vectors", "images"])
def test_neural_tangents(name):
    with np.load(FIXTURES / f"fully-connected-{name}.npz", allow_pickle=False) as fixture:
        x, values = fixture["images"], fixture["values"]
        chosen = [Readout.parse(str(readout)) for readout in fixture["readouts"]]
    assert {r.depth for r in chosen} == {1, 2, 3, 6, 21} and {r.bias for r in chosen} == {0, 0.1, 1.5}
    assert {r.fixed for r in chosen} >= {0, 1, 3, 5, 10, 20} and len(chosen) == 57
    K = reference.gram(x, readouts=chosen)
    # Angles err by 1e-8; for opposite vectors only cancelling terms are left of Sigma^2.
    own = np.sqrt(np.einsum("rii->ri", K))
    assert (abs(K - values) <= 1e-10 * abs(values) + 1e-15 * own[:, :, None] * own[:, None]).all()


# Closed forms.


@pytest.mark.parametrize("bias", [0, 0.1, 2.0])
def test_a_vector_with_itself(bias):
    """With k0 = k1 = 1, Sigma^l = |x|^2 / n_0 + l beta^2; Theta^L sums these over trained layers."""
    x = vectors(1, 7)
    square = float((x.astype("f8") ** 2).sum()) / 7
    for depth in (1, 2, 5, 21):
        sigma = square + bias**2 * np.arange(1, depth + 1)
        expected = [sigma[-1], *(sigma[fixed:].sum() for fixed in range(depth))]
        K = reference.gram(x, readouts=readouts(depth, bias))[:, 0, 0]
        np.testing.assert_allclose(K, expected, rtol=1e-14)


def test_one_relu_layer_is_the_arc_cosine_kernel():
    """Cho and Saul 2009, degrees 0 and 1: closed forms in the angle, without computing it from a cosine."""
    t = np.linspace(0, np.pi, 41)
    x = np.zeros((1, 2, 1, 1))
    x[0, 0] = np.sqrt(2)  # |x|^2 / n_0 = 1
    z = np.sqrt(2) * np.stack([np.cos(t), np.sin(t)], 1).reshape(-1, 2, 1, 1)
    sigma, theta, last = reference.gram(x, z, readouts=readouts(2))[:, 0]
    J0, J1 = np.pi - t, np.sin(t) + (np.pi - t) * np.cos(t)
    np.testing.assert_allclose(sigma, J1 / np.pi, atol=1e-15)
    # The definition's arccos is inaccurate near -1.
    np.testing.assert_allclose(theta, np.cos(t) * J0 / np.pi + J1 / np.pi, atol=1e-8)
    assert (sigma == last).all()


def test_depth_1_is_the_linear_kernel():
    x = vectors(3, 5)
    flat = x.reshape(3, 5).astype("f8")
    K = reference.gram(x, readouts=[Readout("fc-ntk", "", 1), Readout("fc-nngp", "", 1, bias=0.5)])
    np.testing.assert_allclose(K, [flat @ flat.T / 5, flat @ flat.T / 5 + 0.25], rtol=1e-14)


def test_orthogonal_vectors():
    """By hand: c = 0 gives k0 = 1/2 and k1 = 1/pi, so that c = 1/pi in the next layer."""
    x = np.sqrt(2) * np.eye(2).reshape(2, 2, 1, 1)
    sigma, theta, *_ = reference.gram(x, readouts=readouts(3))[:, 0, 1]
    c = 1 / np.pi
    k0, k1 = (np.pi - np.arccos(c)) / np.pi, (c * (np.pi - np.arccos(c)) + np.sqrt(1 - c**2)) / np.pi
    np.testing.assert_allclose([sigma, theta], [k1, (0 + c) * k0 + k1], rtol=1e-14)


@pytest.mark.parametrize(("bias", "fixed"), [(0.0, 0), (0.0, 1), (0.7, 0), (0.7, 2)])
def test_fixed_layers_leave_out_the_first_terms(bias, fixed):
    """Theta^L is the sum over trained layers l of Sigma^l times the product of k0 in the layers above."""
    x, depth = vectors(4, 3), 5
    sigma = [reference.gram(x, readouts=[Readout("fc-nngp", "", d + 1, bias=bias)])[0] for d in range(depth)]
    own = [np.sqrt(np.outer(np.diag(s), np.diag(s))) for s in sigma]
    k0 = [1 - np.arccos(np.clip(s / n, -1, 1)) / np.pi for s, n in zip(sigma, own, strict=True)]
    terms = [s * np.prod([np.ones_like(s), *k0[d:-1]], axis=0) for d, s in enumerate(sigma)]
    (theta,) = reference.gram(x, readouts=[Readout("fc-ntk", "", depth, bias=bias, fixed=fixed)])
    np.testing.assert_allclose(theta, sum(terms[fixed:]), rtol=1e-7)


# Finite random networks and their gradients, which involve no kernel formula.


def random_network(x, depth, width, bias, rng):
    """A random network's outputs (n,) of one unit, and products of its gradients by layer, (depth, n, n).

    Layer l's weights and biases contribute (a_i.a_j / n_l + beta^2) (d_i.d_j), where a is its input
    and d the gradient with respect to its output.
    """
    n = len(x)
    inputs, slopes, weights = [x.T], [], []
    for layer in range(1, depth + 1):
        fan_in, units = len(inputs[-1]), 1 if layer == depth else width
        factor = np.sqrt((1 if layer == 1 else 2) / fan_in)
        weights.append(factor * rng.standard_normal((units, fan_in)))
        h = weights[-1] @ inputs[-1] + bias * rng.standard_normal((units, 1))
        slopes.append(h > 0)
        inputs.append(np.maximum(h, 0))
    products, d = [], np.ones((1, n))
    for layer in range(depth, 0, -1):
        a, factor = inputs[layer - 1], 1 if layer == 1 else 2
        products.append((factor * a.T @ a / len(a) + bias**2) * (d.T @ d))
        if layer > 1:
            d = (weights[layer - 1].T @ d) * slopes[layer - 2]
    return h[0], np.array(products[::-1])


@pytest.mark.parametrize(("depth", "bias"), [(2, 0.0), (3, 0.5), (4, 0.0)])
def test_random_networks(depth, bias):
    """NNGP: the outputs' covariance. NTK, for every number of fixed layers: the mean product of gradients.

    Means over `count` networks lie within 5 standard errors (from the sample) of their limit for this
    `width`. That limit is within O(1 / width) of the kernel, for which 4 depth / width is allowed.
    """
    x, width, count = vectors(3, 5).reshape(3, 5).astype("f8"), 256, 400
    rng = np.random.default_rng(depth)
    found = [random_network(x, depth, width, bias, rng) for _ in range(count)]
    samples = [np.array([np.outer(h, h) for h, _ in found])]
    samples += [np.array([p[fixed:].sum(0) for _, p in found]) for fixed in range(depth)]
    K = reference.gram(x.reshape(3, 5, 1, 1), readouts=readouts(depth, bias))
    own = np.sqrt(np.einsum("rii->ri", K))
    for sample, exact, scale in zip(samples, K, own, strict=True):
        error = sample.std(0) / np.sqrt(count)
        allowed = 5 * error + 4 * depth / width * scale[:, None] * scale
        assert (abs(sample.mean(0) - exact) <= allowed).all()
        assert (allowed <= 0.5 * scale[:, None] * scale).all()  # so a missing term or factor would show


# Properties.

NUMBERS = st.floats(-1e3, 1e3, width=32).map(lambda value: value if abs(value) > 1e-3 else 0.0)
VECTORS = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=NUMBERS)
DEPTHS, BIASES = st.integers(1, 6), st.sampled_from([0.0, 0.1, 3.0])


@settings(max_examples=60, deadline=None)
@given(VECTORS, DEPTHS, BIASES)
def test_kernels_are_symmetric_and_positive_semidefinite(x, depth, bias):
    K = reference.gram(x[:, :, None, None], x[:, :, None, None], readouts=readouts(depth, bias))
    assert np.isfinite(K).all()
    own = np.sqrt(np.einsum("rii->ri", K))
    scale = own[:, :, None] * own[:, None]
    assert (abs(K - K.swapaxes(1, 2)) <= 1e-7 * scale).all()
    assert (abs(K) <= (1 + 1e-7) * scale).all()
    # In each layer an angle errs by up to 3e-8 and k0 by 1e-8; eigenvalues by less than n times that.
    assert (np.linalg.eigvalsh(K) >= -1e-7 * len(x) * (own**2).max(1)[:, None]).all()


@settings(max_examples=60, deadline=None)
@given(VECTORS, DEPTHS, st.integers(-20, 20), st.integers(-20, 20))
def test_kernels_without_bias_are_homogeneous(x, depth, a, b):
    """K(a x, b z) = a b K(x, z); for powers of two, to the last bit."""
    x = x[:, :, None, None].astype("f8")
    K = reference.gram(x, x, readouts=readouts(depth))
    scaled = reference.gram(np.ldexp(x, a), np.ldexp(x, b), readouts=readouts(depth))
    np.testing.assert_array_equal(np.ldexp(K, a + b), scaled)


def test_bias_breaks_homogeneity():
    x = vectors(2, 3)
    chosen = readouts(3, 0.5)
    assert not np.allclose(reference.gram(2 * x, readouts=chosen), 4 * reference.gram(x, readouts=chosen))


def in_long_double(x, z, readout):
    """The recursion with a 64-bit mantissa; the first angle, from |x/|x| - z/|z||, is exact near c = 1."""
    x, z = (
        np.append(a.ravel() / np.sqrt(np.longdouble(a.size)), np.longdouble(readout.bias)) for a in (x, z)
    )
    vx, vz = (x**2).sum(), (z**2).sum()
    pi, square = 4 * np.arctan(np.longdouble(1)), np.longdouble(readout.bias) ** 2
    S = x @ z
    T = S if readout.fixed == 0 else np.longdouble(0)
    for depth in range(2, readout.depth + 1):
        n = np.sqrt(vx * vz)
        chord = np.sqrt(((x / np.sqrt(vx) - z / np.sqrt(vz)) ** 2).sum()) if depth == 2 else None
        angle = 2 * np.arcsin(chord / 2) if depth == 2 else np.arccos(np.clip(S / n, -1, 1))
        k0 = 1 - angle / pi
        S = n * (np.cos(angle) * k0 + np.sin(angle) / pi) + square
        vx, vz, T = vx + square, vz + square, k0 * T
        T += S if depth > readout.fixed else 0
    return S if readout.kernel == "fc-nngp" else T


def nearly_parallel(features=300):
    """A vector x; and x with noise of size 1e-9 .. 1e-1 added, times 1 or 3."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal(features).astype("f4").astype("f8")
    z = [
        factor * (x + size * rng.standard_normal(features))
        for factor in (1, 3)
        for size in np.logspace(-9, -1, 17)
    ]
    return x.reshape(1, -1, 1, 1), np.array(z).reshape(-1, features, 1, 1)


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double is no wider than double here")
@pytest.mark.parametrize("bias", [0.0, 0.1])
def test_nearly_parallel_vectors(bias):
    """The bound derived in the definition: at most 4e-7 at depth 21, and far less for angles above 1e-6."""
    x, z = nearly_parallel()
    for readout in (Readout("fc-ntk", "", 21, bias=bias), Readout("fc-nngp", "", 21, bias=bias)):
        exact = np.array([float(in_long_double(x[0].astype("g"), one.astype("g"), readout)) for one in z])
        found = reference.gram(x, z, readouts=[readout])[0, 0]
        error = abs(found / exact - 1)
        assert error.max() < (4e-7 if readout.kernel == "fc-ntk" else 1e-13)
        assert error.reshape(2, 17)[:, 7:].max() < 1e-8  # noise of 3e-6 or more


def test_zero_vectors():
    x = np.zeros((2, 3, 1, 1))
    x[1] = 1
    assert (reference.gram(x, readouts=readouts(4))[:, 0] == 0).all()
    K = reference.gram(x, readouts=readouts(2, bias=0.5))
    # Theta^2 = (beta^2) + (2 beta^2), Sigma^2 = 2 beta^2
    assert K[1, 0, 0] == 0.25 + 0.5 and K[0, 0, 0] == 0.5


def test_what_is_no_readout():
    for arguments, words in (
        (("fc-ntk", "", 0), "depth 0 is not possible for fc-ntk: use an integer of at least 1"),
        (("fc-ntk", "", True), "depth True"),
        (("fc-ntk", "gap", 3), "has no pool and no train"),
        (("fc-nngp", "", 3, "hidden"), "has no pool and no train"),
        (("fc-ntk", "", 3, None, -0.1), "bias -0.1 is not possible: use 0, or a number from 0.001 to 1000"),
        (("fc-ntk", "", 3, None, 1e-4), "bias 0.0001"),
        (("fc-ntk", "", 3, None, 1 / 3), "at most 6 significant digits"),
        (("fc-ntk", "", 3, None, float("nan")), "bias nan"),
        (("fc-ntk", "", 3, None, "0.1"), "bias '0.1'"),
        (("fc-ntk", "", 3, None, 0, 3), "fixed 3 is not possible at depth 3: use an integer from 0 to 2"),
        (("fc-ntk", "", 3, None, 0, 0, 1), "flip 1 is not possible"),
        (("ntk", "v", 3, None, 0.1), "kernel 'ntk' has no bias and no fixed: they are of 'fc-ntk'"),
        (("fc", "", 3), "kernel 'fc' is unknown: use 'ntk', 'nngp', 'fc-ntk' or 'fc-nngp'"),
    ):
        with pytest.raises(UserError) as error:
            Readout(*arguments)
        assert words in str(error.value) and "\n" not in str(error.value)


def test_the_definition_takes_any_shape():
    x = np.arange(12.0).reshape(3, 2, 2)
    assert definition.pair(x, x, readouts(3))[0] == definition.pair(x.ravel(), x.ravel(), readouts(3))[0]
