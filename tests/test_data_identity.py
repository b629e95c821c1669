"""A data set bears its name only if its images are verified."""

import numpy as np
import pytest

from cntk_bench import data
from cntk_bench.data import identity
from cntk_bench.data.identity import digest, is_published

RNG = np.random.default_rng(0)
TRAIN = RNG.integers(0, 256, (20, 3, 4, 4), dtype=np.uint8), np.arange(20) % 10
TEST = RNG.integers(0, 256, (10, 3, 4, 4), dtype=np.uint8), np.arange(10)


@pytest.fixture
def known(monkeypatch):
    """Makes small images pass for CIFAR-10's."""
    monkeypatch.setitem(identity._DIGESTS, "cifar10", (digest(*TRAIN), digest(*TEST)))


def test_images_that_are_published_are_known_in_any_order(known, tmp_path):
    order = RNG.permutation(20)
    shuffled = TRAIN[0][order], TRAIN[1][order]
    assert is_published("cifar10", TRAIN, TEST) and is_published("cifar10", shuffled, TEST)
    assert not is_published("cifar10", TEST, TRAIN)
    assert not is_published("cifar10", TRAIN, TRAIN)
    assert not is_published("cifar100", TRAIN, TEST)


@pytest.mark.parametrize("classes", [None, [0, 1]])
def test_a_file_of_published_images_has_their_name(known, tmp_path, caplog, classes):
    path = tmp_path / "data.npz"
    for change, name in ((0, "cifar10"), (1, "npz")):
        x = TEST[0].copy()
        x[9, 2, 3, 3] ^= change
        np.savez(path, x_train=TRAIN[0], y_train=TRAIN[1], x_test=x, y_test=TEST[1])
        loaded = data.load(
            "cifar10", path=path, classes=classes
        )  # chosen classes have the name if all images are the published ones
        assert loaded.name == name and ("does not hold" in caplog.text) == bool(change)
        assert data.load("npz", path=path).name == "npz"


def test_labels_that_are_no_byte_have_no_digest():
    x, y = TRAIN
    assert digest(x, np.where(y == 3, 255, y)) != digest(x, y) != ""
    assert digest(x, np.where(y == 3, 256, y)) == digest(x, np.where(y == 3, -1, y)) == ""


def test_a_name_that_is_not_known_is_never_published():
    x, y = np.zeros((3, 3, 32, 32), np.uint8), np.arange(3)
    assert not is_published("svhn", (x, y), (x, y))
    assert not is_published("cifar10", (x, y), (x, y))
    assert not is_published("", (x, y), (x, y))


def test_the_digest_knows_no_order_and_misses_no_change():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 3, 4, 4), dtype=np.uint8), rng.integers(0, 4, 20)
    order = rng.permutation(20)
    assert digest(x, y) == digest(x[order], y[order]) != digest(x, np.roll(y, 1))
    changed = x.copy()
    changed[7, 1, 2, 3] ^= 1
    assert digest(changed, y) != digest(x, y)
    assert digest(x, y - 9) == digest(x.astype(float), y) == ""
