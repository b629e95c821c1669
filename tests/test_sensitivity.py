"""Errors of stored kernels that could decide a solution: a larger jitter prevents this, or it is doubted."""

import numpy as np
import pytest
from held import Held

from cntk_bench import Readout, gram
from cntk_bench.data import load
from cntk_bench.kernels import convolutional
from cntk_bench.regression import iterative, nested, normalize, ridge, sensitivity
from cntk_bench.regression.attempts import How

N, M = 60, 40
TWICE = [(3, 40), (10, 47)]  # pairs of places with the same image
SOLVERS = {
    "cholesky": ridge.solve,
    "refined": iterative.refined,
    "cg": lambda K, labels, **more: iterative.cg(
        Held(K, 16), labels, rank=8, how=How(iterations=4000), **more
    ),
}


def onehot(labels):
    return np.eye(10)[labels] - 0.1


def exact(K):
    """The products with a matrix that `moved` asks for."""
    return lambda b, squared=False: (K**2 if squared else K) @ b


@pytest.fixture(scope="module", params=["v", "gap"])
def twice(request):
    """(K as float32, test rows, labels) of digits, two of which occur twice with other labels; and scores
    of regression on the distinct images, whose targets are means."""
    images = load("digits", train=N, test=M, seed=1)
    x, labels = images.x_train.copy(), images.y_train.copy()
    for first, again in TWICE:
        x[again], labels[again] = x[first], (labels[first] + 1) % 10
    readouts = [Readout("ntk", request.param, 3)]
    K, T = (gram(*some, readouts=readouts, backend="cpu")[0] for some in ((x,), (images.x_test, x)))
    once = np.ones(N, bool)
    y = onehot(labels)
    for first, again in TWICE:
        once[again] = False
        y[first] = (y[first] + y[again]) / 2
    alpha = np.linalg.solve(K[np.ix_(once, once)].astype(np.float64), y[once])
    return K, T.astype(np.float64), labels, T[:, once].astype(np.float64) @ alpha


def in_the_last_bit(K, seed=0):
    """K with the last bit changed in some entries of rows that should be equal."""
    K, rng = K.copy(), np.random.default_rng(seed)
    for _, again in TWICE:
        for other in rng.choice([i for i in range(N) if i not in np.ravel(TWICE)], 6, replace=False):
            K[again, other] = K[other, again] = np.nextafter(K[again, other], np.float32(np.inf))
    return K


def test_the_error_assumed_covers_ordinary_images():
    """Not those of nearly flat images, which docs/how-to/trust.md excepts."""
    x = load("digits", train=12, test=2, seed=1).x_train
    readouts = [Readout("ntk", pool, depth) for pool in ("gap", "lap:2", "v") for depth in (3, 11)]
    found = gram(x, readouts=readouts, backend="cpu")
    errors = found / convolutional.gram(x.astype(np.float64), readouts=readouts) - 1
    assert (np.sqrt((errors**2).mean((1, 2))) < sensitivity.KERNEL_ERROR).all()
    mean, deviation = (np.array(of)[:, None, None] for of in ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)))
    levels = np.stack([(np.full((3, 8, 8), level) - mean) / deviation for level in (196, 197, 198)])
    flat, pair = levels.astype(np.float32), [readouts[0]]
    beyond = gram(flat, readouts=pair, backend="cpu") / convolutional.gram(flat, readouts=pair) - 1
    assert abs(beyond).max() > 10 * sensitivity.KERNEL_ERROR  # once it is not, the docs can promise more


def test_it_is_what_errors_do_on_average():
    """Against random errors: each entry has its own, since each row is computed separately."""
    rng = np.random.default_rng(0)
    B = rng.standard_normal((30, 40))
    K, alpha, error = B @ B.T, rng.standard_normal((30, 4)), 1e-4
    weight = rng.uniform(0.5, 2, (30, 1))
    drawn = [weight * ((error * rng.standard_normal(K.shape) * K) @ alpha) for _ in range(2000)]
    expected = np.sqrt(np.mean(np.square(drawn)))
    found = sensitivity.moved(exact(K), alpha, K.diagonal(), error, weight)
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("solver", SOLVERS)
def test_equal_rows_are_no_reason_for_more_jitter(twice, solver):
    K, T, labels, expected = twice
    found = SOLVERS[solver](K, labels, classes=10)
    assert found.chosen.jitter == 1e-10 and found.chosen.doubt is None
    assert found.chosen.moved < 1e-4
    np.testing.assert_allclose(T @ found.alpha, expected, atol=1e-3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_rows_that_rounding_tells_apart_do_not_decide(twice, solver):
    """With the least jitter that can be factored, scores would be far off, as the last line shows."""
    K, T, labels, expected = twice
    K = in_the_last_bit(K)
    found = SOLVERS[solver](K, labels, classes=10)
    assert found.chosen.jitter > 1e-8 and found.chosen.doubt is None
    assert found.chosen.moved <= sensitivity.MOVED
    assert np.abs(T @ found.alpha - expected).max() < 0.1
    least = K.astype(np.float64) + np.diag(1e-10 * K.diagonal().astype(np.float64))
    assert np.abs(T @ np.linalg.solve(least, onehot(labels)) - expected).max() > 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_no_jitter_spares_is_doubted(twice, solver, monkeypatch):
    K, _, labels, _ = twice
    monkeypatch.setattr(sensitivity, "MOVED", 1e-9)
    found = SOLVERS[solver](K, labels, classes=10)
    assert "errors of stored kernels alone move what is fitted by" in found.chosen.doubt
    assert "raise solve.ridge" in found.chosen.doubt


def test_exact_kernels_are_not_doubted_for_float32s_errors(twice):
    K, _, labels, _ = twice
    found = ridge.solve(in_the_last_bit(K), labels, classes=10, error=1e-16)
    assert found.chosen.jitter <= 1e-10 and found.chosen.doubt is None


@pytest.mark.parametrize("pairs", [3, 20])
def test_effects_that_add_up_are_those_of_equal_rows_too(pairs):
    """For each ridge, even where no single image's coefficient is large enough to show."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 20))
    labels = rng.integers(0, 10, 300)
    x[200 : 200 + pairs], labels[200 : 200 + pairs] = x[:pairs], (labels[:pairs] + 1) % 10
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = x @ x.T
    cosines[200 : 200 + pairs] = cosines[:pairs]
    cosines[:, 200 : 200 + pairs] = cosines[:, :pairs]
    K = np.exp(-0.5 * (1 - cosines)).astype(np.float32)
    for value in (1e-7, 1e-6, 1e-5, 3e-5, 1e-4):
        chosen = ridge.solve(K, labels, classes=10, ridge=value).chosen
        assert chosen.jitter == 0 and chosen.doubt is None and chosen.moved <= sensitivity.MOVED


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_kernels_of_unit_diagonal_keep_equal_rows_equal(twice, dtype):
    K, T, labels, _ = twice
    scaled = K.astype(dtype)
    normalize.unit_diagonal(scaled)
    whole = np.tril(scaled) + np.tril(scaled, -1).T
    for first, again in TWICE:
        np.testing.assert_array_equal(whole[first], whole[again])
    assert ridge.solve(scaled, labels, classes=10).chosen.jitter == 1e-10


def test_what_cannot_be_trusted_has_the_figures_of_its_own_factor(twice, monkeypatch):
    """Not those of the factors with larger jitters, which are computed later."""
    K, _, labels, _ = twice
    usual = ridge.solve(K, labels, classes=10, ridge=1e-3).chosen
    monkeypatch.setattr(sensitivity, "MOVED", 1e-12)
    found = ridge.solve(K, labels, classes=10, ridge=1e-3).chosen
    assert found.doubt is not None and found.jitter == 1e-4  # the largest jitter
    alone = ridge.solve(K, labels, classes=10, ridge=1e-3, error=0.0).chosen
    assert alone.loo_error == usual.loo_error and alone.doubt is None
    own = K.diagonal().astype(np.float64)
    A = K.astype(np.float64) + (1e-3 + found.jitter) * own.mean() * np.eye(len(K))
    inverse = np.linalg.inv(A)
    left_out = inverse @ onehot(labels) / inverse.diagonal()[:, None]
    assert found.loo_error == pytest.approx((left_out**2).mean(), rel=1e-9)


def test_every_beginning_of_the_images_is_looked_at(twice):
    """One image occurs twice among the first 45, none among the first 30."""
    K, T, labels, _ = twice
    parts = nested.solve(in_the_last_bit(K), labels, classes=10, sizes=[30, 45, N])
    assert {part.jitter > 1e-8 for part in parts} == {True}  # the same jitter for all sizes
    assert all(part.doubt is None and part.moved <= sensitivity.MOVED for part in parts)


def test_targets_of_a_regression_are_looked_at_in_their_unit(twice):
    K, T, labels, expected = twice
    found = ridge.regress(in_the_last_bit(K), 1e6 * onehot(labels))
    assert found.chosen.jitter > 1e-8 and np.abs(1e-6 * T @ found.alpha - expected).max() < 0.1
