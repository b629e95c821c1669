"""A support vector machine on a kernel matrix: C by cross-validation on the training images, then one test.

    python svc.py kernel.npz

The file has `train` (n, n), `test` (m, n), `y_train` and `y_test`: that of kernel_matrix.py, or of
`cntk-bench export --to FILE.npz`.
"""

import argparse

import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

CS = np.logspace(-2, 4, 13)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kernel", help="the .npz file")
    parser.add_argument("--folds", type=int, default=5)
    given = parser.parse_args()
    with np.load(given.kernel, allow_pickle=False) as found:
        K, across, y, y_test = (
            found[name] for name in ("train", "test", "y_train", "y_test")
        )
    unit = K.diagonal().mean()  # so that C means the same for every kernel
    folds = StratifiedKFold(given.folds, shuffle=True, random_state=0)
    search = GridSearchCV(SVC(kernel="precomputed"), {"C": CS}, cv=folds).fit(
        K / unit, y
    )
    right = search.predict(across / unit) == y_test
    error = (right.mean() * (1 - right.mean()) / len(right)) ** 0.5
    print(f"C = {search.best_params_['C']:.3g}, the best of {len(CS)}")
    print(
        f"cross-validated accuracy {100 * search.best_score_:.2f} %, the largest of {len(CS)}: too high"
    )
    print(
        f"test accuracy {100 * right.mean():.2f} %, standard error {100 * error:.2f}, {len(right)} images"
    )


if __name__ == "__main__":
    main()
