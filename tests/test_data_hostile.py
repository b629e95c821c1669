"""Hostile or broken files and paths: refused in one line, and nothing waits for ever."""

import gzip
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cntk_bench import data
from cntk_bench.data import idx, npz
from cntk_bench.errors import UserError


def test_pipes_and_devices_keep_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    os.mkfifo(tmp_path / list(idx.FILES)[0])
    for name, path in (("npz", tmp_path / "pipe.npz"), ("npz", Path("/dev/zero")), ("mnist", tmp_path)):
        with pytest.raises(UserError):
            data.load(name, path=path)


def test_an_archive_that_unpacks_to_more_than_there_is(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for key in npz.KEYS:
            file.writestr(f"{key}.npy", bytes(2**20))
    monkeypatch.setattr(npz.memory, "available", lambda: 2**21)
    with pytest.raises(UserError, match="unpacks to 0.00391 GiB, .* 0.00195 GiB are free: give fewer"):
        data.load("npz", path=path)


def test_a_name_without_its_ending_is_counted(tmp_path, monkeypatch):
    """NumPy reads a member x_train as x_train.npy, so its size must count, too."""
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for key in npz.KEYS:
            file.writestr(key, bytes(2**20))
    monkeypatch.setattr(npz.memory, "available", lambda: 2**22 - 1)
    with pytest.raises(UserError, match="unpacks to 0.00391 GiB"):
        data.load("npz", path=path)
    monkeypatch.setattr(npz.memory, "available", lambda: 2**22)
    with pytest.raises(UserError, match="x_train in .* cannot be read"):  # zeros are not an array file
        data.load("npz", path=path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["y_test.npy", "y_test"])
def test_an_array_that_is_there_twice(tmp_path, second):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name in [*(f"{key}.npy" for key in npz.KEYS), second]:
            file.writestr(name, npy("(2, )"))
    with pytest.raises(UserError, match="has the array y_test twice: give a file with one of each"):
        data.load("npz", path=path)


def npy(shape, descr="'|u1'"):
    """An .npy file whose header claims a shape and a type."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)


HEADERS = {
    "more than int64": npy(f"({10**30},)"),
    "a truth value": npy("(True,)"),
    "negative": npy("(-1,)"),
    "a terabyte": npy(f"({10**12},)"),
    "many axes": npy("(" + "1," * 100 + ")"),
    "many long axes": npy("(0," + f"{10**9}," * 3 + "1," * 60 + ")"),
    "no literal": npy("1 ("),
    "deep": npy("(" * 5000),
    "one nested": npy("(2,)", "[('a', 'u1')]"),
    "long names": npy("(2,)", f"[({'a' * 2000!r}, 'u1')]"),
    "escapes": npy("(2,)", r"[('\x1b]0;title\x07', 'u1')]"),
    "objects": npy("(2,)", "'|O'"),
    "no header": b"\x93NUMPY\x01\x00\xff\xff{",
    "another version": b"\x93NUMPY\x09\x09" + bytes(90),
}


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS.keys())
def test_headers_that_claim_what_cannot_be(tmp_path, content):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as file:
        for key in npz.KEYS:
            file.writestr(f"{key}.npy", content)
    with pytest.raises(UserError, match="^x_train") as caught:
        data.load("npz", path=path)
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(5, "Input/output error"), EOFError("\x1b[2J\n" * 900)]
)
def test_whatever_reading_says_is_one_line(tmp_path, monkeypatch, error):
    path = tmp_path / "data.npz"
    np.savez(path, **dict.fromkeys(npz.KEYS, np.zeros(2, np.uint8)))

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(np.lib.format, "read_array", fail)
    words = {MemoryError: "MemoryError", OSError: "Input/output error", EOFError: r"\\x1b\[2J"}[type(error)]
    with pytest.raises(
        UserError, match=f"x_train in .* cannot be read .*{words}.*: write plain arrays"
    ) as caught:
        data.load("npz", path=path)
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damage_of_every_byte_is_one_line(tmp_path, method):
    path, rng = tmp_path / "data.npz", np.random.default_rng(0)
    sound = {
        f"{part}_{which}": array
        for which in ("train", "test")
        for part, array in (
            ("x", rng.integers(0, 256, (3, 2, 2), dtype=np.uint8)),
            ("y", np.array([0, 1, 1])),
        )
    }
    with zipfile.ZipFile(path, "w", method) as file:
        for key, array in sound.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            file.writestr(f"{key}.npy", buffer.getvalue())
    intact, whole, refused = path.read_bytes(), data.load("npz", path=path).fingerprint, 0
    for place in range(0, len(intact), 3):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 0xFF]) + intact[place + 1 :])
        try:
            assert data.load("npz", path=path).fingerprint == whole
        except UserError as error:
            assert len(str(error)) <= 300 and str(error).isprintable()
            refused += 1
    assert refused > 100


def test_a_gzip_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "LARGEST", 10**5)
    for name in idx.FILES:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(UserError, match="unpacks to more than 100000 bytes"):
        data.load("mnist", path=tmp_path)


IMPOSSIBLE = [
    ("~nobody_of_this_name/x.npz", "path cannot be used: ~nobody_of_this_name is the home of nobody"),
    ("a\0b.npz", "path cannot be used: it holds a null character"),
    ("\ud800.npz", r"path cannot be used: \\ud800.npz has a character"),
    ("", "path cannot be used: it is empty"),
    ("x" * 5000 + ".npz", "File name too long"),
]


@pytest.mark.parametrize(
    ("path", "words"), [*IMPOSSIBLE, ("\udcff.npz", r"no file \\udcff.npz")], ids=range(6)
)
def test_paths_that_cannot_be(path, words):
    with pytest.raises(UserError, match=words) as caught:
        data.load("npz", path=path)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 300


@pytest.mark.parametrize(("path", "words"), IMPOSSIBLE, ids=range(5))
@pytest.mark.parametrize("name", ["cifar10", "svhn", "mnist"])
def test_fetch_to_a_path_that_cannot_be(torchvision, name, path, words):
    with pytest.raises(UserError, match=words) as caught:
        data.fetch(name, path, progress=False)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 300


@pytest.mark.parametrize("train", [10**5000, "1" * 10**6, [1] * 10**6, 10.0, -(10**400)], ids=range(5))
def test_numbers_that_cannot_be_have_a_short_message(train):
    with pytest.raises(UserError, match="^train is") as caught:
        data.load("digits", train=train)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 300
