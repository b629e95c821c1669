"""Synthetic learning curves of a law that is known, for tests of what is fitted to curves."""

import numpy as np
from scipy.special import ndtri

SIZES = np.array([625, 1250, 2500, 5000, 10_000, 20_000])


def hits(rng, truth, images, sizes=SIZES, common=0.6, shift=0.0):
    """(k, images) bool: which images are right at each size, where the share of wrong ones has a law.

    `truth` is (a, b, c) in percent, a at the largest of `SIZES`. An image that is hard at one size is hard at
    the others, too: the normal variable that decides has this part in `common`. `shift` is of the errors.
    """
    a, b, c = truth
    wrong = (a * (np.asarray(sizes) / SIZES[-1]) ** -b + c + shift) / 100
    own = rng.standard_normal((len(sizes), images))
    hardness = common**0.5 * rng.standard_normal(images) + (1 - common) ** 0.5 * own
    return hardness > ndtri(wrong)[:, None]
