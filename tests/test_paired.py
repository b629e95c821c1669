"""Paired tests: textbook numbers, brute force, and error rates where there is no difference."""

from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy import stats

from cntk_bench.errors import UserError
from cntk_bench.regression import paired


def counted(both, b, c, neither):
    """Two classifiers; the numbers say on how many images both, only one, or neither is right."""
    first = np.repeat([True, True, False, False], [both, b, c, neither])
    second = np.repeat([True, False, True, False], [both, b, c, neither])
    return first, second


def exact(b, c):
    """The two-sided p of Binomial(b + c, 1/2), in exact integers."""
    n = b + c
    return float(min(Fraction(1), Fraction(2 * sum(comb(n, k) for k in range(min(b, c) + 1)), 2**n)))


def test_the_textbook_example_of_mcnemar():
    """Approval of a prime minister, asked twice: Agresti, "Categorical Data Analysis", chapter 10.

    794 approve both times, 150 only the first, 86 only the second, 570 never: the difference is 0.04, its
    standard error 0.0095, and z^2 = (150 - 86)^2 / (150 + 86) = 17.36.
    """
    found = paired.mcnemar(*counted(794, 150, 86, 570))
    assert (found.images, found.only_first, found.only_second) == (1600, 150, 86)
    assert found.difference == pytest.approx(4.0) and found.error == pytest.approx(0.95, abs=0.005)
    assert (found.low, found.high) == (pytest.approx(2.1, abs=0.05), pytest.approx(5.9, abs=0.05))
    assert found.p == pytest.approx(exact(150, 86), rel=1e-9)
    assert found.p == pytest.approx(stats.chi2.sf(17.36, 1), rel=0.25)  # the limit for large counts


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 5), (3, 7), (6, 6), (9, 2)])
def test_mcnemar_is_the_permutation_test(b, c):
    """If they are equal, a coin decides which one is right alone, image by image: all 2^(b + c) outcomes."""
    signs = np.array(list(product((-1, 1), repeat=b + c))).sum(1) if b + c else np.zeros(1)
    found = paired.mcnemar(*counted(11, b, c, 4))
    assert found.p == pytest.approx(float((abs(signs) >= abs(b - c)).mean()))
    assert found.p == pytest.approx(exact(b, c))


def test_the_standard_error_is_that_of_the_mean_of_differences_image_by_image():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 300)) < [[0.8], [0.7]]
    found, each = paired.mcnemar(first, second), 100 * (first.astype(float) - second)
    assert found.error == pytest.approx(each.std() / 300**0.5)
    assert found.error_images == found.error and found.difference == pytest.approx(each.mean())


def simulated(rng, m, hardness=2.0):
    """Two equally accurate classifiers; some images are hard for both."""
    p = 1 / (1 + np.exp(-rng.normal(1, hardness, m)))
    return rng.random((2, m)) < p


def test_mcnemar_errs_no_more_often_than_it_says():
    rng, count = np.random.default_rng(1), 600
    wrong = sum(paired.mcnemar(*simulated(rng, 80)).p < 0.05 for _ in range(count))
    assert wrong / count < 0.05 + 3 * (0.05 * 0.95 / count) ** 0.5  # up to 3 standard errors of the share
    assert wrong > 0  # it errs at all


def test_mcnemar_finds_what_is_there():
    rng = np.random.default_rng(2)
    found = [paired.mcnemar(*(rng.random((2, 400)) < [[0.9], [0.7]])).p < 0.05 for _ in range(100)]
    assert np.mean(found) > 0.95


@pytest.mark.parametrize(("p", "q"), [(0.2, 0.1), (0.05, 0.05), (0.3, 0.02)])
def test_the_interval_covers_the_true_difference(p, q):
    """Computed exactly: the probability of all counts (b, c) on 40 images whose interval contains p - q.

    The adjusted interval covers more than 95 % where few images differ, elsewhere 95 % within 2 %.
    """
    m, covered, total = 40, 0.0, 0.0
    for b in range(m + 1):
        for c in range(m + 1 - b):
            weight = stats.multinomial.pmf([b, c, m - b - c], m, [p, q, 1 - p - q])
            if weight > 1e-7:
                found = paired.mcnemar(*counted(0, b, c, m - b - c))
                covered += weight * (found.low <= 100 * (p - q) <= found.high)
                total += weight
    assert total > 0.999 and 0.93 <= covered / total <= 1


def test_over_draws_is_students_t_of_paired_accuracies():
    rng = np.random.default_rng(3)
    first, second = rng.random((2, 6, 90)) < np.array([0.85, 0.8])[:, None, None]
    found = paired.over_draws(first, second)
    expected = stats.ttest_rel(100 * first.mean(1), 100 * second.mean(1))
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue) and found.draws == 6 and found.images == 90
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.difference == pytest.approx(100 * (first.mean() - second.mean()))
    each = 100 * (first.astype(float) - second).mean(0)
    assert found.error_images == pytest.approx(each.std() / 90**0.5)


def test_over_draws_errs_as_often_as_it_says():
    """Draws share the test images, some of which are hard; given the images, draws are independent."""
    rng, count, wrong = np.random.default_rng(4), 500, 0
    hard = rng.normal(1, 1.5, 200)
    for _ in range(count):
        luck = rng.normal(0, 0.5, (2, 5, 1))  # of each draw, for each classifier
        right = rng.random((2, 5, 200)) < 1 / (1 + np.exp(-(hard + luck)))
        wrong += paired.over_draws(*right).p < 0.05
    assert abs(wrong / count - 0.05) < 3.5 * (0.05 * 0.95 / count) ** 0.5


def test_draws_that_do_not_vary_have_no_p_and_no_interval():
    right = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], bool)
    other = np.array([[1, 0, 0, 0], [0, 1, 0, 0]], bool)
    found = paired.over_draws(right, other)
    assert (found.difference, found.p, found.low, found.high) == (25.0, None, None, None)
    assert found.error is None and found.error_images > 0
    same = paired.over_draws(right, right)
    assert (same.p, same.error, same.error_images) == (1.0, 0.0, 0.0)


def test_one_image_or_one_difference_has_no_error():
    for found in (
        paired.over_images(np.ones(1), np.zeros(1)),
        paired.over_images(np.ones(1), np.ones(1)),
        paired.over_images(np.ones(5), np.full(5, 0.4)),
        paired.mcnemar(np.ones(1, bool), np.ones(1, bool)),
        paired.mcnemar(np.zeros(5, bool), np.ones(5, bool)),
    ):
        assert found.error is found.error_images is None
        assert (found.p is None) == (found.test == paired.IMAGES)
    found = paired.over_draws(np.array([[1.0], [0.5], [0.5]]), np.zeros((3, 1)))
    assert found.error > 0 and found.error_images is None
    assert paired.mcnemar(np.ones(5, bool), np.ones(5, bool)).error == 0


def test_over_images_is_students_t_of_the_images():
    rng = np.random.default_rng(5)
    first, second = rng.integers(0, 4, (2, 70)) / 3
    found, expected = paired.over_images(first, second), stats.ttest_rel(100 * first, 100 * second)
    assert found.p == pytest.approx(expected.pvalue) and found.only_first is None
    assert found.error == pytest.approx(100 * (first - second).std(ddof=1) / 70**0.5)


def test_holms_correction():
    """By hand: 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04, which is raised to the one before."""
    assert paired.holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert paired.holm([0.7, 0.8]) == [1.0, 1.0] and paired.holm([None]) == [None] and paired.holm([]) == []
    rng, count = np.random.default_rng(6), 4000
    some = sum(min(paired.holm(list(p))) < 0.05 for p in rng.random((count, 8)))
    assert abs(some / count - 0.05) < 4 * (0.05 * 0.95 / count) ** 0.5  # 1 - (1 - 0.05 / 8)^8 is 0.0489


@pytest.mark.parametrize("wrong", [-1, 2, np.nan])
def test_what_is_no_p_value(wrong):
    with pytest.raises(UserError, match="is no p value"):
        paired.holm([0.01, wrong, None])


def test_zeros_and_ones_are_false_and_true():
    first, second = counted(5, 3, 4, 2)
    assert paired.mcnemar(first.astype(int), second.astype(float)) == paired.mcnemar(first, second)


@pytest.mark.parametrize(
    ("test", "first", "second", "reason"),
    [
        (paired.mcnemar, np.ones(3, bool), np.ones(4, bool), "cannot be paired"),
        (paired.mcnemar, np.ones(0, bool), np.ones(0, bool), "cannot be paired"),
        (paired.over_images, np.ones((2, 3)), np.ones((2, 3)), "cannot be paired"),
        (paired.over_draws, np.ones((1, 3)), np.ones((1, 3)), "at least 2"),
        (paired.mcnemar, np.array([3, 0, 7]), np.array([3, 1, 2]), "3 does not say whether .*: give true or"),
        (paired.mcnemar, np.array([0.5, 1]), np.array([0, 1]), "0.5 does not say whether"),
        (paired.mcnemar, np.array(["a", "b"]), np.array(["a", "c"]), "of types <U1 and <U1 cannot be paired"),
        (paired.over_images, np.array([np.nan, 1]), np.array([0, 1]), "nan does not say .*: give a share"),
        (paired.over_draws, np.ones((2, 3)), np.full((2, 3), 70.0), "70 does not say .*: give a share"),
    ],
)
def test_what_cannot_be_paired(test, first, second, reason):
    with pytest.raises(UserError, match=reason):
        test(first, second)
