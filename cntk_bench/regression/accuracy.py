"""Statistical uncertainty of an accuracy measured on a finite number of images."""

LEVEL = 0.05  # of the bound: it fails in at most this share of such counts


def standard_error(share: float, n: int) -> float:
    """The binomial standard error of a share of n independent images, in percentage points."""
    return 100 * (share * (1 - share) / n) ** 0.5


def bound(n: int) -> float:
    """The largest error rate, in percent, that is compatible with no error among n images.

    At higher rates, the probability of no error in n images is below `LEVEL`: the one-sided interval of
    Clopper and Pearson, a share of about 3 / n. The binomial standard error of such a count is 0, and says
    nothing.
    """
    return 100 * (1 - LEVEL ** (1 / n))
