"""What is said of predictions once they are compared with labels: accuracy, its error, and doubt."""

import numpy as np


def accuracy(right: np.ndarray) -> tuple[float, float]:
    """Mean of `right` (..., m), bool, in percent, and its standard error.

    The error is that of a share of m independent images.
    """
    share = float(right.mean())
    return 100 * share, 100 * (share * (1 - share) / right.shape[-1]) ** 0.5


def doubt(undecided: float, error: float, n: int) -> str | None:
    """Why the accuracy over n test images cannot be trusted, if it cannot.

    Parameters
    ----------
    undecided : float
        How many predictions the errors of stored kernels could change (`regression.prediction`).
    error : float
        Standard error of the accuracy, in percent.
    n : int
    """
    share = 100 * undecided / n
    if share <= max(2 * error, 100 / n):
        return None
    return f"the errors of stored kernels alone could change the class of {share:.3g} % of the test images"
