"""Gradient flow against its differential equation, brute-force refits, and kernel regression."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from cntk_bench.errors import UserError
from cntk_bench.grams import direct
from cntk_bench.kernels.spec import Readout
from cntk_bench.regression import eigen, flow, prediction, ridge
from cntk_bench.regression.targets import shifted_one_hot


def problem(n=24, m=10, duplicates=0, seed=0):
    """K (n, n), targets (n, 3), K_test (m, n), labels; the last training images repeat the first."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n + m, 4))
    x[n - duplicates : n] = x[:duplicates]
    labels = rng.integers(0, 3, n)
    gram = 3.0 * np.exp(-0.4 * np.sqrt(((x[:, None] - x) ** 2).sum(-1)))
    return gram[:n, :n], shifted_one_hot(labels, 3), gram[n:, :n], labels


def integrated(K, y, time, r=0.0):
    """alpha at a time, by integrating alpha' = y - (K + r I) alpha."""
    A = K + r * np.eye(len(K))
    found = solve_ivp(
        lambda _, a: (y - A @ a.reshape(y.shape)).ravel(),
        (0, time),
        np.zeros(y.size),
        method="DOP853",
        rtol=1e-11,
        atol=1e-12,
    )
    return found.y[:, -1].reshape(y.shape)


class TestDecompose:
    def test_is_the_matrix(self):
        K, y, _, _ = problem()
        found = eigen.decompose(K)
        np.testing.assert_allclose((found.vectors * found.values) @ found.vectors.T, K, atol=1e-13)
        np.testing.assert_allclose(found.project(y), found.vectors.T @ y)
        assert (found.mean_diagonal, found.zeros) == (pytest.approx(3), 0)

    def test_reads_the_lower_triangle_alone(self):
        K, _, _, _ = problem()
        spoilt = np.tril(K) + np.triu(np.full(K.shape, np.nan), 1)
        np.testing.assert_array_equal(eigen.decompose(spoilt).values, eigen.decompose(K).values)
        assert np.isnan(spoilt[0, 1])
        eigen.decompose(spoilt, overwrite=True)  # in place: no copy is made, so the upper triangle changes
        assert not np.isnan(spoilt[0, 1])

    def test_eigenvalues_of_equal_images_are_zero(self):
        K, _, _, _ = problem(duplicates=5)
        found = eigen.decompose(K)
        assert found.zeros == 5 and (found.values[:5] == 0).all() and found.values[5] > 1e-3

    @pytest.mark.parametrize("shape", [(4, 5), (4,), (1, 1), (0, 0)])
    def test_other_shapes_are_refused(self, shape):
        with pytest.raises(UserError, match="it must be n x n, n >= 2"):
            eigen.decompose(np.ones(shape))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_is_not_finite_is_refused(self, value):
        K, _, _, _ = problem()
        K[7, 3] = value
        with pytest.raises(UserError, match=r"NaN or infinity \(first in row 7\)"):
            eigen.decompose(K)

    def test_what_is_no_kernel_is_refused(self):
        K, _, _, _ = problem()
        with pytest.raises(UserError, match="mean diagonal -3"):
            eigen.decompose(-K)
        K[0, 0] = -1e-3
        with pytest.raises(UserError, match="not positive semi-definite: an eigenvalue is -"):
            eigen.decompose(K)

    def test_the_rounding_of_stored_kernels_is_no_refusal(self):
        x = np.random.default_rng(0).standard_normal((200, 3))
        K = (x @ x.T).astype(np.float32).astype(np.float64)  # rank 3, except for rounding
        found = eigen.decompose(K)
        raw = np.linalg.eigvalsh(K)
        assert raw[0] < -1e-7 and found.values[0] == 0
        assert 0.05 * found.noise < -raw[0] < found.noise  # `noise` is the true size of the rounding errors

    def test_kernels_of_flat_images_are_refused_with_what_they_may_be(self):
        """CNTK-GAP of uniform images: relative errors of up to 1.6e-4, in a matrix of rank 1."""
        flat = np.linspace(0.4, 0.6, 50, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 8, 8), "f4")
        gap, v = direct.gram(flat, readouts=[Readout("ntk", "gap", 3), Readout("ntk", "v", 3)], backend="cpu")
        with pytest.raises(UserError, match="verify .*; if that is sound, it may be of nearly flat im"):
            eigen.decompose(gap)
        assert eigen.decompose(v).zeros < 50  # the remedy

    def test_too_many_images_are_refused(self, monkeypatch):
        monkeypatch.setattr(eigen, "MOST", 20)
        with pytest.raises(UserError, match="24 training images are too many to decompose: use 20 at most"):
            eigen.decompose(problem()[0])


class TestFlow:
    @pytest.mark.parametrize("r", [0.0, 0.2])
    @pytest.mark.parametrize("time", [0.01, 0.7, 5.0])
    def test_solves_its_differential_equation(self, time, r):
        K, y, K_test, _ = problem(duplicates=3)
        spectrum, alpha = eigen.decompose(K), integrated(K, y, time, r)
        np.testing.assert_allclose(
            K_test @ flow.coefficients(spectrum, y, time, r), K_test @ alpha, atol=1e-9
        )
        np.testing.assert_allclose(flow.trained(spectrum, y, time, r), K @ alpha, atol=1e-9)

    def test_begins_with_the_kernel_itself(self):
        K, y, K_test, _ = problem()
        got = K_test @ flow.coefficients(eigen.decompose(K), y, 1e-9)
        np.testing.assert_allclose(got, 1e-9 * K_test @ y, rtol=1e-6)
        assert not flow.coefficients(eigen.decompose(K), y, 0.0).any()

    @pytest.mark.parametrize("r", [0.0, 0.1])
    def test_ends_as_kernel_regression(self, r):
        K, y, K_test, labels = problem(40)
        expected = K_test @ ridge.solve(K, labels, classes=3, ridge=r / 3).alpha
        spectrum = eigen.decompose(K)
        for time in (1e6, np.inf):
            got = K_test @ flow.coefficients(spectrum, y, time, r)
            np.testing.assert_allclose(got, expected, atol=1e-11)

    def test_of_equal_images_ends_as_the_mean_of_their_targets(self):
        K, y, K_test, labels = problem(duplicates=5)
        spectrum = eigen.decompose(K)
        assert (y[:5] != y[-5:]).any()
        mean = y.copy()
        mean[:5] = mean[-5:] = (y[:5] + y[-5:]) / 2
        expected = K_test[:, :-5] @ np.linalg.solve(K[:-5, :-5], mean[:-5])
        for time in (1e8, np.inf):
            got = K_test @ flow.coefficients(spectrum, y, time)
            np.testing.assert_allclose(got, expected, atol=1e-9)
            np.testing.assert_allclose(flow.trained(spectrum, y, time), mean, atol=1e-9)
        # The same by kernel regression with jitter 1e-10, whose huge coefficients cancel up to rounding.
        alpha = ridge.solve(K, labels, classes=3).alpha
        rounding = 2 * np.finfo(float).eps * np.abs(alpha).max() * K.max()
        assert 1e-7 < rounding < 1e-5
        np.testing.assert_allclose(got, prediction.scored(alpha, K_test)[0], atol=rounding)

    def test_the_ridgeless_flow_of_a_linear_kernel_is_gradient_descent(self):
        """Gradient descent in steps of 1e-4 on the weights of a linear model, not on coefficients."""
        rng = np.random.default_rng(1)
        x, z, y = rng.standard_normal((12, 5)), rng.standard_normal((4, 5)), rng.standard_normal((12, 2))
        weights = np.zeros((5, 2))
        for _ in range(2000):
            weights -= 1e-4 * x.T @ (x @ weights - y)
        got = z @ x.T @ flow.coefficients(eigen.decompose(x @ x.T), y, 0.2)
        np.testing.assert_allclose(got, z @ weights, atol=2e-3)  # the error of Euler steps, of first order
        assert np.abs(got).max() > 0.1

    def test_times_span_the_spectrum(self):
        K, y, _, _ = problem()
        spectrum = eigen.decompose(K)
        found = flow.times(spectrum) / spectrum.mean_diagonal
        assert np.abs(flow.trained(spectrum, y, found[0])).max() < 0.1
        np.testing.assert_allclose(flow.trained(spectrum, y, found[-1]), y, atol=1e-4)
        np.testing.assert_allclose(np.diff(np.log10(found)), 0.25)

    @pytest.mark.parametrize(("time", "r"), [(-1.0, 0.0), (np.nan, 0.0), (1.0, -1.0), (1.0, np.inf)])
    def test_impossible_values_are_refused(self, time, r):
        K, y, _, _ = problem()
        with pytest.raises(UserError, match="is not possible"):
            flow.coefficients(eigen.decompose(K), y, time, r)


class TestLeaveOneOut:
    @pytest.mark.parametrize("duplicates", [0, 4])
    @pytest.mark.parametrize("r", [0.0, 0.3])
    def test_equals_training_without_each_image(self, r, duplicates):
        K, y, _, _ = problem(duplicates=duplicates)
        spectrum = eigen.decompose(K)
        for time in (1e-3, 0.1, 1.0, 30.0, 1e3):
            expected = np.empty(y.shape)
            for i in range(len(y)):
                others = np.delete(np.arange(len(y)), i)
                without = eigen.decompose(K[np.ix_(others, others)])
                alpha = flow.coefficients(without, y[others], time, r)
                expected[i] = y[i] - K[i, others] @ alpha
            np.testing.assert_allclose(flow.left_out(spectrum, y, time, r), expected, atol=1e-11)

    def test_equals_the_differential_equation_without_an_image(self):
        """The expected value is found without eigenvalues, unlike the one under test."""
        K, y, _, _ = problem(12)
        alpha = integrated(K[1:, 1:], y[1:], 2.0)
        got = flow.left_out(eigen.decompose(K), y, 2.0)[0]
        np.testing.assert_allclose(got, y[0] - K[0, 1:] @ alpha, atol=1e-9)

    def test_the_smoothers_shortcut_is_another_thing(self):
        K, y, _, _ = problem()
        spectrum, time = eigen.decompose(K), 1.0
        smoother = (spectrum.vectors * (spectrum.values * flow.weights(spectrum, time))) @ spectrum.vectors.T
        shortcut = (y - smoother @ y) / (1 - smoother.diagonal())[:, None]
        exact = flow.left_out(spectrum, y, time)
        assert np.abs(shortcut - exact).max() > 0.01

    def test_ends_as_that_of_kernel_regression(self):
        K, y, _, labels = problem(40)
        chosen = ridge.solve(K, labels, classes=3).chosen
        got = flow.left_out(eigen.decompose(K), y, 1e7)
        assert (got**2).mean() == pytest.approx(chosen.loo_error, rel=1e-6)

    def test_blocks_of_rows_change_nothing(self, monkeypatch):
        K, y, _, _ = problem()
        whole = flow.left_out(eigen.decompose(K), y, 1.0)
        monkeypatch.setattr(flow, "ROWS", 7)
        np.testing.assert_allclose(flow.left_out(eigen.decompose(K), y, 1.0), whole, atol=1e-14)

    @pytest.mark.parametrize("time", [0.0, np.inf])
    def test_needs_a_time_within(self, time):
        K, y, _, _ = problem()
        with pytest.raises(UserError, match="positive and finite"):
            flow.left_out(eigen.decompose(K), y, time)
