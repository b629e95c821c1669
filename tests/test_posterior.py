"""Gaussian process posteriors against dense linear algebra, scikit-learn and Monte Carlo."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from cntk_bench.errors import UserError
from cntk_bench.grams import direct
from cntk_bench.kernels.spec import Readout
from cntk_bench.regression import calibration, eigen, posterior
from cntk_bench.regression.sensitivity import KERNEL_ERROR


def problem(n=40, m=15, seed=0):
    """Points, targets (n, 2), and RBF kernels with mean diagonal 4: K, K_test, and the test points' own."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n + m, 3))
    y = np.stack([np.sin(x[:n, 0]), x[:n, 1] * x[:n, 2]], axis=1) + 0.1 * rng.standard_normal((n, 2))
    K = 4 * np.exp(-((x[:, None] - x) ** 2).sum(-1) / 2)
    return x, y, K[:n, :n], K[n:, :n], K.diagonal()[n:]


def found(ridge=0.05):
    _, y, K, K_test, own = problem()
    spectrum = eigen.decompose(K)
    assumed = posterior.prior(spectrum, y, ridge)
    alpha = posterior.coefficients(spectrum, y, ridge)
    return assumed, posterior.posterior(spectrum, assumed, alpha, K_test, own)


class TestPosterior:
    def test_equals_scikit_learns(self):
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel

        x, y, _, _, _ = problem()
        assumed, got = found()
        kernel = ConstantKernel(4 * assumed.scale) * RBF(1.0)
        likelihood = 0.0
        for c in range(2):
            model = GaussianProcessRegressor(kernel, alpha=assumed.noise, optimizer=None).fit(x[:40], y[:, c])
            mean, deviation = model.predict(x[40:], return_std=True)
            np.testing.assert_allclose(got.mean[:, c], mean, atol=1e-10)
            np.testing.assert_allclose(got.variance, deviation**2, rtol=1e-6)
            likelihood += model.log_marginal_likelihood_value_
        assert assumed.log_likelihood == pytest.approx(likelihood, rel=1e-10)
        assert assumed.noise == pytest.approx(assumed.scale * 0.05 * 4) and got.negative == 0

    def test_the_likelihood_is_that_of_a_normal_variable(self):
        _, y, K, _, _ = problem()
        assumed = posterior.prior(eigen.decompose(K), y, 0.05)
        for factor in (1.0, 0.9, 1.1):
            covariance = factor * assumed.scale * (K + 0.05 * 4 * np.eye(40))
            value = sum(multivariate_normal(cov=covariance).logpdf(y[:, c]) for c in range(2))
            if factor == 1:
                assert assumed.log_likelihood == pytest.approx(value, rel=1e-10)
            else:  # the scale has the largest likelihood, so any other has less
                assert value < assumed.log_likelihood

    def test_variances_come_without_rounding_of_their_own(self):
        _, y, K, K_test, own = problem()
        assumed, got = found()
        exact = own - (K_test * np.linalg.solve(K + 0.2 * np.eye(40), K_test.T).T).sum(axis=1)
        np.testing.assert_allclose(got.variance, assumed.scale * exact, rtol=1e-8)

    def test_the_error_of_variances_is_what_stored_kernels_make(self):
        """Monte Carlo: kernels get independent relative errors with standard deviation KERNEL_ERROR."""
        _, y, K, K_test, own = problem(30)
        own = own[:15]
        spectrum = eigen.decompose(K)
        assumed = posterior.prior(spectrum, y, 1e-4)
        alpha = posterior.coefficients(spectrum, y, 1e-4)
        got = posterior.posterior(spectrum, assumed, alpha, K_test, own)
        rng, A, draws = np.random.default_rng(0), K + 4e-4 * np.eye(30), []

        def variance(disturbed, test, itself):
            return itself - (test * np.linalg.solve(disturbed, test.T).T).sum(axis=1)

        for _ in range(200):
            noise = np.tril(rng.standard_normal(K.shape))
            noise = (noise + np.tril(noise, -1).T) * KERNEL_ERROR
            test, itself = (v * (1 + KERNEL_ERROR * rng.standard_normal(v.shape)) for v in (K_test, own))
            draws.append(variance(A + K * noise, test, itself))
        measured = assumed.scale * np.std(draws, axis=0)
        ratio = got.error / measured
        assert (0.5 < ratio).all() and (ratio < 6).all()  # never too small, but its last term is only a bound

    def test_a_training_image_without_noise_has_the_variance_of_its_error(self):
        _, y, K, _, _ = problem()
        spectrum = eigen.decompose(K)
        assumed = posterior.prior(spectrum, y, 0.0)
        got = posterior.posterior(
            spectrum, assumed, posterior.coefficients(spectrum, y, 0.0), K[:5], K.diagonal()[:5]
        )
        np.testing.assert_array_equal(got.variance, got.error)
        np.testing.assert_allclose(got.mean, y[:5], atol=1e-9)

    def test_negative_variances_are_counted(self):
        _, y, K, K_test, own = problem()
        spectrum = eigen.decompose(K)
        assumed = posterior.prior(spectrum, y, 0.05)
        own = own.copy()
        own[:3] = 0.1  # not a kernel, in which |K_*i|^2 is at most K_** K_ii
        K_test[:3] = K[:3]
        got = posterior.posterior(spectrum, assumed, np.zeros((40, 2)), K_test, own)
        assert got.negative == 3 and (got.variance > 0).all()

    def test_the_likeliest_ridge_is_that_of_a_fine_grid(self):
        _, y, K, _, _ = problem()
        spectrum = eigen.decompose(K)
        best = posterior.likeliest(spectrum, y)
        grid = np.logspace(-7, 3, 2000)
        values = [posterior.prior(spectrum, y, r).log_likelihood for r in grid]
        assert best == pytest.approx(grid[int(np.argmax(values))], rel=0.02)
        assert posterior.prior(spectrum, y, best).log_likelihood >= max(values) - 1e-6
        assert 1e-4 < best < 1  # inside the range, as the targets are noisy

    def test_without_noise_none_is_the_likeliest(self):
        _, _, K, _, _ = problem()
        spectrum = eigen.decompose(K + 4 * np.eye(40))
        draw = np.linalg.cholesky(K + 4 * np.eye(40)) @ np.random.default_rng(3).standard_normal((40, 300))
        assert posterior.likeliest(spectrum, draw) < 0.05
        smooth = (spectrum.vectors * spectrum.values) @ np.random.default_rng(0).standard_normal((40, 20))
        assert posterior.likeliest(spectrum, smooth) == 0

    def test_the_end_of_the_ridges_that_are_tried_is_told(self):
        _, y, K, _, _ = problem()
        spectrum = eigen.decompose(K)
        assert posterior.edge(spectrum, posterior.likeliest(spectrum, y)) is None
        noise = spectrum.vectors[:, :1]  # the targets that the kernel finds least likely
        assert posterior.edge(spectrum, posterior.likeliest(spectrum, noise)) == "largest"
        order = [0, 0, *range(1, 39)]  # a repeated point makes it singular, so 0 is not tried
        twice = eigen.decompose(K[np.ix_(order, order)])
        smooth = twice.vectors[:, -30:] * np.sqrt(twice.values[-30:])
        assert posterior.edge(twice, posterior.likeliest(twice, smooth)) == "smallest"
        assert posterior.edge(spectrum, 0.0) is None

    @pytest.mark.parametrize("seed", range(6))
    def test_the_smallest_ridge_that_is_tried_is_not_doubted_by_rounding(self, seed):
        """It makes the smallest eigenvalue equal to the errors of stored kernels, whatever the last bit."""
        rng = np.random.default_rng(seed)
        for unit in rng.uniform(0.1, 10, 20):
            _, _, K, _, _ = problem(seed=seed)
            order = [0, 0, *range(1, 39)]
            twice = eigen.decompose(unit * K[np.ix_(order, order)])
            smooth = twice.vectors[:, -30:] * np.sqrt(twice.values[-30:])
            ridge = posterior.likeliest(twice, smooth)
            assert posterior.edge(twice, ridge) == "smallest"
            assert posterior.prior(twice, smooth, ridge).doubt is None
            assert posterior.prior(twice, smooth, 0.999 * ridge).doubt is not None

    def test_of_equal_images_a_posterior_needs_a_ridge(self):
        _, y, K, _, _ = problem()
        order = [0, 0, *range(1, 39)]
        spectrum = eigen.decompose(K[np.ix_(order, order)])
        with pytest.raises(UserError, match="is singular .equal images.*use a ridge above 0"):
            posterior.prior(spectrum, y, 0.0)
        assert posterior.likeliest(spectrum, y) > 0
        assert posterior.prior(spectrum, y, 0.1).doubt is None
        doubt = posterior.prior(spectrum, y, 1e-9).doubt
        assert doubt is not None and "within the errors of stored kernels" in doubt

    def test_what_is_not_finite_is_refused(self):
        _, y, K, K_test, own = problem()
        spectrum = eigen.decompose(K)
        assumed = posterior.prior(spectrum, y, 0.1)
        K_test[3, 4] = np.nan
        with pytest.raises(UserError, match="NaN or infinity"):
            posterior.posterior(spectrum, assumed, np.zeros((40, 2)), K_test, own)
        with pytest.raises(UserError, match="ridge -1 is not possible"):
            posterior.prior(spectrum, y, -1)


class TestCalibration:
    def test_probabilities_are_those_of_monte_carlo(self):
        rng = np.random.default_rng(0)
        mean, variance = rng.standard_normal((6, 4)), rng.uniform(0.01, 4, 6)
        got = calibration.probabilities(mean, variance)
        draws = 200_000
        samples = mean[:, None] + np.sqrt(variance)[:, None, None] * rng.standard_normal((6, draws, 4))
        shares = np.stack([np.bincount(row.argmax(axis=1), minlength=4) / draws for row in samples])
        error = np.sqrt(got * (1 - got) / draws)
        assert (np.abs(got - shares) <= 5 * error + 1e-9).all()
        np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-13)

    def test_of_two_classes_they_have_a_closed_form(self):
        mean, variance = np.array([[0.3, -0.2], [5.0, 0.0], [1.0, 1.0]]), np.array([0.5, 1e-12, 2.0])
        expected = norm.cdf((mean[:, 0] - mean[:, 1]) / np.sqrt(2 * variance))
        got = calibration.probabilities(mean, variance)
        np.testing.assert_allclose(got[:, 0], expected, atol=1e-13)
        assert got[1].tolist() == pytest.approx([1, 0]) and got[2].tolist() == pytest.approx([0.5, 0.5])

    @pytest.mark.filterwarnings("error")
    def test_without_variance_they_are_those_of_the_limit(self):
        """The functions of a black image are 0: its classes tie."""
        mean = np.array([[0.0, 0.0, 0.0, 0.0], [0.3, -0.1, 0.3, 0.2], [0.1, 0.2, 0.0, 0.2 - 1e-9]])
        expected = np.array([[0.25] * 4, [0.5, 0, 0.5, 0], [0, 1, 0, 0]])
        for variance in (0.0, 1e-30):
            got = calibration.probabilities(mean, np.full(3, variance))
            np.testing.assert_allclose(got, expected, atol=1e-13)
        table, error = calibration.reliability(got, np.array([0, 2, 1]))
        assert sum(one["count"] for one in table) == 3 and np.isfinite(error)

    @pytest.mark.filterwarnings("error")
    def test_the_likelihood_without_variance(self):
        mean, y, variance = np.zeros((2, 2)), np.array([[0.9, -0.1], [0.0, 0.0]]), np.array([1.0, 0.0])
        assert calibration.negative_log_likelihood(mean, variance, y) == -np.inf  # y is certain, and right
        assert calibration.negative_log_likelihood(mean, variance[::-1], y) == np.inf

    def test_blocks_of_images_change_nothing(self, monkeypatch):
        mean, variance = np.random.default_rng(0).standard_normal((9, 3)), np.ones(9)
        whole = calibration.probabilities(mean, variance)
        monkeypatch.setattr(calibration, "ROWS", 4)
        np.testing.assert_array_equal(calibration.probabilities(mean, variance), whole)

    def test_likelihood_and_coverage_of_what_is_normal(self):
        rng = np.random.default_rng(0)
        mean, variance = rng.standard_normal((5000, 3)), rng.uniform(0.1, 2, 5000)
        y = mean + np.sqrt(variance)[:, None] * rng.standard_normal((5000, 3))
        for level in (0.5, 0.9, 0.95):
            error = np.sqrt(level * (1 - level) / y.size)
            assert abs(calibration.coverage(mean, variance, y, level) - level) < 4 * error
        expected = -norm.logpdf(y, mean, np.sqrt(variance)[:, None]).mean()
        assert calibration.negative_log_likelihood(mean, variance, y) == pytest.approx(expected)

    def test_reliability_by_hand(self):
        shown = np.array([[0.9, 0.1], [0.2, 0.8], [0.85, 0.15], [0.5, 0.5], [0.0, 1.0]])
        table, error = calibration.reliability(shown, np.array([0, 0, 0, 1, 1]), bins=4)
        assert [(one["low"], one["high"], one["count"]) for one in table] == [(0.25, 0.5, 1), (0.75, 1, 4)]
        assert table[1]["confidence"] == pytest.approx((0.9 + 0.8 + 0.85 + 1) / 4)
        assert (table[0]["accuracy"], table[1]["accuracy"]) == (0, 0.75)
        assert error == pytest.approx(0.2 * 0.5 + 0.8 * abs(0.75 - 0.8875))

    def test_what_is_calibrated_has_a_small_error(self):
        rng = np.random.default_rng(0)
        shown = rng.dirichlet([1, 1, 1], 20_000)
        labels = (rng.random(20_000)[:, None] > shown.cumsum(axis=1)).sum(axis=1)
        assert calibration.reliability(shown, labels)[1] < 0.02
        assert calibration.reliability(shown**4 / (shown**4).sum(1, keepdims=True), labels)[1] > 0.1


def test_the_diagonal_is_that_of_the_gram():
    x = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype(np.float32)
    readouts = (Readout("nngp", "v", 3), Readout("nngp", "gap", 4), Readout("ntk", "gap", 3))
    seen = []
    got = direct.diagonal(x, readouts=readouts, progress=lambda: seen.append(1))
    expected = np.einsum("rii->ri", direct.gram(x, readouts=readouts))
    np.testing.assert_array_equal(got, expected)
    assert len(seen) == 5
    with pytest.raises(UserError, match="readout 'nngp' is not possible: give a list of Readout objects"):
        direct.diagonal(x, readouts=["nngp"])
