"""Names of data sets as people write them; names of classes, in array files and for published data sets."""

import numpy as np
import pytest

from cntk_bench import data
from cntk_bench.data import classes, identity, sources
from cntk_bench.errors import UserError

SPELLINGS = {
    "cifar10": ["cifar10", "CIFAR-10", "cifar_10", "CIFAR 10", "Cifar10"],
    "cifar100": ["CIFAR-100", "cifar_100"],
    "fashion-mnist": ["FashionMNIST", "Fashion MNIST", "fashion_mnist", "fashion-mnist"],
    "mnist": ["MNIST"],
    "svhn": ["SVHN"],
    "folder": ["Folder"],
    "digits": ["Digits"],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_are_forgiven(name):
    for spelling in SPELLINGS[name]:
        assert data.canonical(spelling) == name
        data.require_known(data.canonical(spelling))
    assert data.load("Digits", train=5).name == "digits"


@pytest.mark.parametrize("name", ["cifar", "cifar1", "cifar-1-0-0-0", "", "10", None, 10])
def test_other_names_stay_what_they_are(name):
    assert data.canonical(name) == name
    with pytest.raises(UserError, match="is unknown"):
        data.load(name)


def test_a_name_that_is_one_itself_comes_first(monkeypatch):
    monkeypatch.setattr(sources.plugins, "names", lambda _: ("CIFAR-10", "my_set", "My-Set"))
    assert data.canonical("CIFAR-10") == "CIFAR-10" and data.canonical("cifar10") == "cifar10"
    assert data.canonical("my_set") == "my_set"
    assert data.canonical("MYSET") == "MYSET"  # both of two sets match, so neither is meant
    assert data.canonical("cifar_10") == "cifar_10"


# Classes by name

RNG = np.random.default_rng(3)
NAMES = np.array(["img10", "img9", "Bear", "apple"])


def npz(path, y_train, y_test=None):
    x = RNG.integers(0, 256, (len(y_train), 4, 4, 3), dtype=np.uint8)
    np.savez(path, x_train=x, y_train=y_train, x_test=x, y_test=y_train if y_test is None else y_test)
    return path


@pytest.mark.parametrize("store", [str, bytes, lambda y: y.astype("U20")[:, None], lambda y: y.astype(">U9")])
def test_labels_of_text(tmp_path, store):
    y = np.arange(40) % 4
    text = NAMES[y]
    found = data.load(
        "npz", path=npz(tmp_path / "d.npz", np.array(text, store) if isinstance(store, type) else store(text))
    )
    assert found.class_names == ("apple", "Bear", "img9", "img10")
    assert [found.class_names[label] for label in found.y_train] == NAMES[y[found.train_index]].tolist()
    assert found.y_train.dtype == np.int64
    some = data.load("npz", path=tmp_path / "d.npz", classes=["img10", 0])
    assert some.class_names == ("img10", "apple") and some.classes_used == (3, 0)
    assert [some.class_names[label] for label in some.y_test] == NAMES[y[some.test_index]].tolist()


def test_numbers_have_no_names(tmp_path):
    y = np.arange(40) % 4
    assert data.load("npz", path=npz(tmp_path / "d.npz", y)).class_names is None
    assert data.load("digits").class_names is None


LABELS = {
    "text and numbers": (
        (NAMES, np.arange(4)),
        "y_train has text and y_test numbers: store",
    ),
    "another in test": ((NAMES, [*NAMES[:3], "x"]), "y_test has the class x, which no training image has"),
    "one class": ((["a"] * 4, ["a"] * 4), "y_train has the class a only: give at least two classes"),
    "empty": (([*NAMES[:3], " "], NAMES), "y_train has the class '': name classes by 1 to 200"),
    "escapes": (([*NAMES[:3], "\x1b[2J"], NAMES), "name classes by 1 to 200 characters, all visible"),
    "long": (([*NAMES[:3], "x" * 201], NAMES), "name classes by 1 to 200"),
    "not UTF-8": ((np.array([b"a", b"\xff"] * 2), NAMES), "y_train has a label that is not UTF-8"),
    "another number": ((NAMES, NAMES[:3]), "y_test has 3 labels for 4 images"),
    "matrix": ((NAMES.reshape(2, 2), NAMES), "store labels of shape .n,., as integers or as text"),
}


@pytest.mark.parametrize("labels, words", LABELS.values(), ids=LABELS.keys())
def test_labels_that_cannot_be(tmp_path, labels, words):
    x = np.zeros((4, 2, 2), np.uint8)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=labels[0], x_test=x, y_test=labels[1])
    with pytest.raises(UserError, match=words) as caught:
        data.load("npz", path=tmp_path / "d.npz")
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()


def test_published_names_are_for_published_images(tmp_path, monkeypatch):
    y = np.arange(20) % 10
    path = npz(tmp_path / "d.npz", y)
    with np.load(path) as file:
        x = np.moveaxis(file["x_train"], -1, 1)
    assert data.load("cifar10", path=path).class_names is None
    monkeypatch.setitem(identity._DIGESTS, "cifar10", (identity.digest(x, y),) * 2)
    found = data.load("cifar10", path=path, classes=["cat", "dog"])
    assert found.class_names == ("cat", "dog") and found.classes_used == (3, 5)
    assert data.load("cifar10", path=path).class_names == classes.OFFICIAL["cifar10"]
    with pytest.raises(UserError, match="classes has bat, which no class is called: did you mean cat"):
        data.load("cifar10", path=path, classes=["bat", "dog"])


@pytest.mark.parametrize(
    "names", [["2", "010", "10", "a", "B", "b", "b2", "b10", "ä"], ["1" * 200, "x" + "9" * 199]]
)
def test_the_natural_order(names):
    assert sorted(reversed(names), key=classes.natural) == names
