"""Data sets: layouts, order, preprocessing, and bad input refused in one line."""

import dataclasses
import pickle
import sys

import numpy as np
import pytest
from pickles import Bomb

from cntk_bench import data
from cntk_bench.data.identity import digest
from cntk_bench.data.order import balanced_order
from cntk_bench.errors import UserError


def arrays(n_train=90, n_test=30, size=4, channels=3, classes=3, seed=0):
    """Random uint8 images, channels last, all different, with labels that include every class."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n_train + n_test, size, size, channels), dtype=np.uint8)
    y = rng.integers(0, classes, n_train + n_test)
    y[:classes] = np.arange(classes)
    return {"x_train": x[:n_train], "y_train": y[:n_train], "x_test": x[n_train:], "y_test": y[n_train:]}


def write(path, content):
    np.savez(path, **content)
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "data.npz", arrays())


def positions(images, originals):
    """For each image (C, P, P), its index among the originals (n, P, P, C)."""
    rows = {original.tobytes(): index for index, original in enumerate(originals)}
    assert len(rows) == len(originals)
    return np.array([rows[np.ascontiguousarray(np.moveaxis(image, 0, -1)).tobytes()] for image in images])


def as_uint8(images):
    return np.rint(images * 255).astype(np.uint8)


def one_line(error):
    text = str(error.value)
    return text if "\n" not in text and len(text) < 400 else pytest.fail(f"not one clear line: {text}")


@pytest.mark.parametrize(
    ("train", "test", "warned"), [(1 / 255, 1.0, True), (1.0, 1 / 255, True), (1.0, 0.05, False)]
)
def test_test_images_in_another_unit_are_told(tmp_path, caplog, train, test, warned):
    content = arrays()
    content |= {"x_train": content["x_train"] * train, "x_test": content["x_test"] * test}
    data.load("npz", path=write(tmp_path / "data.npz", content))
    found = [message for message in caplog.messages if "give both in one unit" in message]
    assert len(found) == warned and all("x_train and" in message for message in found)


@pytest.mark.parametrize("white", [0, 1])
def test_test_images_of_0_and_1_beside_0_to_255_are_told(tmp_path, caplog, white):
    """As x_test / 255, cast to uint8, is; without a white pixel it is all 0."""
    content = arrays()
    content |= {"x_train": as_uint8(content["x_train"]), "x_test": as_uint8(content["x_test"] * 0)}
    content["x_test"][0, 0, 0] = white
    found = data.load("npz", path=write(tmp_path / "data.npz", content))
    largest = content["x_train"].max(), white
    assert "give both in one unit" in caplog.text and found.largest_pixels == largest


@pytest.mark.parametrize(
    ("unit", "numbers", "words"),
    [
        ("uint8", [0.49, 0.48, 0.44, 0.25, 0.24, 0.26], "deviations of 0.25, 0.24, 0.26, .* by 255"),
        ("float", [125, 123, 114, 63, 62, 67], "deviations of 63, 62, 67, .* in the unit of the pixels"),
        ("uint8", [125, 123, 114, 63, 62, 67], None),
        ("float", [0.49, 0.48, 0.44, 0.25, 0.24, 0.26], None),
    ],
)
def test_statistics_in_another_unit_than_pixels_are_refused(tmp_path, unit, numbers, words):
    x, y = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3)).astype(np.uint8), np.arange(20) % 2
    x = x if unit == "uint8" else x / 255
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    if words is None:
        assert abs(data.load("npz", path=tmp_path / "d.npz", statistics=numbers).x_train).max() < 3
        return
    with pytest.raises(UserError, match=words) as error:
        data.load("npz", path=tmp_path / "d.npz", statistics=numbers)
    one_line(error)


# Order and subsets


def label_sets():
    rng = np.random.default_rng(1)
    yield np.arange(10)
    yield np.repeat(np.arange(3), 7)
    for classes, n in ((2, 33), (5, 200), (10, 137)):
        yield rng.integers(0, classes, n)
    yield np.repeat(np.arange(4), (1, 2, 10, 50))  # classes run out one after another
    yield np.repeat((0, 3), 5)  # classes 1 and 2 have no image


@pytest.mark.parametrize("labels", list(label_sets()), ids=len)
def test_every_prefix_of_the_order_is_balanced(labels):
    totals = np.bincount(labels)
    for seed in range(5):
        order = balanced_order(labels, seed, stream=0)
        assert sorted(order) == list(range(len(labels)))
        counts = np.zeros_like(totals)
        for label in labels[order]:
            counts[label] += 1
            assert (counts[counts < totals] >= counts.max() - 1).all()


def test_the_order_depends_on_seed_and_stream():
    labels = np.arange(1000) % 10
    orders = [balanced_order(labels, *key) for key in ((0, 0), (0, 1), (0, 2), (1, 0), (2**70, 0))]
    for i, first in enumerate(orders):
        for second in orders[:i]:
            assert (first == second).mean() < 0.05
    assert np.array_equal(orders[0], balanced_order(labels, 0, stream=0))


def test_the_order_is_the_same_for_ever():
    labels = np.array([0, 0, 1, 2, 1, 0, 2, 2, 0, 1])
    assert balanced_order(labels, 0, stream=0).tolist() == [6, 8, 4, 3, 1, 9, 5, 2, 7, 0]


def test_rounds_take_classes_in_random_order():
    first = {int(balanced_order(np.arange(5), seed, stream=0)[0]) for seed in range(40)}
    assert first == set(range(5))


def test_larger_subsets_contain_smaller_ones(file):
    whole = data.load("npz", path=file, seed=3)
    assert len(whole.x_train) == 90 and len(whole.x_test) == 30
    for train, test in ((1, 1), (7, 30), (89, 2), (90, 29)):
        part = data.load("npz", path=file, train=train, test=test, seed=3)
        assert part.x_train.shape == (train, 3, 4, 4) and part.x_test.shape == (test, 3, 4, 4)
        assert np.array_equal(part.x_train, whole.x_train[:train])
        assert np.array_equal(part.y_train, whole.y_train[:train])
        assert np.array_equal(part.x_test, whole.x_test[:test])
        assert np.array_equal(part.y_test, whole.y_test[:test])
        assert part.classes == 3


def test_images_keep_their_labels(file):
    content = arrays()
    loaded = data.load("npz", path=file, preprocess="none", seed=5)
    for stream, part in enumerate(("train", "test")):
        index = positions(as_uint8(getattr(loaded, f"x_{part}")), content[f"x_{part}"])
        assert np.array_equal(index, balanced_order(content[f"y_{part}"], 5, stream))
        assert np.array_equal(getattr(loaded, f"y_{part}"), content[f"y_{part}"][index])


# Preprocessing


def test_standardisation_uses_the_whole_training_set(tmp_path):
    content = arrays(n_train=1203, n_test=700, size=2)  # several chunks, of which the last is partial
    path = write(tmp_path / "data.npz", content)
    pixels = content["x_train"].astype(np.float64)
    mean, deviation = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
    for train in (40, None):
        raw = data.load("npz", path=path, train=train, preprocess="none")
        loaded = data.load("npz", path=path, train=train)
        for part in ("train", "test"):
            index = positions(as_uint8(getattr(raw, f"x_{part}")), content[f"x_{part}"])
            expected = np.moveaxis((content[f"x_{part}"][index] - mean) / deviation, -1, 1)
            x = getattr(loaded, f"x_{part}")
            assert x.dtype == np.float32 and x.flags.c_contiguous
            np.testing.assert_allclose(x, expected, rtol=2e-7, atol=1e-7)


def test_statistics_are_accurate_far_from_zero(tmp_path):
    content = arrays(n_train=1203)
    for part in ("x_train", "x_test"):
        # Values where a float64 sum of squares would lose all digits of the variance.
        content[part] = content[part] * 1e-3 + 1e6
    loaded = data.load("npz", path=write(tmp_path / "data.npz", content))
    np.testing.assert_allclose(loaded.x_train.mean((0, 2, 3), dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(loaded.x_train.std((0, 2, 3), dtype=np.float64), 1, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_none_leaves_floats_as_they_are(tmp_path, dtype):
    content = arrays(channels=1)
    floats = {key: (a / 7).astype(dtype) if key[0] == "x" else a for key, a in content.items()}
    loaded = data.load("npz", path=write(tmp_path / "data.npz", floats), preprocess="none")
    expected = floats["x_train"][balanced_order(content["y_train"], 0, stream=0)]
    assert np.array_equal(loaded.x_train[:, 0], expected[..., 0].astype(np.float32))


def test_none_divides_uint8_by_255(file):
    loaded = data.load("npz", path=file, preprocess="none")
    assert np.array_equal(loaded.x_train, (as_uint8(loaded.x_train) / 255).astype(np.float32))
    assert loaded.x_train.min() == 0 and loaded.x_train.max() == 1


@pytest.mark.parametrize("value, dtype", [(255, np.uint8), (0.3, np.float64)])
def test_a_constant_channel_becomes_zero(tmp_path, value, dtype):
    content = {key: a.astype(dtype) if key[0] == "x" else a for key, a in arrays(n_train=600).items()}
    content["x_train"][..., 1] = value
    loaded = data.load("npz", path=write(tmp_path / "data.npz", content))
    assert not loaded.x_train[:, 1].any()
    assert np.isfinite(loaded.x_test).all()
    np.testing.assert_allclose(loaded.x_train[:, [0, 2]].std((0, 2, 3)), 1, rtol=1e-5)


# Layouts


def test_channels_first_last_and_one_channel_are_equal(tmp_path):
    for channels in (1, 3):
        last = arrays(channels=channels)
        layouts = [last, {k: np.moveaxis(a, -1, 1) if k[0] == "x" else a for k, a in last.items()}]
        if channels == 1:
            layouts.append({k: a[..., 0] if k[0] == "x" else a for k, a in last.items()})
        fingerprints = {data.load("npz", path=write(tmp_path / "d.npz", c)).fingerprint for c in layouts}
        assert len(fingerprints) == 1


def test_vectors_are_images_of_one_pixel(tmp_path):
    """Each feature is standardised on its own, as channels are."""
    given = arrays()
    rows = {key: given[key].reshape(len(given[key]), -1).astype(float) for key in ("x_train", "x_test")}
    loaded = data.load("npz", path=write(tmp_path / "v.npz", given | rows))
    assert loaded.x_train.shape == (90, 48, 1, 1) and loaded.x_test.shape == (30, 48, 1, 1)
    mean, deviation = rows["x_train"].mean(0), rows["x_train"].std(0)
    for side, index in (("x_train", loaded.train_index), ("x_test", loaded.test_index)):
        expected = (rows[side][index] - mean) / deviation
        np.testing.assert_allclose(getattr(loaded, side)[:, :, 0, 0], expected, rtol=1e-5, atol=1e-6)


def test_an_ambiguous_shape_is_channels_last(tmp_path):
    content = arrays(size=3, channels=3)
    loaded = data.load("npz", path=write(tmp_path / "data.npz", content), preprocess="none")
    assert positions(as_uint8(loaded.x_train), content["x_train"]).size == 90


def test_labels_of_other_integer_types_and_a_column_are_accepted(tmp_path, file):
    reference = data.load("npz", path=file)
    content = arrays()
    for y in (content["y_train"].astype(np.uint8), content["y_train"][:, None].astype(">i4")):
        loaded = data.load("npz", path=write(tmp_path / "other.npz", content | {"y_train": y}))
        assert loaded.y_train.dtype == np.int64
        assert loaded.fingerprint == reference.fingerprint


@pytest.mark.parametrize("name", data.FETCHABLE)
def test_an_official_data_set_can_come_from_an_npz_file(file, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    loaded = data.load(name, path=str(file), train=20)
    assert loaded.name == "npz"  # what a file claims to hold is not believed
    assert loaded.fingerprint == data.load("npz", path=file, train=20).fingerprint


def test_the_fingerprint_tells_contents_apart(file):
    loaded = data.load("npz", path=file)
    variants = [loaded]
    for key in ("x_train", "y_train", "x_test", "y_test"):
        array = getattr(loaded, key)
        changed = array.copy()
        changed.flat[-1] += 1
        for other in (changed, array[:-1], array.reshape(-1, 2), array.view(f"u{array.itemsize}")):
            variants.append(dataclasses.replace(loaded, **{key: other}))
    assert len({variant.fingerprint for variant in variants}) == len(variants) == 17
    assert dataclasses.replace(loaded, name="other").fingerprint == loaded.fingerprint
    assert len(loaded.fingerprint) == 64


# Digits


def test_digits_are_split_once_and_balanced():
    from sklearn.datasets import load_digits

    first, second = (data.load("digits", seed=seed, preprocess="none") for seed in (0, 1))
    source = load_digits()
    pixels = (source.images / 16).astype(np.float32)
    images = {image.tobytes(): y for image, y in zip(pixels, source.target, strict=True)}
    for loaded in (first, second):
        assert loaded.x_train.shape == (1437, 1, 8, 8) and loaded.x_test.shape == (360, 1, 8, 8)
        assert loaded.classes == 10
        assert (np.bincount(loaded.y_test) == 36).all()
        for x, y in ((loaded.x_train, loaded.y_train), (loaded.x_test, loaded.y_test)):
            assert [images[image.tobytes()] for image in x] == y.tolist()
    members = [{image.tobytes() for image in loaded.x_test} for loaded in (first, second)]
    assert members[0] == members[1]
    assert not members[0] & {image.tobytes() for image in first.x_train}
    assert len(members[0]) == 360
    assert (np.bincount(data.load("digits", train=200).y_train) == 20).all()
    # The split and the order must never change: published results depend on them.
    assert first.fingerprint == "f69920717f2a43305522c82e6a651e1694bd97664371260b77ca07cf1602e101"


# Bad input

GOOD = arrays()
X, Y = GOOD["x_train"], GOOD["y_train"]


def with_nan(image, value):
    x = X.astype(np.float32)
    x[image, 1, 2, 0] = value
    return {"x_train": x, "x_test": GOOD["x_test"].astype(np.float32)}


def relabelled(value, at=7):
    y = Y.copy()
    y[at] = value
    return y


BAD_ARRAYS = {
    "not square": ({"x_train": X[:, :3], "x_test": GOOD["x_test"][:, :3]}, r"\(90, 3, 4, 3\).*not square"),
    "not square, no channels": ({"x_train": X[:, :3, :, 0]}, r"\(90, 3, 4\).*not square"),
    "flat": ({"x_train": X.reshape(90, -1)}, r"images \(C, P, P\) are \(48, 1, 1\), test images \(3, 4, 4\)"),
    "one axis": ({"x_train": X.reshape(-1)}, r"x_train has the shape \(4320,\): use \(n, P, P\)"),
    "five axes": ({"x_test": GOOD["x_test"][None]}, "x_test has the shape"),
    "no images": ({"x_train": X[:0], "y_train": Y[:0]}, "empty"),
    "no test images": ({"x_test": X[:0], "y_test": Y[:0]}, "x_test.*empty"),
    "no pixels": ({"x_train": X[:, :0, :0], "x_test": GOOD["x_test"][:, :0, :0]}, "empty"),
    "no channels": ({"x_train": X[..., :0], "x_test": GOOD["x_test"][..., :0]}, "empty"),
    "integers": ({"x_train": X.astype(np.int64)}, "type int64: store pixels as uint8"),
    "booleans": ({"x_train": X > 9}, "type bool"),
    "text": ({"x_train": X.astype(str)}, "type <U3"),
    "complex": ({"x_train": X * 1j}, "type complex128"),
    "NaN": (with_nan(17, np.nan), "NaN.*image 17"),
    "infinity": (with_nan(89, -np.inf), "infinite.*image 89"),
    "huge": (with_nan(0, 1e30), "beyond 1e.09 in image 0"),
    "two shapes": ({"x_test": GOOD["x_test"][:, :2, :2]}, r"\(3, 4, 4\), test images \(3, 2, 2\)"),
    "two types": ({"x_test": GOOD["x_test"] / 255}, "x_train is uint8 and x_test float64"),
    "constant": ({"x_train": np.full_like(X, 9)}, "constant in every channel"),
    "too few labels": ({"y_train": Y[:-1]}, "y_train has 89 labels for 90 images"),
    "too many test labels": ({"y_test": Y}, "y_test has 90 labels for 30 images"),
    "one-hot": ({"y_train": np.eye(3, dtype=int)[Y]}, r"shape \(90, 3\)"),
    "one label": ({"y_train": np.array(1)}, r"shape \(\)"),
    "float labels": ({"y_train": Y / 1}, "type float64: store labels of shape .* as integers or as text"),
    "negative": ({"y_train": relabelled(-1)}, "y_train has the label -1"),
    "negative test": ({"y_test": GOOD["y_test"] - 1}, r"y_test has the label -1, outside .* 0\.\.2"),
    "unknown test": ({"y_test": GOOD["y_test"] + 1}, r"y_test has the label 3, outside .* 0\.\.2"),
    "from one": ({"y_train": Y + 1}, "label 3, but no image of class 0"),
    "gap": ({"y_train": relabelled(4)}, "label 4, but no image of class 3"),
    "beyond int64": (
        {"y_train": relabelled(0).astype(np.uint64) + np.uint64(2**63)},
        "y_train has the label 92",  # 2**63 and a little more, shown as it was given
    ),
    "one class": ({"y_train": Y * 0, "y_test": GOOD["y_test"] * 0}, "at least two classes"),
}


@pytest.mark.parametrize("changes, message", BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_bad_arrays(tmp_path, changes, message):
    path = write(tmp_path / "data.npz", GOOD | changes)
    with pytest.raises(UserError, match=message) as error:
        data.load("npz", path=path)
    one_line(error)


BAD_ARGUMENTS = {
    "mistyped": ({"name": "cifra10"}, "cifra10 is unknown: did you mean cifar10?"),
    "unknown": ({"name": "imagenet"}, "imagenet is unknown: use one of digits, npz"),
    "no name": ({"name": None}, "None is unknown"),
    "preprocess": ({"preprocess": "whiten"}, "whiten is unknown: use one of standardize, center"),
    "zero train": ({"train": 0}, "train is 0: use an integer of at least 1"),
    "zero test": ({"test": 0}, "test is 0"),
    "negative train": ({"train": -3}, "train is -3"),
    "train no integer": ({"train": 2.0}, "train is 2.0"),
    "train true": ({"train": True}, "train is True"),
    "train too large": ({"train": 91}, "train is 91, but the data have 90: use at most 90"),
    "test too large": ({"test": 31}, "test is 31, but the data have 30: use at most 30"),
    "negative seed": ({"seed": -1}, "seed is -1"),
    "text seed": ({"seed": "0"}, "seed is '0'"),
    "digits with a path": ({"name": "digits"}, "path .*data.npz is not used by digits.*: remove it"),
    "npz without a path": ({"path": None}, "npz needs a path: give the .npz file"),
    "cifar10 without a path": ({"name": "cifar10", "path": None}, "cifar10 needs a path: .*cntk-bench fetch"),
    "no file": ({"path": "nowhere/data.npz"}, "no file nowhere/data.npz"),
    "a folder": ({"path": "."}, "not a readable .npz file .*not a plain file.*give one written by np.savez"),
    "an empty path": ({"path": ""}, "path cannot be used: it is empty: give a path"),
}


@pytest.mark.parametrize("changes, message", BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS.keys())
def test_bad_arguments(file, changes, message):
    arguments = {"name": "npz", "path": file} | changes
    with pytest.raises(UserError, match=message) as error:
        data.load(arguments.pop("name"), **arguments)
    one_line(error)


@pytest.mark.parametrize("unknown", [{"shuffle": True}, {"steps": ("zca",)}, {"data": 1, "train": 5}])
def test_an_unknown_parameter_is_told_by_the_name_that_users_call(file, unknown):
    words = (
        f"^load_images has no parameter {next(iter(unknown))}: it has name, path, classes, .*zca_regularizer$"
    )
    with pytest.raises(TypeError, match=words):
        data.load("npz", path=file, **unknown)


def test_missing_arrays_are_named(tmp_path):
    path = write(tmp_path / "data.npz", {"x_train": X, "labels": Y, "x_test": X})
    with pytest.raises(UserError, match="no array y_train, y_test: name its arrays x_train") as error:
        data.load("npz", path=path)
    one_line(error)


def test_pickles_are_refused_unopened(tmp_path):
    trace = tmp_path / "opened"
    bomb = np.empty(90, object)
    bomb[:] = Bomb(trace)
    with_objects, plain = tmp_path / "objects.npz", tmp_path / "pickle.npz"
    write(with_objects, GOOD | {"y_train": bomb})
    plain.write_bytes(pickle.dumps(Bomb(trace)))
    for path in (with_objects, plain):
        with pytest.raises(UserError, match=path.name) as error:
            data.load("npz", path=path)
        one_line(error)
    assert not trace.exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_truncation_and_damage_is_noticed(tmp_path, save):
    path = tmp_path / "data.npz"
    save(path, **arrays(n_train=6, n_test=3, size=2, channels=1))
    intact, whole = path.read_bytes(), data.load("npz", path=path).fingerprint
    for length in range(0, len(intact), 41):
        path.write_bytes(intact[:length])
        with pytest.raises(UserError, match=path.name) as error:
            data.load("npz", path=path)
        one_line(error)
    refused = 0
    for place in range(0, len(intact), 17):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 0xFF]) + intact[place + 1 :])
        try:
            # The changed byte was a date or the like in a zip header.
            assert data.load("npz", path=path).fingerprint == whole
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 30


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "data.npz"
    with path.open("wb") as npy:
        np.save(npy, X)
    with pytest.raises(UserError, match="not a readable .npz") as error:
        data.load("npz", path=path)
    one_line(error)
    path.write_text("x_train")
    with pytest.raises(UserError, match="not a readable .npz"):
        data.load("npz", path=path)


def test_a_forged_size_is_refused(tmp_path, file):
    shape, forged = b"(90, 4, 4, 3), }  ", b"(99999999999999,)}"
    intact = file.read_bytes()
    assert intact.count(shape) == 1
    file.write_bytes(intact.replace(shape, forged))
    with pytest.raises(UserError, match="x_train in .* cannot be read") as error:
        data.load("npz", path=file)
    one_line(error)


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    for module in ("torchvision", "torchvision.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    for call in (lambda: data.load("svhn", path=tmp_path), lambda: data.fetch("mnist", tmp_path)):
        with pytest.raises(UserError, match=r"torchvision.*cntk-bench\[torch\]") as error:
            call()
        one_line(error)


@pytest.mark.parametrize("name", ["digits", "npz", "cifar"])
def test_only_official_data_are_fetched(tmp_path, name):
    with pytest.raises(UserError, match=f"{name}.* is not fetched.*cifar10") as error:
        data.fetch(name, tmp_path)
    one_line(error)


def test_identity_does_not_depend_on_the_order():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), np.uint8)
    labels, order = np.array([0, 1, 2, 0, 1]), [3, 0, 4, 1, 2]
    assert digest(images[order], labels[order]) == digest(images, labels)
    assert digest(images, labels[order]) != digest(images, labels)
    assert digest(images[1:], labels[1:]) != digest(images, labels)


def test_a_file_that_is_not_cifar10_is_not_called_so(tmp_path, caplog):
    path = tmp_path / "not-cifar10.npz"
    images, labels = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), np.uint8), np.arange(20) % 10
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert data.load("cifar10", path=path).name == "npz"
    assert "does not hold the images of cifar10" in caplog.text


def test_images_that_float32_would_lose_are_refused(tmp_path):
    """Predictions do not depend on an image's brightness, unless it underflows to 0 and is lost."""
    x, y = np.random.default_rng(0).random((6, 4, 4)), np.arange(6) % 2
    for test in (x * 1e-46, np.concatenate([x[:5], x[5:] * 1e-40])):
        np.savez(tmp_path / "dim.npz", x_train=x, y_train=y, x_test=test, y_test=y)
        with pytest.raises(UserError, match="which float32 cannot hold: scale the images up"):
            data.load("npz", path=tmp_path / "dim.npz", preprocess="none")
    np.savez(tmp_path / "black.npz", x_train=x, y_train=y, x_test=x * 0, y_test=y)
    assert not data.load("npz", path=tmp_path / "black.npz", preprocess="none").x_test.any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("asked", [{}, {"preprocess": ["zca"]}, {"statistics": [0, 1e-310]}])
def test_images_that_float32_cannot_hold_as_prepared_are_refused(tmp_path, asked):
    """The test images are fine, but the preparation overflows float32; NumPy itself must not warn."""
    x, y = np.random.default_rng(0).random((6, 4, 4)), np.arange(6) % 2
    train = x * (1e-310 if "statistics" in asked else 1e-40)
    np.savez(tmp_path / "far.npz", x_train=train, y_train=y, x_test=x, y_test=y)
    with pytest.raises(UserError, match=r"image \d has a pixel of .* as prepared, which float32 cannot hold"):
        data.load("npz", path=tmp_path / "far.npz", **asked)


def test_statistics_of_the_subset_or_given(tmp_path):
    x, y = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 2)).astype(np.uint8), np.arange(20) % 2
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    full, subset = (
        data.load("npz", path=tmp_path / "d.npz", train=6, statistics=kind) for kind in ("full", "subset")
    )
    chosen = x[full.train_index].astype(float).transpose(0, 3, 1, 2)
    mean, deviation = chosen.mean((0, 2, 3)), chosen.std((0, 2, 3))
    assert abs(subset.x_train.mean((0, 2, 3))).max() < 1e-6 < abs(full.x_train.mean((0, 2, 3))).max()
    np.testing.assert_allclose(
        subset.x_train, (chosen - mean[:, None, None]) / deviation[:, None, None], rtol=1e-5, atol=1e-6
    )
    given = data.load("npz", path=tmp_path / "d.npz", train=6, statistics=[*mean, *deviation])
    np.testing.assert_array_equal(given.x_train, subset.x_train)
    for wrong, words in (
        ("some", "statistics some is unknown: use one of full, subset, or numbers"),
        ([1.0, 2.0], "has 2 numbers: give the means of the 2 channels"),
        ([1.0, 2.0, 0.0, 1.0], "deviations, which are above 0"),
        (
            ["a"] * 4,
            "preprocess.statistics lists 'a', which is no finite number: use full, subset, or a list",
        ),
        ([1.0, 2.0, "1", 1.0], "lists '1', which is no"),
        ([1.0, 2.0, float("nan"), 1.0], "lists nan, which is no"),
        ([1.0, 2.0, True, 1.0], "lists True, which is no"),
        ([[1.0, 2.0], [1.0]], "lists \\[1.0, 2.0\\], which is no"),
        ([0, 0, 10**5000, 1], "lists an integer of 16610 bits, which is no"),
        ([0, 0, 1j, 1], "lists 1j, which is no"),
        (None, "preprocess.statistics is None: use full, subset, or a list of numbers"),
        (3, "preprocess.statistics is 3: use full"),
    ):
        with pytest.raises(UserError, match=words):
            data.load("npz", path=tmp_path / "d.npz", statistics=wrong)
    for numbers in (np.array([*mean, *deviation]), [np.float64(one) for one in (*mean, *deviation)]):
        again = data.load("npz", path=tmp_path / "d.npz", train=6, statistics=numbers)
        assert again.fingerprint == given.fingerprint
    steps, single = ["standardize", "center"], np.float32([1, 2, 3, 4])
    one, other = (
        data.load("npz", path=tmp_path / "d.npz", preprocess=steps, statistics=numbers)
        for numbers in (single, [1, 2, 3, 4])
    )
    assert one.recipe == other.recipe
