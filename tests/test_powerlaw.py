"""Power laws of learning curves against closed forms, SciPy, and synthetic curves with a known law."""

import numpy as np
import pytest
from learning_curves import SIZES, hits
from scipy.optimize import curve_fit

from cntk_bench.regression import powerlaw

LAWS = ((42.0, 0.16, 0.0), (30.0, 0.3, 10.0), (10.0, 0.9, 5.0))
SIGMA = np.linspace(0.5, 0.3, len(SIZES))


def law(n, a, b, c):
    return a * (n / SIZES[-1]) ** -b + c


@pytest.mark.parametrize("truth", LAWS)
def test_a_law_without_noise_is_found(truth):
    found = powerlaw.fit(SIZES, law(SIZES, *truth), SIGMA, True)
    assert [float(v) for v in (found.a, found.b, found.c)] == pytest.approx(truth, rel=1e-5, abs=1e-5)
    assert found.posed and found.error(50_000) == pytest.approx(law(50_000, *truth), rel=1e-6)


def test_two_sizes_have_a_line_in_closed_form():
    found = powerlaw.fit(SIZES[[0, -1]], np.array([60.0, 40.0]), SIGMA[[0, -1]], False)
    b = np.log(60 / 40) / np.log(SIZES[-1] / SIZES[0])
    assert (found.b, found.a, found.c) == (pytest.approx(b, rel=1e-6), pytest.approx(40, rel=1e-6), 0)


@pytest.mark.parametrize("floor", [True, False])
@pytest.mark.parametrize("truth", LAWS[1:])
def test_is_scipys_least_squares(truth, floor):
    errors = law(SIZES, *truth) + np.random.default_rng(1).normal(0, SIGMA)
    found = powerlaw.fit(SIZES, errors, SIGMA, floor)

    def model(n, a, b, c=0.0):
        return law(n, a, b, c)

    start = [30, 0.3, 5][: 2 + floor]
    expected, _ = curve_fit(
        model, SIZES, errors, start, SIGMA, bounds=(0, 100), xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    values = np.array([found.a, found.b, found.c])[: 2 + floor]
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert found.posed


def test_no_law_within_the_limits_fits_better():
    """For a curve that falls ever faster, the best floor would be negative, so it is 0."""
    errors = np.array([57.0, 54, 50, 45, 39, 32])
    found = powerlaw.fit(SIZES, errors, SIGMA, True)
    assert found.c == 0 and found.b == powerlaw.fit(SIZES, errors, SIGMA, False).b

    def misses(a, b, c):
        return (((errors - law(SIZES, a, b, c)) / SIGMA) ** 2).sum()

    least = misses(found.a, found.b, found.c)
    rng = np.random.default_rng(0)
    for a, b, c in zip(
        rng.uniform(20, 50, 3000), rng.uniform(0.02, 0.5, 3000), rng.uniform(0, 10, 3000), strict=True
    ):
        assert misses(a, b, c) >= least


def test_many_curves_are_fitted_each_by_itself():
    errors = law(SIZES, *LAWS[1]) + np.random.default_rng(2).normal(0, 1, (2, 3, len(SIZES)))
    found = powerlaw.fit(SIZES, errors, SIGMA, True)
    assert found.a.shape == (2, 3)
    for place in np.ndindex(2, 3):
        alone = powerlaw.fit(SIZES, errors[place], SIGMA, True)
        assert (found.a[place], found.b[place], found.c[place]) == (alone.a, alone.b, alone.c)


@pytest.mark.parametrize("floor", [True, False])
@pytest.mark.parametrize("errors", [[50.0] * 6, [40, 42, 44, 46, 48, 50], [0.0] * 6])
def test_what_does_not_fall_has_no_law(errors, floor):
    assert not powerlaw.fit(SIZES, np.array(errors, float), SIGMA, floor).posed


def test_what_falls_at_once_has_no_law():
    assert not powerlaw.fit(SIZES, np.array([60.0, 20, 20, 20, 20, 20]), SIGMA, True).posed


def test_resamples_vary_and_correlate_as_the_images_do():
    """The covariance of means over resampled images is the images' covariance divided by their number."""
    right = hits(np.random.default_rng(0), LAWS[1], 400)
    found = powerlaw.resampled(right[None], 4000)
    np.testing.assert_allclose(found.mean(axis=0), right.mean(axis=1), atol=0.003)
    expected = np.cov(right, ddof=0) / 400
    # A covariance of 4,000 samples has a standard deviation of at most sqrt(2 / 4000) = 2.2 % of variances.
    np.testing.assert_allclose(np.cov(found.T), expected, atol=0.1 * expected.diagonal().max())
    assert np.corrcoef(found.T)[0, 1] > 0.3
    np.testing.assert_array_equal(found[:5], powerlaw.resampled(right[None], 4000)[:5])


@pytest.mark.parametrize("draws", [2, 5])
def test_resampled_draws_vary_as_their_mean(draws):
    """With draws all right or all wrong, their mean has variance s^2 / r, where s^2 divides by r - 1."""
    whole = np.arange(draws) % 2 == 1
    found = powerlaw.resampled(np.broadcast_to(whole[:, None, None], (draws, 2, 100)), 4000)
    assert np.var(found[:, 0]) == pytest.approx(whole.var(ddof=1) / draws, rel=0.1)


def test_errors_cover_the_truth():
    """For curves of correlated test images, the law at 50,000 is usually within two standard errors."""
    rng, truth, images, curves = np.random.default_rng(3), LAWS[1], 2000, 60
    exact, missed, errors = law(50_000, *truth), [], []
    for seed in range(curves):
        right = hits(rng, truth, images)
        error = 100 * (1 - right.mean(axis=1))
        sigma = (error * (100 - error) / images) ** 0.5
        resampled = 100 * (1 - powerlaw.resampled(right[None], 200, seed))
        errors.append(powerlaw.fit(SIZES, resampled, sigma, True).error(50_000).std())
        missed.append(powerlaw.fit(SIZES, error, sigma, True).error(50_000) - exact)
    inside = (np.abs(missed) < 2 * np.array(errors)).sum()
    assert inside >= 0.85 * curves  # 95 % are expected, with a standard deviation of 2.8 %
    assert 0.75 < np.mean(errors) / np.std(missed) < 1.33  # nor are the errors too large


def test_a_parabola_is_that_of_the_logarithms():
    logs = np.log(SIZES / SIZES[-1])
    errors = np.exp(-0.02 * logs**2 - 0.2 * logs + 3.5)
    assert powerlaw.parabola(SIZES, errors, SIGMA) == pytest.approx((-0.02, -0.2, 3.5), rel=1e-9)
    rough = errors + np.random.default_rng(2).normal(0, SIGMA)
    (found, *_), _ = curve_fit(lambda x, *c: np.polyval(c, x), logs, np.log(rough), [0, 0, 3], SIGMA / rough)
    assert powerlaw.parabola(SIZES, rough, SIGMA)[0] == pytest.approx(found, rel=1e-5)
