"""Match images of two solves by what identifies them, never by their positions in a list."""

from collections import Counter

import numpy as np

from cntk_bench import data
from cntk_bench.comparisons.circumstances import PREPARATION
from cntk_bench.comparisons.entries import Entry

# Keys of a record's facts of images that say how these were prepared.
PREPARED = ("preprocess", "fitted_on", *PREPARATION, "size", "channels", "fit")
# Always verified, so that name and index identify an image; idx files of MNIST's names may hold anything.
TOLD_BY_NAME = ("digits", *data.CIFAR, *data.SVHN)


def common(first: Entry, second: Entry) -> tuple[np.ndarray, np.ndarray] | None:
    """Find the test images that two solves have in common.

    Images are the same if they have the same index in the same data set (a verified one, that of the same
    run, or one with the same digest of all test images), or the same digest in both runs' Gram stores. They
    are not if all indices are the same, but not the digests, whatever the data sets are called.

    Returns
    -------
    (places, places), positions in each, int64 (k,), in the order of the first; None if it cannot be told
    whether images are the same.
    """
    if _same_list(first, second):
        every = np.arange(first.data["n_test"])
        return every, every
    a, b = first.test_index, second.test_index
    if a is not None and b is not None and _same_source(first, second):
        _, i, j = np.intersect1d(a, b, assume_unique=True, return_indices=True)
        order = np.argsort(i)
        return i[order], j[order]
    ours, theirs = _digests(first), _digests(second)
    if ours is None or theirs is None:
        return None
    there = {key: place for place, key in enumerate(theirs)}
    pairs = [(place, there[key]) for place, key in enumerate(ours) if key in there]
    if not pairs:  # they may be the same, prepared differently
        return None
    i, j = np.array(pairs, np.int64).T
    return i, j


def same(first: Entry, second: Entry) -> bool:
    """Whether all test images of both are known to be the same."""
    found = common(first, second)
    sizes = first.data["n_test"], second.data["n_test"]
    return found is not None and len(found[0]) == sizes[0] == sizes[1]


def same_training(first: Entry, second: Entry) -> bool:
    """Whether the training images of both are known to be the same, in the same order and draws."""
    one, other = first.data, second.data
    if first is second:
        return True
    if any(one.get(key) != other.get(key) for key in ("n_train", "draws")):
        return False
    if _same_list(first, second):
        return True
    if (by_store := _same_in_stores(first, second)) is not None:
        return by_store
    known = one.get("train_index") is not None
    return known and one["train_index"] == other.get("train_index") and _same_source(first, second)


def _same_in_stores(first: Entry, second: Entry) -> bool | None:
    """Whether the Gram stores of both runs have the same training images; None where they do not tell.

    Different labels show that they differ; digests tell if the images were prepared alike.
    """
    one, other = first.stored, second.stored
    if one is None or other is None:
        return None
    if not np.array_equal(one.labels[0], other.labels[0]):
        return False
    prepared_alike = all(first.data.get(key) == second.data.get(key) for key in PREPARED)
    if not prepared_alike or one.digests is None or other.digests is None:
        return None
    return np.array_equal(one.digests[0], other.digests[0])


def _same_list(first: Entry, second: Entry) -> bool:
    """Whether training and test images are the same in the same order, by their digest."""
    one, other = first.data, second.data
    if one["n_test"] != other["n_test"]:
        return False
    digests = ((one.get(key), other.get(key)) for key in ("images", "fingerprint"))
    return any(mine is not None and mine == its for mine, its in digests)


def _same_source(first: Entry, second: Entry) -> bool:
    """Whether equal indices mean equal images and labels."""
    one, other = first.data, second.data
    if one.get("classes_used") != other.get("classes_used") or one["classes"] != other["classes"]:
        return False
    told = [facts.get("test_images") for facts in (one, other)]
    if None not in told and _same_indices(first, second):
        return told[0] == told[1]  # whatever their names, and the order of a file
    if one["name"] == other["name"] in TOLD_BY_NAME:
        return True
    # A store has one list of images; `stored` is None for a solve whose images were replaced since.
    here = first.run is not None and second.run is not None and first.run.path.samefile(second.run.path)
    return here and first.stored is not None and second.stored is not None


def _same_indices(first: Entry, second: Entry) -> bool:
    """Whether the test images have the same indices, in whatever order."""
    a, b = first.test_index, second.test_index
    return a is not None and b is not None and set(a.tolist()) == set(b.tolist())


def _digests(entry: Entry) -> list[tuple[int, int, int]] | None:
    """Return a key for each test image: its digest, its label, and its number among equal ones of both."""
    known = entry.stored
    if known is None or known.digests is None:
        return None
    seen: Counter = Counter()
    keys = []
    for digest, label in zip(known.digests[1].tolist(), known.labels[1].tolist(), strict=True):
        keys.append((digest, label, seen[digest, label]))
        seen[digest, label] += 1
    return keys
