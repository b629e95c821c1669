"""Matrices written to files of other formats, and read back by those formats' libraries."""

import errno
import os
import resource
import tracemalloc

import numpy as np
import pytest

from cntk_bench.errors import UserError
from cntk_bench.runs import export
from cntk_bench.runs.access import Gram

RNG = np.random.default_rng(0)
GRAM = Gram(
    RNG.random((4, 4)), RNG.random((3, 4)), np.arange(4), np.arange(3), np.arange(4) + 10, np.arange(3) + 20
)


def read(path):
    if path.suffix == ".npz":
        return dict(np.load(path))
    if path.suffix in (".h5", ".hdf5"):
        h5py = pytest.importorskip("h5py")
        with h5py.File(path) as file:
            return {name: file[name][:] for name in file}
    torch = pytest.importorskip("torch")
    return {name: tensor.numpy() for name, tensor in torch.load(path).items()}


def check(arrays, gram=GRAM):
    assert set(arrays) == set(gram.arrays())
    for name, values in gram.arrays().items():
        assert arrays[name].dtype == values.dtype
        np.testing.assert_array_equal(arrays[name], values)


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".hdf5", ".pt"])
def test_one_file_with_all_arrays(tmp_path, suffix):
    pytest.importorskip({".pt": "torch", ".npz": "numpy"}.get(suffix, "h5py"))
    assert export.write(GRAM, target := tmp_path / "new" / f"gram{suffix}") == [target]
    check(read(target))


def test_a_file_per_array(tmp_path):
    files = export.write(GRAM, tmp_path / "gram.npy")
    assert [file.name for file in files][:2] == ["gram-train.npy", "gram-test.npy"]
    check({file.stem.removeprefix("gram-"): np.load(file, mmap_mode="r") for file in files})


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".hdf5", ".pt"])
def test_no_copy_of_a_matrix_is_made(tmp_path, suffix):
    """Only pieces of it, of 16 MiB where NumPy writes an .npz file."""
    pytest.importorskip({".pt": "torch", ".npz": "numpy", ".npy": "numpy"}.get(suffix, "h5py"))
    n = 2400  # 46 MB
    gram = Gram(np.ones((n, n)), GRAM.test, np.zeros(n, int), GRAM.y_test, None, None)
    export.write(GRAM, tmp_path / f"warm{suffix}")  # imports the library
    tracemalloc.start()
    try:
        export.write(gram, tmp_path / f"gram{suffix}")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.9 * gram.train.nbytes


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".h5", ".pt"])
def test_a_disk_that_fills_is_one_line(tmp_path, suffix):
    pytest.importorskip({".pt": "torch", ".npz": "numpy", ".npy": "numpy"}.get(suffix, "h5py"))
    gram = Gram(np.ones((800, 800)), GRAM.test, np.zeros(800, int), GRAM.y_test, None, None)
    export.write(GRAM, tmp_path / f"warm{suffix}")  # imports the library
    before, most = set(tmp_path.iterdir()), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, most[1]))
    try:
        with pytest.raises(UserError, match="no space left to write .*File too large"):
            export.write(gram, tmp_path / f"gram{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".h5", ".pt"])
def test_an_export_that_fails_leaves_what_was_there(tmp_path, monkeypatch, suffix):
    pytest.importorskip({".pt": "torch", ".npz": "numpy", ".npy": "numpy"}.get(suffix, "h5py"))
    before = {file: file.read_bytes() for file in export.write(GRAM, tmp_path / f"gram{suffix}")}

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left to write"):
        export.write(Gram(GRAM.train + 1, *list(vars(GRAM).values())[1:]), tmp_path / f"gram{suffix}")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_a_killed_export_left_is_removed(tmp_path):
    left = [tmp_path / f".{name}-{'0' * 32}.partial" for name in ("gram.npz", "gram-train.npy", "other.npz")]
    for file in left:
        file.write_bytes(b"half")
    export.write(GRAM, tmp_path / "gram.npz")
    assert [file.exists() for file in left] == [False, False, True]


def test_images_whose_places_are_not_known_have_none(tmp_path):
    gram = Gram(GRAM.train, GRAM.test, GRAM.y_train, GRAM.y_test, None, None)
    (file,) = export.write(gram, tmp_path / "gram.npz")
    check(read(file), gram)
    assert "train_index" not in read(file)


@pytest.mark.parametrize("name", ["gram", "gram.csv", "gram.npz.gz"])
def test_other_formats_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="end the name in one of .npz, .npy, .h5, .hdf5, .pt"):
        export.write(GRAM, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "library", "extra"), [(".h5", "h5py", "export"), (".pt", "torch", "torch")]
)
def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch, suffix, library, extra):
    import sys

    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"needs {library}: pip install 'cntk-bench\[{extra}\]'"):
        export.write(GRAM, tmp_path / f"gram{suffix}")
