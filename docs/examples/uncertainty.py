"""Predictions with their uncertainty: the Gaussian process posterior of an NNGP kernel, as a table.

    python kernel_matrix.py pictures/ kernel.npz --kernel nngp-v-6 --test-share 0.2
    python uncertainty.py kernel.npz predictions.csv

The ridge is that of the largest likelihood. A row for each test image: its label, the predicted class, the
variance of its function values over that before training, and the probability that this class has the largest
function.
"""

import argparse

import numpy as np


def posterior(
    K: np.ndarray, across: np.ndarray, own: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Means (m, k), variances (m,), the scale of the prior and the ridge relative to the mean diagonal."""
    k = y.max() + 1
    Y = np.eye(k)[y] - 1 / k
    eigenvalues, vectors = np.linalg.eigh(K)
    projected, unit = vectors.T @ Y, K.diagonal().mean()

    def likelihood(
        ridge: float,
    ) -> float:  # the log-likelihood without its constant, at the best scale
        shifted = eigenvalues + ridge * unit
        return (
            -(
                Y.size * np.log((projected**2 / shifted[:, None]).sum())
                + k * np.log(shifted).sum()
            )
            / 2
        )

    ridge = max(np.logspace(-5, 2, 71), key=likelihood)
    shifted = eigenvalues + ridge * unit
    scale = (projected**2 / shifted[:, None]).sum() / Y.size
    turned = across @ vectors
    return (
        turned / shifted @ projected,
        scale * (own - (turned**2 / shifted).sum(1)),
        scale,
        ridge,
    )


def probabilities(
    mean: np.ndarray, variance: np.ndarray, draws: int = 2000
) -> np.ndarray:
    """Of each class (m, k), that its function is the largest: shares of draws."""
    rng, found = np.random.default_rng(0), np.zeros(mean.shape)
    for _ in range(draws):
        sample = mean + np.sqrt(variance)[:, None] * rng.standard_normal(mean.shape)
        found[np.arange(len(mean)), sample.argmax(1)] += 1 / draws
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "kernel", help="the .npz file of kernel_matrix.py, with an NNGP kernel"
    )
    parser.add_argument("target", help="the .csv file to write")
    given = parser.parse_args()
    with np.load(given.kernel, allow_pickle=False) as found:
        K, across, own, y, y_test = (
            found[n] for n in ("train", "test", "own_test", "y_train", "y_test")
        )
    mean, variance, scale, ridge = posterior(K, across, own, y)
    if not (variance > 0).all():
        parser.error(
            "a variance is not above 0: are there equal images in training and test?"
        )
    shares = probabilities(mean, variance)
    table = np.column_stack(
        [y_test, shares.argmax(1), variance / (scale * own), shares.max(1)]
    )
    np.savetxt(
        given.target,
        table,
        "%d,%d,%.6g,%.4f",
        header="label,predicted,variance,probability",
        comments="",
    )
    accuracy = (shares.argmax(1) == y_test).mean()
    error = (accuracy * (1 - accuracy) / len(y_test)) ** 0.5
    print(
        f"ridge {ridge:.2g}; accuracy {100 * accuracy:.2f} %, standard error {100 * error:.2f},"
        f" mean probability {100 * shares.max(1).mean():.2f} %"
    )


if __name__ == "__main__":
    main()
