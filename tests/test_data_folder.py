"""Folders of pictures: classes from folders or a table, splits, what is skipped, and what is refused."""

import logging
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from cntk_bench import data
from cntk_bench.data import folder, order
from cntk_bench.errors import UserError

SIDE = 6


def pixels(*key, channels=3):
    """Pixels that belong to one picture alone."""
    seed = [sum(map(ord, str(part))) * 1000 + len(str(part)) for part in key]
    shape = (SIDE, SIDE, 3) if channels == 3 else (SIDE, SIDE)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def put(path, *key, channels=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(*key, channels=channels)).save(path)


@pytest.fixture
def photos(tmp_path):
    """train/ and test/ with folders for two classes; each has twelve or four pictures."""
    for part, n in (("train", 12), ("test", 4)):
        for name in ("cat", "dog"):
            for number in range(n):
                put(tmp_path / "photos" / part / name / f"{number}.png", part, name, number)
    return tmp_path / "photos"


def load(path, **asked):
    return data.load("folder", path=path, preprocess="none", **asked)


def refused(words, path, **asked):
    with pytest.raises(UserError, match=words) as caught:
        load(path, **asked)
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()


def expected(part, name, number):
    return (np.moveaxis(pixels(part, name, number), -1, 0) / 255).astype(np.float32)


def test_folders_name_classes(photos):
    found = load(photos)
    assert (found.name, found.classes, found.class_names) == ("folder", 2, ("cat", "dog"))
    assert found.x_train.shape == (24, 3, SIDE, SIDE) and found.x_test.shape == (8, 3, SIDE, SIDE)
    for part, n in (("train", 12), ("test", 4)):
        x, y = getattr(found, f"x_{part}"), getattr(found, f"y_{part}")
        index = getattr(found, f"{part}_index")
        assert sorted(index) == list(range(2 * n))
        for image, label, place in zip(x, y, index, strict=True):  # places count class by class, file by file
            assert label == place // n
            assert np.array_equal(image, expected(part, ("cat", "dog")[label], place % n))


def test_the_images_are_those_of_a_file_of_arrays(photos, tmp_path):
    arrays = {}
    for part, n in (("train", 12), ("test", 4)):
        keys = [(part, name, number) for name in ("cat", "dog") for number in range(n)]
        arrays[f"x_{part}"] = np.stack([pixels(*key) for key in keys])
        arrays[f"y_{part}"] = [key[1] for key in keys]
    np.savez(tmp_path / "data.npz", **arrays)
    one, other = (
        load(photos, train=9, seed=3),
        data.load("npz", path=tmp_path / "data.npz", preprocess="none", train=9, seed=3),
    )
    assert one.fingerprint == other.fingerprint and other.class_names == ("cat", "dog")
    assert np.array_equal(one.train_index, other.train_index)


def test_the_order_is_natural_and_the_same_everywhere(tmp_path):
    names = ["img10", "img9", "Bear", "apple", "été", "Öl", "猫", "a b", "10", "9", "-x"]
    for name in names:
        for number in (10, 9):
            put(tmp_path / "train" / name / f"{number}.PNG", name, number)
        put(tmp_path / "test" / name / "1.png", name, 1)
    found = load(tmp_path)
    natural = ("9", "10", "-x", "a b", "apple", "Bear", "img9", "img10", "été", "Öl", "猫")
    assert sorted(natural) == sorted(names)
    assert found.class_names == natural
    first = found.x_train[found.train_index == 0][0]
    assert np.array_equal(first, (np.moveaxis(pixels("9", 9), -1, 0) / 255).astype(np.float32))


def test_two_ways_to_write_a_name_are_one_class(tmp_path):
    composed, apart = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    assert composed != apart
    for part, name in (("train", composed), ("test", apart)):
        put(tmp_path / part / name / "1.png", part, 1)
        put(tmp_path / part / "tea" / "1.png", part, 2)
    assert load(tmp_path).class_names == (composed, "tea")
    put(tmp_path / "train" / apart / "2.png", "train", 3)
    refused("has two folders of the class Café, written in two ways: put their pictures", tmp_path)


def test_what_systems_leave_behind_is_passed_over(photos, caplog):
    calm = load(photos).fingerprint
    for place in (photos, photos / "train", photos / "train" / "cat"):
        for name in (".hidden.png", "Thumbs.db", "desktop.ini", ".DS_Store", "._1.png"):
            (place / name).write_bytes(b"x")
        put(place / "__MACOSX" / "1.png", "never", 1)
        put(place / ".cache" / "1.png", "never", 1)
    with caplog.at_level(logging.WARNING):
        assert load(photos).fingerprint == calm and not caplog.text
    (photos / "train" / "cat" / "notes.txt").write_text("x")
    (photos / "train" / "dog" / "moving.gif").write_bytes(b"x")
    put(photos / "train" / "loose.png", "never", 1)
    with caplog.at_level(logging.WARNING):
        assert load(photos).fingerprint == calm
    assert "3 files are not read, such as" in caplog.text and "loose.png" in caplog.text


def test_links_are_followed_and_circles_end(photos, tmp_path):
    plain = load(photos).fingerprint
    elsewhere = tmp_path / "elsewhere"
    (photos / "train" / "cat").rename(elsewhere)
    (photos / "train" / "cat").symlink_to(elsewhere)
    (elsewhere / "3.png").rename(tmp_path / "3.png")
    (elsewhere / "3.png").symlink_to(tmp_path / "3.png")
    assert load(photos).fingerprint == plain
    (elsewhere / "again").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(photos / "train")
    found = load(photos)
    assert np.bincount(found.y_train).tolist() == [12 + 12, 12]  # a linked folder counts once


@pytest.mark.parametrize("target", ["train", ".", "train/dog"])
def test_a_link_is_no_class_of_pictures_that_have_one(photos, target):
    """`ln -s photos/train there` a second time puts the link into it."""
    (photos / "train" / "more").symlink_to(photos / target)
    refused("more would be a class, but leads to .*: remove it", photos)


def test_folders_within_a_class_are_of_it(photos):
    put(photos / "train" / "cat" / "2019" / "may" / "1.png", "more", 1)
    assert np.bincount(load(photos).y_train).tolist() == [13, 12]


def test_some_classes_by_name(photos):
    one, other = load(photos, classes=["dog", "cat"]), load(photos, classes=[1, 0])
    assert one.fingerprint == other.fingerprint
    assert one.class_names == ("dog", "cat") and one.classes_used == (1, 0)
    refused("classes has dgo, which no class is called: did you mean dog?", photos, classes=["dgo", "cat"])
    refused(
        "zebra, which no class is called: the classes are cat, dog",
        photos,
        classes=["cat", "zebra"],
    )
    refused("use a list of at least two different labels", photos, classes=["cat", 0])


# Splits


@pytest.fixture
def flat(tmp_path):
    for name, n in (("cat", 20), ("dog", 10), ("rare", 2)):
        for number in range(n):
            put(tmp_path / "flat" / name / f"{number}.jpg", name, number)
    return tmp_path / "flat"


def test_without_a_split_a_share_of_each_class_is_held_out(flat):
    found = load(flat, test_share=0.2)
    assert np.bincount(found.y_test).tolist() == [4, 2, 1]
    assert np.bincount(found.y_train).tolist() == [16, 8, 1]
    images = {image.tobytes() for image in (*found.x_train, *found.x_test)}
    assert len(images) == 32
    again, other = load(flat, test_share=0.2), load(flat, test_share=0.2, seed=1)
    assert again.fingerprint == found.fingerprint
    assert {x.tobytes() for x in other.x_test} != {x.tobytes() for x in found.x_test}
    more = load(flat, test_share=0.4)
    assert {x.tobytes() for x in found.x_test} < {x.tobytes() for x in more.x_test}


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_every_class_is_on_both_sides(share):
    labels = np.array([0] * 2 + [1] * 3 + [2] * 100)
    train, test = order.held_out(labels, share, 5)
    assert sorted([*train, *test]) == list(range(105))
    counts = np.bincount(labels[test])
    assert counts.tolist() == [1, min(max(round(3 * share), 1), 2), min(max(round(100 * share), 1), 99)]


def test_what_is_not_split_is_refused_with_the_remedy(flat, photos):
    refused(r"does not say which images are for testing: give dataset.test_share=0\.2 to hold out", flat)
    refused("dataset.test_share is 0.2, but .*photos is split already: leave", photos, test_share=0.2)
    (photos / "test").rename(photos / "val")
    refused("has train/ but no test/: rename val/ to test/, or give dataset.path=.*train and", photos)
    (photos / "val").rename(photos / "other")
    refused("has train/ but no test/: add test/, or give", photos)
    put(flat / "single" / "1.png", "single", 1)
    refused("the class single has one image, which cannot be split: add another", flat, test_share=0.2)


def test_classes_may_be_called_train_and_test(tmp_path):
    for name in ("train", "test", "tram"):
        for number in range(4):
            put(tmp_path / name / f"{number}.png", name, number)
    assert load(tmp_path, test_share=0.25).class_names == ("test", "train", "tram")


# Channels and sizes


def test_grey_pictures_have_one_channel_and_mixed_ones_three(photos):
    for file in photos.rglob("*.png"):
        put(file, *file.relative_to(photos).with_suffix("").parts, channels=1)
    grey = load(photos)
    assert grey.x_train.shape[1] == 1
    three = load(photos, channels=3)
    assert three.x_train.shape[1] == 3 and (three.x_train == grey.x_train).all()
    put(photos / "test" / "dog" / "3.png", "colour", 1)  # a single picture in colour
    mixed = load(photos)
    assert (mixed.x_train == grey.x_train).all() and mixed.x_train.shape[1] == 3 == mixed.x_test.shape[1]
    one = load(photos, channels=1)
    assert one.x_test.shape[1] == 1 and np.array_equal(one.x_train, grey.x_train)


def test_sizes_that_differ_are_refused_or_brought_to_one(photos):
    Image.new("RGB", (7, 7)).save(photos / "train" / "dog" / "5.png")
    refused("5.png has 7 x 7 pixels, and others 6 x 6: give dataset.size, such as 32, to bring all", photos)
    Image.new("RGB", (7, 9)).save(photos / "train" / "cat" / "0.png")
    refused("0.png has 7 x 9 pixels, which is no square: give dataset.size", photos)
    assert load(photos, size=4, fit="pad").x_train.shape == (24, 3, 4, 4)


def test_more_than_memory_has_room_for(photos, monkeypatch):
    monkeypatch.setattr(folder.memory, "available", lambda: 3 * 32 * SIDE**2 - 1)
    refused("32 images of 6 x 6 pixels need .* GiB, and .* GiB are free: give a smaller", photos)


BAD = {
    "size": ({"size": 0}, "size is 0: use an integer from 1 to 4096"),
    "true": ({"size": True}, "size is True: use an integer"),
    "fit": ({"fit": "fill"}, "fit fill is unknown: use one of crop, pad, stretch"),
    "channels": ({"channels": 4}, "channels is 4: use 1 for grey levels or 3 for RGB"),
    "share": ({"test_share": 1.0}, "test_share is 1.0: use a number between 0 and 1"),
    "share of text": ({"test_share": "0.2"}, "test_share is 0.2: use a number"),
    "labels": ({"labels": "labels.xlsx"}, r"labels labels.xlsx: use a file that ends in .csv, .npz"),
    "path": ({"path": "nowhere"}, "nowhere is not there: give the folder that holds the pictures"),
    "null in a path": ({"path": "a\0b"}, "path cannot be used: it holds a null character"),
    "long": ({"path": "x" * 5000}, "File name too long"),
    "a file": ({"path": os.path.abspath(__file__)}, "is no folder: give the folder"),
    "no path": ({"path": None}, "data set folder needs a path: give the folder of pictures"),
}


@pytest.mark.parametrize("asked, words", BAD.values(), ids=BAD.keys())
def test_bad_arguments(photos, asked, words):
    refused(words, **{"path": photos} | asked)


def test_keys_of_pictures_are_for_folders():
    keys = {"size": 8, "fit": "pad", "channels": 1, "labels": "a.csv", "test_share": 0.5}
    for key, value in keys.items():
        with pytest.raises(UserError, match=f"dataset.{key} is .*, which is for pictures: leave it out, or"):
            data.load("digits", **{key: value})


def test_folders_that_are_no_classes(tmp_path):
    (tmp_path / "empty").mkdir()
    refused("empty has no folder of a class: put pictures into one of each class", tmp_path / "empty")
    put(tmp_path / "flat" / "cat" / "1.png", "cat", 1)
    (tmp_path / "flat" / "dog").mkdir()
    refused("dog holds no PNG or JPEG picture: add some, or remove", tmp_path / "flat", test_share=0.5)
    (tmp_path / "flat" / "dog").rmdir()
    put(tmp_path / "flat" / "cat" / "2.png", "cat", 2)
    refused("has the class cat only: give at least two classes", tmp_path / "flat", test_share=0.5)
    put(tmp_path / "flat" / "a\x1b[2Jb" / "2.png", "cat", 2)
    refused("name classes by 1 to 200 characters, all visible", tmp_path / "flat", test_share=0.5)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_listed(photos):
    (photos / "train" / "cat").chmod(0)
    refused("cannot be listed .*: make it readable", photos)
    (photos / "train" / "cat").chmod(0o755)


def test_a_class_of_test_images_alone(photos):
    put(photos / "test" / "zebra" / "1.png", "zebra", 1)
    refused("y_test has the class zebra, which no training image has: remove these test images", photos)


def test_train_and_test_are_known_in_any_case(photos):
    calm = load(photos).fingerprint
    (photos / "train").rename(photos / "Train")
    (photos / "test").rename(photos / "TEST")
    assert load(photos).fingerprint == calm
    (photos / "Train").rename(photos / "else")
    refused("has TEST/ but no train/: add train/, or give dataset.path=.*TEST and", photos)
    (photos / "else").rename(photos / "Test")
    refused("has (TEST/ and Test/|Test/ and TEST/): put their folders into one", photos)


def test_folders_beside_train_and_test_are_told(photos, caplog):
    calm = load(photos).fingerprint
    put(photos / "val" / "cat" / "1.png", "never", 1)
    put(photos / "10 more" / "1.png", "never", 1)
    with caplog.at_level(logging.WARNING):
        assert load(photos).fingerprint == calm
    assert caplog.messages == [f"{photos}: 10 more/, val/ beside train/ and test/ is not read"]


def test_classes_that_differ_in_case_alone_are_told(photos, caplog):
    with caplog.at_level(logging.WARNING):
        assert load(photos).classes == 2 and not caplog.messages
        for part in ("train", "test"):
            put(photos / part / "Cat" / "1.png", part, "Cat", 1)
        assert load(photos).class_names == ("Cat", "cat", "dog")
    assert caplog.messages == [
        "Cat and cat are two classes, whose names differ in case alone: write them alike if they are one"
    ]


def test_classes_called_by_integers_are_chosen_by_these(tmp_path):
    for part in ("train", "test"):
        for name in ("1", "2", "10"):
            put(tmp_path / part / name / "1.png", part, name)
    one, other = (load(tmp_path, classes=classes) for classes in ([2, 10], ["2", "10"]))
    assert one.fingerprint == other.fingerprint and one.class_names == ("2", "10")
    refused("classes has 0, which no class is called: did you mean 10", tmp_path, classes=[0, 1])
    refused("a label in classes is True", tmp_path, classes=[True, 1])
