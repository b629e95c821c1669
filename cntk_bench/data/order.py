"""Seeded orders of images, class-balanced or plain; a subset is a prefix of such an order."""

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.text import short


def balanced_order(labels: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """Order images so that every prefix is as balanced over the classes as the data allow.

    The images of each class are shuffled; the first round holds one image of each class, the
    second the next one of each, and so on, with the classes of each round in random order. A
    class that has run out is left out of later rounds. So in any prefix, the counts of two
    classes that have not run out differ by at most one.

    Images are sorted by one random 64-bit key each, taken raw from PCG64: NumPy promises these
    bits for all versions, but not the results of `Generator.permutation`.

    Parameters
    ----------
    labels : array (n,), int64
        Classes, at least 0.
    seed : int
        At least 0.
    stream : int
        Which of several independent orders of one seed: 0 training images, 1 test images, 2 the split of
        digits, 3 that of `held_out`.

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


def random_order(labels: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """Order images regardless of class: the `balanced_order` they would have if all were of one class."""
    return balanced_order(np.zeros_like(labels), seed, stream)


ORDERS = {"balanced": balanced_order, "random": random_order}


def held_out(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stratified split: the same share of each class for testing, but at least one image in either part.

    Parameters
    ----------
    labels : array (n,)
        Classes, of any type that sorts.
    share : float
        Between 0 and 1; a class's number of test images is rounded.
    seed : int
        At least 0; decides which images, by the keys of `balanced_order`.

    Returns
    -------
    train, test : array of int64
        Indices into `labels`, ascending.

    Raises
    ------
    UserError
        If a class has a single image.
    """
    names, y = np.unique(labels, return_inverse=True)
    shuffled = random_order(y, seed, stream=3)
    test = np.zeros(len(y), bool)
    for c, name in enumerate(names):
        members = shuffled[y[shuffled] == c]
        if len(members) < 2:
            raise UserError(f"the class {short(str(name))} has one image, which cannot be split: add another")
        test[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)
