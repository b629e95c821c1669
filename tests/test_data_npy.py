"""Mapped arrays: the same data as from an .npz file, read only where used; and what cannot be mapped."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_data_hostile import HEADERS

from cntk_bench import data
from cntk_bench.data import npy, preparation, scaling
from cntk_bench.errors import UserError

RNG = np.random.default_rng(4)
KEYS = ("x_train", "y_train", "x_test", "y_test")


def arrays(dtype=np.uint8, text=False):
    made = {}
    for part, n in (("train", 1300), ("test", 60)):
        made[f"x_{part}"] = RNG.integers(0, 256, (n, 3, 3, 2)).astype(dtype)
        y = RNG.permutation(np.arange(n) % 4)
        made[f"y_{part}"] = np.array(["a10", "a9", "b", "Ü"])[y] if text else y
    return made


def put(folder, some):
    folder.mkdir(exist_ok=True)
    for key, array in some.items():
        np.save(folder / f"{key}.npy", array)
    return folder


ASKED = {
    "all": {},
    "some": {"train": 30, "test": 7, "seed": 2},
    "classes": {"train": 30, "classes": [2, 0]},
    "subset": {"train": 40, "statistics": "subset"},
    "random": {"train": 40, "order": "random", "draws": 3},
    "whitened": {"train": 40, "preprocess": ["contrast", "zca"], "classes": [3, 1]},
    "plain": {"preprocess": "none", "test": 9},
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_they_are_the_data_of_a_file(tmp_path, asked, dtype):
    some = arrays(dtype, text=True)
    put(tmp_path / "folder", some)
    np.savez(tmp_path / "data.npz", **some)
    one = data.load("npy", path=tmp_path / "folder", **asked)
    other = data.load("npz", path=tmp_path / "data.npz", **asked)
    assert one.fingerprint == other.fingerprint and one.recipe == other.recipe and one.name == "npy"
    assert one.class_names == other.class_names
    for key in ("x_train", "x_test", "y_train", "train_index", "test_index"):
        assert np.array_equal(getattr(one, key), getattr(other, key))


def test_fortran_order_and_big_endian_and_vectors(tmp_path):
    some = arrays(">f4")
    some["x_train"] = np.asfortranarray(some["x_train"])
    np.savez(tmp_path / "data.npz", **some)
    one = data.load("npy", path=put(tmp_path / "folder", some), train=50)
    assert one.fingerprint == data.load("npz", path=tmp_path / "data.npz", train=50).fingerprint
    vectors = some | {key: some[key].reshape(len(some[key]), -1) for key in ("x_train", "x_test")}
    assert data.load("npy", path=put(tmp_path / "folder", vectors)).x_train.shape == (1300, 18, 1, 1)


def test_fortran_order_is_told_where_it_does_not_fit_into_memory(tmp_path, monkeypatch, caplog):
    some = arrays()
    some["x_train"] = np.asfortranarray(some["x_train"])
    folder = put(tmp_path / "folder", some)
    npy.read(folder)
    assert not caplog.messages
    monkeypatch.setattr("cntk_bench.system.memory.available", lambda: some["x_test"].nbytes - 1)
    npy.read(folder)
    (said,) = caplog.messages  # no message about the test images, which are in C order
    assert "x_train.npy is larger than the free memory and in Fortran order" in said


def test_images_stay_on_the_disk(tmp_path):
    x_train, y_train, *_ = npy.read(put(tmp_path / "folder", arrays()))
    assert isinstance(x_train.base, np.memmap) and not x_train.flags.writeable
    assert type(y_train) is np.ndarray and y_train.flags.owndata


@pytest.mark.parametrize("steps", ["standardize", ["contrast", "zca"], ["center", "standardize"]])
def test_a_choice_of_images_is_fitted_as_their_copy(steps):
    """Statistics never gather the chosen images into a copy; the bits are those of the gathered images."""
    x = RNG.integers(0, 256, (1700, 2, 3, 3), dtype=np.uint8)
    index = RNG.permutation(1700)[:1201]
    recipe = preparation.Recipe(preparation.steps(steps))
    some = scaling.Some(x, index)
    assert len(some) == 1201 and some.shape == x[index].shape and some.dtype == x.dtype
    one, other = (preparation.fitted(images, recipe) for images in (some, x[index]))
    assert np.array_equal(one(x[:400]), other(x[:400]))
    assert recipe.description(some) == recipe.description(x[index])


# Run in a process that may use little memory of its own; pages of a mapped file do not count.
CHILD = """
import resource, sys
import numpy as np
from cntk_bench import data
from cntk_bench.system import memory

folder, small, room, asked = sys.argv[1], sys.argv[2], int(sys.argv[3]), eval(sys.argv[4])
data.load("npy", path=small)  # whatever libraries take
(own,) = [1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")]
resource.setrlimit(resource.RLIMIT_DATA, (own + room, own + room))
for one in asked:
    assert data.load("npy", path=folder, **one).x_train.shape == (500, 3, 16, 16)
print(memory.peak())
np.load(folder + "/x_train.npy")  # the same limit stops whoever reads the file whole
"""
ROOM = 2**25  # bytes
NUMBERS = (0.5, 0.5, 0.5, 1.0, 1.0, 1.0)


def mapped_folder(folder, n):
    """A folder with n training images; as a sparse file, the zeros take no disk space."""
    folder.mkdir()
    x = np.lib.format.open_memmap(folder / "x_train.npy", "w+", np.uint8, (n, 16, 16, 3))
    x[:: n // 50, 0] = 255
    del x
    np.save(folder / "y_train.npy", (np.arange(n) % 2).astype(np.uint8))
    np.save(folder / "x_test.npy", np.full((4, 16, 16, 3), 7, np.uint8))
    np.save(folder / "y_test.npy", np.array([0, 1, 0, 1]))
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's account of memory")
@pytest.mark.parametrize(
    ("size", "room", "asked", "most"),
    [
        # Only some images are read: the peak, with mapped pages and libraries, is below half the file.
        (2**30, 2**28, [{"preprocess": "none"}, {"statistics": NUMBERS, "classes": [1, 0]}], 2**29),
        # Statistics read every page, block by block; the system takes these back on demand: not counted.
        (ROOM + 2**22, ROOM, [{}, {"classes": [1, 0]}], np.inf),
    ],
    ids=["some images", "statistics of all"],
)
def test_a_large_array_is_not_loaded_whole(tmp_path, size, room, asked, most):
    folder, small = mapped_folder(tmp_path / "large", size // 768), mapped_folder(tmp_path / "small", 60)
    asked = [{"train": 500} | one for one in asked]
    command = [sys.executable, "-c", CHILD, *map(str, (folder, small, room, asked))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout, done.stderr
    assert int(done.stdout) < most
    assert done.returncode and "MemoryError" in done.stderr


# What cannot be mapped


def refused(words, folder):
    with pytest.raises(UserError, match=words) as caught:
        data.load("npy", path=folder)
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()


def test_missing_files_are_named(tmp_path):
    put(tmp_path / "folder", arrays())
    (tmp_path / "folder" / "y_test.npy").unlink()
    refused("has no file y_test.npy: give a folder with x_train.npy", tmp_path / "folder")
    refused("has no file x_train.npy, y_train.npy, x_test.npy, y_test.npy", tmp_path / "nowhere")
    with pytest.raises(UserError, match="data set npy needs a path: give the folder of x_train.npy"):
        data.load("npy")


def test_folders_that_cannot_be_looked_into(tmp_path, monkeypatch):
    refused(r"a cannot be looked into \(File name too long\): make it readable, or give", "a" * 5000)
    stat = Path.stat

    def denied(path, **how):
        if path.name == "x_train.npy":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", denied)
    refused(r"folder cannot be looked into \(Permission denied\)", put(tmp_path / "folder", arrays()))
    (tmp_path / "file").touch()
    monkeypatch.setattr(Path, "stat", stat)
    refused("file has no file x_train.npy", tmp_path / "file")


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@pytest.mark.parametrize("key", ["x_train", "y_test"])
@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS.keys())
def test_headers_that_claim_what_cannot_be(tmp_path, key, content):
    put(tmp_path / "folder", arrays())
    (tmp_path / "folder" / f"{key}.npy").write_bytes(content)
    refused(key, tmp_path / "folder")


def test_truncated_files_pickles_and_pipes(tmp_path):
    folder = put(tmp_path / "folder", arrays())
    intact = (folder / "x_train.npy").read_bytes()
    for length in (0, 5, 60, 128, 200, len(intact) - 1):
        (folder / "x_train.npy").write_bytes(intact[:length])
        refused("x_train.npy cannot be mapped .*: write a plain array with np.save", folder)
    np.save(folder / "x_train.npy", np.array([{}]))
    refused("x_train.npy cannot be mapped", folder)
    with (folder / "x_train.npy").open("wb") as file:
        np.savez(file, x_train=np.zeros(3))
    refused("x_train.npy cannot be mapped", folder)
    (folder / "x_train.npy").unlink()
    os.mkfifo(folder / "x_train.npy")
    refused("x_train.npy cannot be mapped .it is not a plain file", folder)
    np.save(tmp_path / "empty.npy", np.zeros((0, 4, 4), np.uint8))
    os.replace(tmp_path / "empty.npy", folder / "x_train.npy")
    refused("x_train", folder)
