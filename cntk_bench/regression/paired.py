"""Whether one classifier is better than another on the same test images: paired tests and intervals.

Two columns are right and wrong on mostly the same images, so the errors of their accuracies are correlated,
and only images on which exactly one is right tell them apart. Of m images, b are classified correctly by the
first alone and c by the second alone:

    difference       (b - c) / m
    standard error   sqrt(b + c - (b - c)^2 / m) / m
    exact McNemar    under the hypothesis that both are equally accurate, b ~ Binomial(b + c, 1/2)
    interval         with p = (b + 1) / (m + 2) and q = (c + 1) / (m + 2):
                     p - q +- z sqrt((p + q - (p - q)^2) / (m + 2))

With R draws of training images, there is a difference d_r for each, over the same test images, and Student's
t with R - 1 degrees of freedom for their mean. The draws share no training image, so that given the test
images their differences are independent; the interval does not include how other test images would differ.

If all images, or all draws, have the same difference, other than 0, their deviation of 0 does not say how
much others would differ: the standard error is then unknown, as it is for a single image.

Sources: McNemar, Psychometrika 12 (1947), 153; the interval: Bonett and Price, British Journal of
Mathematical and Statistical Psychology 65 (2012), 479; Holm, Scandinavian Journal of Statistics 6 (1979), 65.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cntk_bench.errors import UserError

LEVEL = 0.05  # of the tests; intervals are of 1 - LEVEL
MCNEMAR, DRAWS, IMAGES, NONE = "McNemar", "t, draws", "t, images", "none"


@dataclass(frozen=True)
class Paired:
    """Two classifiers on the same m test images; differences, errors and intervals in percentage points.

    images : m.
    difference : accuracy of the first less that of the second.
    error : its standard error, over what `test` says: images, or draws; None where it is unknown.
    low, high : interval of 95 %; None where nothing varies.
    p : two-sided, of the hypothesis that both are equally accurate; None where nothing can be tested.
    test : MCNEMAR, DRAWS, IMAGES or NONE.
    only_first, only_second : b and c; None where several predictions of each image are averaged.
    draws : R; None where the test is not over draws.
    error_images : standard error over images alone, whatever `test` is; None where it is unknown.
    """

    images: int
    difference: float
    error: float | None
    low: float | None
    high: float | None
    p: float | None
    test: str
    only_first: int | None = None
    only_second: int | None = None
    draws: int | None = None
    error_images: float | None = None


def mcnemar(first: np.ndarray, second: np.ndarray) -> Paired:
    """McNemar's exact test of two classifiers with one prediction per image each.

    Parameters
    ----------
    first, second : array (m,), bool
        Whether each image is classified correctly.

    Raises
    ------
    UserError
        If the shapes differ, there is no image, or a value is neither true nor false.
    """
    from scipy.stats import binomtest, norm

    first, second = (shares.astype(bool) for shares in _checked(first, second, 1, whole=True))
    m = len(first)
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0
    one, other = (b + 1) / (m + 2), (c + 1) / (m + 2)
    half = float(norm.isf(LEVEL / 2)) * ((one + other - (one - other) ** 2) / (m + 2)) ** 0.5
    low, high = max(-1.0, one - other - half), min(1.0, one - other + half)
    known = m > 1 and m not in (b, c)
    error = 100 * (b + c - (b - c) ** 2 / m) ** 0.5 / m if known else None
    return Paired(
        m, 100 * (b - c) / m, error, 100 * low, 100 * high, p, MCNEMAR, b, c, None, error
    )  # fmt: skip


def over_images(first: np.ndarray, second: np.ndarray) -> Paired:
    """Student's t over images, for classifiers with several predictions of each image, which are averaged.

    It is a test of these predictions, such as those of the networks trained, not of what others would give.

    Parameters
    ----------
    first, second : array (m,), float
        The share of the predictions of each image that are correct.

    Raises
    ------
    UserError
        If the shapes differ, there is no image, or a share is not within 0 to 1.
    """
    first, second = _checked(first, second, 1)
    mean, error, low, high, p = _student(100 * (first - second))
    return Paired(len(first), mean, error, low, high, p, IMAGES, error_images=error)


def over_draws(first: np.ndarray, second: np.ndarray) -> Paired:
    """Student's t over draws of the training images, R of them.

    Parameters
    ----------
    first, second : array (R, m), float or bool
        The share of correct predictions of each image, for each draw; draws in the same order.

    Raises
    ------
    UserError
        As `over_images`; or if there is only one draw.
    """
    first, second = _checked(first, second, 2)
    if len(first) < 2:
        raise UserError("one draw has no deviation between draws: give at least 2")
    each = 100 * (first - second)
    mean, error, low, high, p = _student(each.mean(1))
    return Paired(
        first.shape[1], mean, error, low, high, p, DRAWS, draws=len(first),
        error_images=_error(each.mean(0), 0),
    )  # fmt: skip


def _error(values: np.ndarray, ddof: int) -> float | None:
    """The standard error of the mean of some values.

    0 if all are 0; None if they are all the same otherwise, or if there is one.
    """
    n, mean = len(values), float(values.mean())
    error = float(values.std(ddof=ddof) / n**0.5) if n > 1 else 0.0
    if error > 1e-12 * abs(mean):
        return error
    return 0.0 if n > 1 and mean == 0 else None


def _student(values: np.ndarray) -> tuple[float, float | None, float | None, float | None, float | None]:
    """Mean, its standard error, interval and p of some values.

    If they do not vary, there is no interval, and p is 1 if all of several are 0, else None.
    """
    from scipy.stats import t as student

    n, mean, error = len(values), float(values.mean()), _error(values, 1)
    if not error:
        return mean, error, None, None, None if error is None else 1.0
    half = float(student.isf(LEVEL / 2, n - 1)) * error
    return mean, error, mean - half, mean + half, float(2 * student.sf(abs(mean) / error, n - 1))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p values of several tests by Holm's method; UserError if one is not within 0 to 1.

    If all hypotheses hold, an adjusted value below x occurs in at most a share x of all studies. Values of
    None belong to no test and stay None.
    """
    wrong = [p for p in values if p is not None and not 0 <= p <= 1]
    if wrong:
        raise UserError(f"{wrong[0]:g} is no p value: it is within 0 to 1")
    tested = sorted((p, place) for place, p in enumerate(values) if p is not None)
    found: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        found[place] = largest
    return found


def _checked(
    first: np.ndarray, second: np.ndarray, axes: int, whole: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of correct predictions, float64; where `whole`, each 0 or 1."""
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != axes or not first.size:
        raise UserError(f"predictions of shapes {first.shape} and {second.shape} cannot be paired")
    if first.dtype.kind not in "biuf" or second.dtype.kind not in "biuf":
        raise UserError(
            f"predictions of types {first.dtype} and {second.dtype} cannot be paired: say whether, or "
            "to what share, each is correct"
        )
    first, second = first.astype(float), second.astype(float)
    for values in (first, second):
        fine = (values == 0) | (values == 1) if whole else (values >= 0) & (values <= 1)
        if not fine.all():
            needed = "true or false (1 or 0)" if whole else "a share within 0 to 1"
            raise UserError(
                f"{values[~fine][0]:g} does not say whether a prediction is correct: give {needed}"
            )
    return first, second
