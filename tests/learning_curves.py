"""Synthetic learning curves that follow a known law, for tests of what is fitted to curves."""

import numpy as np
from scipy.special import ndtri

SIZES = np.array([625, 1250, 2500, 5000, 10_000, 20_000])


def hits(rng, truth, images, sizes=SIZES, common=0.6, shift=0.0):
    """(k, images) bool: which images are right at each size; the share of wrong ones follows a law.

    `truth` is (a, b, c) in percent: the error is a (size / largest)^-b + c + `shift`, where `largest` is the
    last of `SIZES`. An image that is hard at one size tends to be hard at the others, too: `common` is the
    share of variance that they have in common.
    """
    a, b, c = truth
    wrong = (a * (np.asarray(sizes) / SIZES[-1]) ** -b + c + shift) / 100
    own = rng.standard_normal((len(sizes), images))
    hardness = common**0.5 * rng.standard_normal(images) + (1 - common) ** 0.5 * own
    return hardness > ndtri(wrong)[:, None]
