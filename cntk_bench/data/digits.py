"""The handwritten digits that ship with scikit-learn."""

import numpy as np

from cntk_bench.data.order import balanced_order

N_TEST = 360


def read(path: None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Load the 1,797 images (8x8, one channel, grey levels 0, 1/16 .. 1) with a fixed split.

    scikit-learn gives no split. Here the test set is the first 360 images of the balanced order
    of seed 0 (36 per class), the training set the other 1,437 (138 to 147 per class), whatever
    the run's seed.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998 (its test part).

    Parameters
    ----------
    path : None
        Unused: the images come with the library.

    Returns
    -------
    x_train, y_train, x_test, y_test : arrays (n, 8, 8) float64 and (n,) int64
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    x, y = source.images / 16, source.target.astype(np.int64)
    order = balanced_order(y, seed=0, stream=2)
    test, train = np.sort(order[:N_TEST]), np.sort(order[N_TEST:])
    return x[train], y[train], x[test], y[test]
