"""CIFAR's binary archive: the same images as in the pickles, without torch and without unpacking it."""

import hashlib
import os
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from publishers import binaries, packed, pickles, records
from test_data_archives import archive as packed_in
from test_data_archives import special

from cntk_bench import data
from cntk_bench.data import binary, cifar, classes, identity, official
from cntk_bench.errors import UserError

BOTH = ("cifar10", "cifar100")


def put(name, folder, content, patch):
    """Write an archive with this content to a folder, and make it pass for the published one."""
    path = folder / binary.ARCHIVES[name].file
    path.write_bytes(content)
    changed = replace(binary.ARCHIVES[name], sha256=hashlib.sha256(content).hexdigest())
    patch(binary, "ARCHIVES", binary.ARCHIVES | {name: changed})
    return path


@pytest.mark.parametrize("name", BOTH)
def test_both_archives_give_the_same_arrays(server, tmp_path, monkeypatch, name):
    pickles(name, None, server, monkeypatch.setattr)
    data.fetch(name, tmp_path / "pickles", progress=False)
    binaries(name, None, server, monkeypatch.setattr)
    data.fetch(name, tmp_path / "bytes", progress=False)
    assert [path.name for path in (tmp_path / "bytes").iterdir()] == [binary.ARCHIVES[name].file]
    found = [official.read(name, tmp_path / folder) for folder in ("pickles", "bytes")]
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other) and one.dtype == other.dtype
    loaded = [data.load(name, path=tmp_path / folder) for folder in ("pickles", "bytes")]
    assert loaded[0].fingerprint == loaded[1].fingerprint


def test_torch_is_needed_neither_to_fetch_nor_to_read(server, tmp_path, monkeypatch):
    binaries("cifar10", None, server, monkeypatch.setattr)
    monkeypatch.undo()
    for module in ("torch", "torchvision", "torchvision.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    assert official.find_spec("torchvision") is None
    binaries("cifar10", None, server, monkeypatch.setattr)
    data.fetch("cifar10", tmp_path, progress=False)
    assert len(data.load("cifar10", path=tmp_path).y_train) == 40


def test_what_a_folder_has_is_read_whether_torch_is_there_or_not(server, tmp_path, monkeypatch):
    for make, folder in ((pickles, "pickles"), (binaries, "bytes")):
        make("cifar10", None, server, monkeypatch.setattr)
        data.fetch("cifar10", tmp_path / folder, progress=False)
    server.requests.clear()
    for torch in (None, True):
        monkeypatch.setattr(official, "find_spec", lambda _, torch=torch: torch)
        for folder in ("pickles", "bytes"):
            data.fetch("cifar10", tmp_path / folder, progress=False)
            assert len(data.load("cifar10", path=tmp_path / folder).y_test) == 12
    assert not server.requests


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("make", [pickles, binaries])
def test_the_archive_and_its_folder_stand_for_the_folder_above(server, tmp_path, monkeypatch, name, make):
    make(name, None, server, monkeypatch.setattr)
    data.fetch(name, tmp_path, progress=False)
    expected = data.load(name, path=tmp_path).fingerprint
    server.requests.clear()
    for path in tmp_path.iterdir():
        assert data.load(name, path=path).fingerprint == expected
        data.fetch(name, path, progress=False)
    assert not server.requests


def test_unpacked_binary_files_are_refused_with_the_remedy(tmp_path):
    folder = tmp_path / binary.ARCHIVES["cifar10"].folder
    folder.mkdir()
    for call in (data.load, data.fetch):
        with pytest.raises(UserError, match="give the folder of cifar-10-binary.tar.gz"):
            call("cifar10", path=folder)


def test_images_of_the_binary_archive_are_known_by_themselves(server, tmp_path, monkeypatch):
    x, y, x_test, y_test = binaries("cifar10", None, server, monkeypatch.setattr)
    data.fetch("cifar10", tmp_path, progress=False)
    assert data.load("cifar10", path=tmp_path).name == "npz"  # these are not the published images
    known = identity.digest(x, y), identity.digest(x_test, y_test)
    monkeypatch.setitem(identity._DIGESTS, "cifar10", known)
    assert data.load("cifar10", path=tmp_path).name == "cifar10"


def test_nothing_leaves_the_archive(tmp_path, monkeypatch):
    inner = tmp_path / "inner"
    inner.mkdir()
    sound = records("cifar10")
    first = next(iter(sound))
    made = packed_in(
        inner,
        [
            ("../outside", b"x"),
            ("/tmp/absolute", b"x"),
            (special(first, tarfile.SYMTYPE, "/etc/passwd"), b""),
            *sound.items(),
        ],
    )
    content = made.read_bytes()
    made.unlink()
    put("cifar10", inner, content, monkeypatch.setattr)
    before = sorted(tmp_path.rglob("*"))
    x, y, *_ = binary.read("cifar10", inner)
    assert len(x) == len(y) == 40 and sorted(tmp_path.rglob("*")) == before


def without_the_last(files):
    return dict(list(files.items())[:-1])


BROKEN = {
    "no archive": (lambda files: b"no archive", "is not the published archive"),
    "cut off": (lambda files: packed(files)[:-2000], "is not the published archive"),
    "a file short": (
        lambda files: packed(without_the_last(files)),
        "it lacks cifar-10-batches-bin/test_batch",
    ),
    "a byte short": (lambda files: packed({k: v[:-1] for k, v in files.items()}), "has a part of a record"),
    "without end": (lambda files: packed({"x": bytes(10**6)}), "it unpacks to more than 500000 bytes"),
}


@pytest.mark.parametrize("make, words", BROKEN.values(), ids=BROKEN.keys())
def test_an_archive_that_is_broken_before_its_checksum(tmp_path, monkeypatch, make, words):
    monkeypatch.setattr(cifar, "LARGEST", 500_000)
    put("cifar10", tmp_path, make(records("cifar10")), monkeypatch.setattr)
    with pytest.raises(UserError, match=words) as caught:
        data.load("cifar10", path=tmp_path)
    assert "fetch" in str(caught.value) and len(str(caught.value)) <= 300 and str(caught.value).isprintable()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_keeps_nobody_waiting(tmp_path, monkeypatch, make):
    make(tmp_path / binary.ARCHIVES["cifar10"].file)
    monkeypatch.setattr(official, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="cannot be read .*: fetch it there"):
        data.load("cifar10", path=tmp_path)
    with pytest.raises(UserError, match="is no plain file: remove it and fetch again"):
        data.fetch("cifar10", tmp_path, progress=False)


def test_the_tables_are_those_of_torchvision(torchvision):
    sets = torchvision.datasets
    for name, cls in (("cifar10", sets.CIFAR10), ("cifar100", sets.CIFAR100)):
        ours = cifar.ARCHIVES[name]
        assert (ours.url, ours.file, ours.md5) == (cls.url, cls.filename, cls.tgz_md5)
        assert ours.folder == cls.base_folder
        for part, theirs in (("train", cls.train_list), ("test", cls.test_list)):
            assert getattr(ours, part) == {f"{cls.base_folder}/{file}": md5 for file, md5 in theirs}
        assert ours.meta == {f"{cls.base_folder}/{cls.meta['filename']}": cls.meta["md5"]}
    assert list(classes.OFFICIAL["fashion-mnist"]) == sets.FashionMNIST.classes
    for name, k in (("cifar10", 10), ("cifar100", 100)):
        names = classes.OFFICIAL[name]
        assert len(set(names)) == k and sorted(names) == list(names)
