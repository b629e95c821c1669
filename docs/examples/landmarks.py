"""Images that stand for many: landmarks by Cholesky factorisation with pivots, from K(landmarks, X) alone.

    python landmarks.py images.npy 200 landmarks.npz --how proportion

`images.npy` is an array (n, C, P, P), standardised. The file written has `index` (m,), the landmarks in their
order; `left` (m,), the mean variance that is left after each; and `features` (m, n), whose product features^T
features is near to the kernel scaled to a diagonal of one. It needs m n pairs of images, not n^2.
"""

import argparse

import numpy as np

from cntk_bench import Readout, UserError, diagonal, gram


def choose(
    x: np.ndarray, count: int, readout: Readout, how: str, seed: int
) -> dict[str, np.ndarray]:
    """Landmarks of images x: by the largest variance ("greedy"), or drawn in proportion to it."""
    rng = np.random.default_rng(seed)
    own = diagonal(x, readouts=[readout])[0].astype(np.float64)
    features, variance = np.zeros((count, len(x))), np.ones(len(x))
    index, left = [], []
    for step in range(count):
        pivot = (
            variance.argmax()
            if how == "greedy"
            else rng.choice(len(x), p=variance / variance.sum())
        )
        row = gram(x[[pivot]], x, readouts=[readout])[0, 0] / np.sqrt(own[pivot] * own)
        features[step] = (row - features[:step, pivot] @ features[:step]) / np.sqrt(
            variance[pivot]
        )
        variance = np.maximum(variance - features[step] ** 2, 0)
        variance[pivot] = 0
        index.append(pivot)
        left.append(variance.mean())
        if (
            left[-1] < 1e-6
        ):  # what is left is the kernels' rounding, nothing of the images
            break
    return {
        "index": np.array(index),
        "left": np.array(left),
        "features": features[: len(index)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", help="the .npy file")
    parser.add_argument("count", type=int)
    parser.add_argument("target", help="the .npz file to write")
    parser.add_argument(
        "--kernel",
        default="ntk-v-6-all",
        help="as a Readout is printed (default: %(default)s)",
    )
    parser.add_argument("--how", choices=["greedy", "proportion"], default="proportion")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    x = np.load(given.images, allow_pickle=False)
    if not 1 <= given.count <= len(x):
        parser.error(f"{given.count} landmarks of {len(x)} images: use 1 to {len(x)}")
    try:
        found = choose(
            x, given.count, Readout.parse(given.kernel), given.how, given.seed
        )
    except UserError as error:
        parser.error(str(error))
    np.savez(given.target, **found)
    print(
        f"{len(found['index'])} landmarks leave {found['left'][-1]:.2%} of the variance of {len(x)} images"
    )


if __name__ == "__main__":
    main()
