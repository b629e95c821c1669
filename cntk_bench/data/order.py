"""The seeded, class-balanced order of images, of which a subset is a prefix."""

import numpy as np


def balanced_order(labels: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """An order in which every prefix is as balanced over the classes as the data allow.

    The images of each class are shuffled; the first round holds one image of each class, the
    second the next one of each, and so on, every round in a random order of its classes. A
    class that has run out is left out of the later rounds. So in any prefix, the counts of two
    classes that have not run out differ by at most one.

    The shuffle sorts by one random 64-bit key an image, taken raw from PCG64: unlike
    `Generator.permutation`, NumPy promises these bits for all versions.

    Parameters
    ----------
    labels : array (n,), int64
        Classes, at least 0.
    seed : int
        At least 0.
    stream : int
        Independent orders of one seed: 0 training images, 1 test images, 2 the split of digits.

    Returns
    -------
    array (n,), int64
        A permutation of 0 .. n-1.
    """
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,)))
    keys = bits.random_raw(len(labels))
    by_class = np.lexsort((keys, labels))
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    rounds = np.empty(len(labels), np.int64)
    rounds[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return np.lexsort((keys, rounds))
