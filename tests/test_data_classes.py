"""A choice of classes from a data set equals a data set that has only these classes."""

import numpy as np
import pytest

from cntk_bench import data
from cntk_bench.data.order import balanced_order
from cntk_bench.errors import UserError

K = 5
RNG = np.random.default_rng(3)
ARRAYS = {
    "x_train": RNG.integers(0, 256, (120, 4, 4, 3), dtype=np.uint8),
    "y_train": RNG.permutation(np.arange(120) % K),
    "x_test": RNG.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8),
    "y_test": RNG.permutation(np.arange(60) % K),
}


@pytest.fixture
def file(tmp_path):
    np.savez(tmp_path / "data.npz", **ARRAYS)
    return tmp_path / "data.npz"


def only(path, labels):
    """A file with only the images of these labels, renumbered in their order."""
    kept = {}
    for part in ("train", "test"):
        y = ARRAYS[f"y_{part}"]
        where = np.isin(y, labels)
        kept[f"x_{part}"] = ARRAYS[f"x_{part}"][where]
        kept[f"y_{part}"] = np.array([labels.index(label) for label in y[where]])
    np.savez(path, **kept)
    return path


@pytest.mark.parametrize("labels", [(0, 1), (4, 2), (3, 0, 4), (1, 0, 2, 3, 4)])
@pytest.mark.parametrize("asked", [{}, {"train": 31, "test": 7, "seed": 5, "preprocess": "none"}])
def test_some_classes_are_a_data_set_of_their_own(file, tmp_path, labels, asked):
    chosen = data.load("npz", path=file, classes=list(labels), **asked)
    alone = data.load("npz", path=only(tmp_path / "only.npz", labels), **asked)
    assert chosen.fingerprint == alone.fingerprint
    assert chosen.classes == len(labels) and chosen.classes_used == labels
    assert alone.classes_used is None


@pytest.mark.parametrize("labels", [(0, 1), (4, 2)])
def test_the_indices_are_those_of_the_whole_source(file, labels):
    chosen = data.load("npz", path=file, classes=labels, train=30, test=9, preprocess="none")
    for part in ("train", "test"):
        index, y = getattr(chosen, f"{part}_index"), getattr(chosen, f"y_{part}")
        pixels = np.moveaxis(ARRAYS[f"x_{part}"][index], -1, 1) / 255
        assert index.dtype == np.int64 and len(set(index)) == len(index)
        assert np.array_equal(getattr(chosen, f"x_{part}"), pixels.astype(np.float32))
        assert np.array_equal(np.array(labels)[y], ARRAYS[f"y_{part}"][index])


def test_the_indices_without_a_choice(file):
    loaded = data.load("npz", path=file, train=50, test=20, seed=2)
    for stream, part in enumerate(("train", "test")):
        order = balanced_order(ARRAYS[f"y_{part}"], 2, stream)
        assert np.array_equal(getattr(loaded, f"{part}_index"), order[: (50, 20)[stream]])


def test_all_classes_in_their_order_are_no_choice(file):
    every = data.load("npz", path=file, classes=range(K))
    assert every.classes_used is None and every.fingerprint == data.load("npz", path=file).fingerprint


def test_digits_keep_their_split():
    part, whole = (data.load("digits", classes=classes) for classes in ([7, 3], None))
    assert set(part.test_index) <= set(whole.test_index) and len(part.y_test) == 72
    assert (np.bincount(part.y_test) == 36).all()


BAD = {
    "a label": (3, "classes is 3: use a list of at least two"),
    "text": ("01", "classes is '01': use a list"),
    "none": ([], r"classes is \[\]: use a list"),
    "one": ([2], r"classes is \[2\]: use a list"),
    "twice": ([1, 2, 1], r"classes is \[1, 2, 1\]: use a list of at least two different labels"),
    "beyond": ([0, 5], r"has the label 5, but the data have 0\.\.4: use those"),
    "negative": ([-1, 2], "a label in classes is -1: use an integer of at least 0"),
    "names": (["cat", "dog"], "a label in classes is 'cat'"),
    "true": ([True, 0], "a label in classes is True"),
    "floats": ([0.0, 1.0], "a label in classes is 0.0"),
    "huge": ([0, 10**5000], "has the label an integer of 16610 bits, but"),
    "too few images": ([0, 1], "train is 49, but the data have 48"),
}


@pytest.mark.parametrize("classes, words", BAD.values(), ids=BAD.keys())
def test_classes_that_cannot_be(file, classes, words):
    with pytest.raises(UserError, match=words) as caught:
        data.load("npz", path=file, classes=classes, train=49)
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()


def test_classes_without_test_images(tmp_path):
    kept = ARRAYS["y_test"] > 1
    some = {"x_test": ARRAYS["x_test"][kept], "y_test": ARRAYS["y_test"][kept]}
    np.savez(tmp_path / "data.npz", **ARRAYS | some)
    with pytest.raises(UserError, match=r"y_test has no image of the classes \(0, 1\): choose others"):
        data.load("npz", path=tmp_path / "data.npz", classes=[0, 1])
