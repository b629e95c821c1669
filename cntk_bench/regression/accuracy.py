"""How uncertain an accuracy is because it was counted on so many images and no more."""

LEVEL = 0.05  # of the bound: it holds in all but this share of such counts


def standard_error(share: float, n: int) -> float:
    """The binomial standard error of a share of n independent images, in percentage points."""
    return 100 * (share * (1 - share) / n) ** 0.5


def bound(n: int) -> float:
    """The largest share of errors, in percent, that is compatible with none among n images.

    At larger ones, no error in n images has a probability below `LEVEL`: the one-sided interval of Clopper
    and Pearson, about 3 / n. The binomial standard error of such a count is 0, and says nothing.
    """
    return 100 * (1 - LEVEL ** (1 / n))
