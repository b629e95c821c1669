"""Learning curves computed from one factor, against a separate solve for each size."""

import warnings

import numpy as np
import pytest

from cntk_bench.analyses.curve import sizes
from cntk_bench.errors import UserError
from cntk_bench.regression import cholesky, fit, nested, ridge


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(cholesky, "BLOCK", 7)


def problem(n=40, duplicates=0):
    """A Laplace kernel with an uneven diagonal, and labels; the last images repeat the first."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 4))
    x[n - duplicates :] = x[:duplicates]
    scale = 1 + 3 * (x[:, 0] > 0)
    gram = np.exp(-0.4 * np.sqrt(((x[:, None] - x) ** 2).sum(-1))) * np.outer(scale, scale)
    return gram, np.arange(n) % 3


SIZES = (2, 3, 7, 8, 20, 40)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("scale", [1.0, 1e20])
def test_equals_a_solve_for_each_size(dtype, scale):
    K, labels = problem()
    K = (scale * K).astype(np.float32)
    found = nested.solve(K, labels, classes=3, sizes=SIZES, dtype=dtype)
    assert [part.train for part in found] == list(SIZES)
    for part in found:
        m = part.train
        alone = ridge.solve(K[:m, :m], labels[:m], classes=3, dtype=dtype)
        np.testing.assert_allclose(part.alpha * scale, alone.alpha * scale, rtol=1e-6, atol=1e-8)
        exact = np.linalg.solve(K[:m, :m].astype(float) / scale, np.eye(3)[labels[:m]] - 0.1)
        np.testing.assert_allclose(part.alpha * scale, exact, rtol=1e-6, atol=1e-8)
        assert (part.ridge, part.jitter, part.doubt) == (0, 0, None) and part.largest_residual < 1e-8


def test_the_ridge_is_that_of_the_whole():
    K, labels = problem()
    found = nested.solve(K, labels, classes=3, sizes=SIZES, ridge=0.2)
    absolute = 0.2 * np.trace(K) / len(K)
    own = []
    for part in found:
        m = part.train
        exact = np.linalg.solve(K[:m, :m] + absolute * np.eye(m), np.eye(3)[labels[:m]] - 0.1)
        np.testing.assert_allclose(part.alpha, exact, atol=1e-10)
        # With the ridge that the part reports.
        alone = ridge.solve(K[:m, :m], labels[:m], classes=3, ridge=part.ridge)
        np.testing.assert_allclose(part.alpha, alone.alpha, atol=1e-10)
        own.append(part.ridge)
    assert own[-1] == pytest.approx(0.2) and max(own) / min(own) > 1.1


def test_a_jitter_is_of_all_alike():
    K, labels = problem(duplicates=5)
    found = nested.solve(K, labels, classes=3, sizes=[20, 40])
    assert {part.jitter for part in found} == {1e-10} and not any(part.doubt for part in found)
    alone = ridge.solve(K[:20, :20], labels[:20], classes=3)
    assert alone.chosen.jitter == 0
    np.testing.assert_allclose(found[0].alpha, alone.alpha, atol=1e-6)


def test_reads_the_lower_triangle_and_leaves_the_gram_alone():
    K, labels = problem()
    lower = np.tril(K)
    kept = lower.copy()
    got = nested.solve(lower, labels, classes=3, sizes=[20])
    np.testing.assert_array_equal(lower, kept)
    np.testing.assert_array_equal(got[0].alpha, nested.solve(K, labels, classes=3, sizes=[20, 20])[0].alpha)


def test_what_cannot_be_solved_is_in_doubt(monkeypatch):
    K, labels = problem()
    monkeypatch.setattr(fit, "RESIDUAL", 1e-300)
    for part in nested.solve(K, labels, classes=3, sizes=[5, 40]):
        assert part.doubt is not None and part.doubt.startswith("not solved: residuals of up to")


@pytest.mark.parametrize("wrong", [[], [1], [0, 5], [41]])
def test_impossible_sizes_are_refused(wrong):
    K, labels = problem()
    with pytest.raises(UserError, match="is not possible: use numbers of training images from 2 to 40"):
        nested.solve(K, labels, classes=3, sizes=wrong)


def test_what_is_no_kernel_is_refused_as_by_a_solve():
    K, labels = problem()
    with pytest.raises(UserError, match="not positive definite"):
        nested.solve(K - 0.5 * np.diag(K.diagonal()), labels, classes=3, sizes=[5])
    with pytest.raises(UserError, match="must be n x n"):
        nested.solve(K[:5], labels, classes=3, sizes=[5])


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_from_black_images_alone_nothing_is_learned(ridge):
    K, labels = problem()
    K[:5], K[:, :5] = 0, 0
    with pytest.raises(UserError, match="first 4 training images are all 0.*use sizes from 6 up"):
        nested.solve(K, labels, classes=3, sizes=[4, 14], ridge=ridge)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = nested.solve(K, labels, classes=3, sizes=[6, 14], ridge=ridge)
    own = K.diagonal()
    assert [part.ridge for part in parts] == pytest.approx(
        [ridge * own.mean() / own[:m].mean() for m in (6, 14)]
    )


def test_default_sizes_halve():
    assert sizes(300, 10) == [37, 75, 150, 300]
    assert sizes(5, 10) == [5] and sizes(4, 2) == [4] and sizes(8, 2) == [4, 8]
