"""The targets to which classes are fitted."""

import numpy as np
from numpy.typing import DTypeLike


def shifted_one_hot(labels: np.ndarray, classes: int, dtype: DTypeLike = "float64") -> np.ndarray:
    """Labels (n,) -> one-hot minus 0.1, an array (n, classes): 0.9 for an image's class, -0.1 for others."""
    return np.eye(classes, dtype=dtype)[labels] - np.asarray(0.1, dtype)
