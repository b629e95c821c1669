"""Official data sets are fetched from a server on loopback, verified and read; so are idx files.

Small synthetic archives stand in for the real ones: their addresses and checksums are patched into our
tables of CIFAR and torchvision's classes. Tests of CIFAR and of idx files in a folder need no torchvision.
"""

import errno
import gzip
import io
import os
import pickle
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from pickles import Bomb
from publishers import CLASSES, binaries, images, labels, md5, pickles

from cntk_bench import data
from cntk_bench.data import cifar
from cntk_bench.errors import UserError

IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


# Synthetic archives: each function returns the archive's x_train (n, C, P, P), y_train, x_test, y_test.


def svhn(name, cls, server, patch):
    from scipy.io import savemat

    files, truth = {}, []
    for split, n in (("train", 20), ("test", 12)):
        x, y = images(n, 3, 32, 32), labels(n)
        buffer = io.BytesIO()
        ones_to_ten = np.where(y == 0, 10, y)[:, None].astype(np.uint8)
        savemat(buffer, {"X": x.transpose(2, 3, 1, 0), "y": ones_to_ten})
        file = cls.split_list[split][1]
        files[split] = [server.add(file, buffer.getvalue()), file, md5(buffer.getvalue())]
        truth += [x, y]
    patch(cls, "split_list", files)
    return truth


def mnist(name, cls, server, patch):
    truth = [images(20, 28, 28), labels(20), images(12, 28, 28), labels(12)]
    resources = []
    for file, array in zip(IDX, truth, strict=True):
        content = gzip.compress(idx(array.astype(np.uint8)))
        server.add(f"data/{file}.gz", content)
        resources.append((f"{file}.gz", md5(content)))
    patch(cls, "mirrors", [f"{server.url}/gone/", f"{server.url}/data/"])
    patch(cls, "resources", resources)
    return truth[0][:, None], truth[1], truth[2][:, None], truth[3]


KINDS = {
    "cifar10": pickles,
    "cifar100": pickles,
    "cifar10 without torch": binaries,
    "cifar100 without torch": binaries,
    "svhn": svhn,
    "mnist": mnist,
    "fashion-mnist": mnist,
}
CLASSES_OF = {"svhn": "SVHN", "mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


@pytest.fixture(params=KINDS)
def published(request, server, monkeypatch):
    """(name, truth): a synthetic official data set on the server."""
    name = request.param.split()[0]
    cls = None
    if name in CLASSES_OF:
        cls = getattr(request.getfixturevalue("torchvision").datasets, CLASSES_OF[name])
    return name, KINDS[request.param](name, cls, server, monkeypatch.setattr)


def is_unpacked(name, folder):
    """Whether a folder has CIFAR's batches, unpacked from the archive."""
    return name.startswith("cifar") and (folder / cifar.ARCHIVES[name].folder).exists()


def check(loaded, truth):
    """Check that the loaded data set is the truth in another order."""
    for part, x, y in (("train", *truth[:2]), ("test", *truth[2:])):
        expected = {
            (image / 255).astype(np.float32).tobytes(): label for image, label in zip(x, y, strict=True)
        }
        found = getattr(loaded, f"x_{part}")
        assert found.shape == x.shape
        got = {
            image.tobytes(): label for image, label in zip(found, getattr(loaded, f"y_{part}"), strict=True)
        }
        assert got == expected and len(got) == len(x)
    assert loaded.classes == CLASSES


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def fails(call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# Fetching


def test_fetch_and_load(published, server, tmp_path, capfd):
    name, truth = published
    folder = tmp_path / "new" / "folder"
    data.fetch(name, folder)
    assert "%" in capfd.readouterr().err  # the progress bar
    check(data.load(name, path=folder, preprocess="none"), truth)

    server.requests.clear()
    before = files_of(folder)
    data.fetch(name, str(folder))
    assert not server.requests
    assert files_of(folder) == before


def test_fetch_can_be_quiet(published, tmp_path, capfd):
    name, _ = published
    data.fetch(name, tmp_path, progress=False)
    captured = capfd.readouterr()
    assert not captured.err and not captured.out


def test_a_terminal_that_goes_away_does_not_end_a_download(published, tmp_path, monkeypatch):
    name, truth = published

    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    data.fetch(name, tmp_path, progress=True)
    check(data.load(name, path=tmp_path, preprocess="none"), truth)


def test_a_damaged_download_is_fetched_again(published, server, tmp_path):
    name, truth = published
    data.fetch(name, tmp_path, progress=False)
    for file in files_of(tmp_path):
        intact = file.read_bytes()
        half = len(intact) // 2
        for broken in (intact[:half] + bytes([intact[half] ^ 1]) + intact[half + 1 :], intact[:half], None):
            file.unlink() if broken is None else file.write_bytes(broken)
            server.requests.clear()
            data.fetch(name, tmp_path, progress=False)
            check(data.load(name, path=tmp_path, preprocess="none"), truth)
            if not is_unpacked(name, tmp_path):
                assert {Path(request).name for request in server.requests} == {file.name}
            else:
                assert not server.requests  # the verified archive was unpacked again
                if file.suffix == ".gz":  # a missing archive is no problem while everything is unpacked
                    file.write_bytes(intact)
            assert file.read_bytes() == intact


def test_a_broken_transfer_is_reported_and_resumed(published, server, tmp_path):
    name, truth = published
    last = list(server.files)[-1]
    server.truncate = {last}
    fails(
        lambda: data.fetch(name, tmp_path, progress=False),
        f"{Path(last).name} could not be downloaded.*checksum",
    )
    fails(lambda: data.load(name, path=tmp_path), "fetch it")
    server.truncate.clear()
    server.requests.clear()
    data.fetch(name, tmp_path, progress=False)
    assert {Path(request).name for request in server.requests} == {Path(last).name}
    check(data.load(name, path=tmp_path, preprocess="none"), truth)


def test_another_file_than_the_published_one_is_refused(published, server, tmp_path):
    name, _ = published
    for file in server.files:
        server.files[file] = b"another file"
    fails(lambda: data.fetch(name, tmp_path, progress=False), "do not have the published checksum")
    fails(lambda: data.load(name, path=tmp_path), "fetch it")


def test_a_missing_file_and_a_missing_server(published, server, tmp_path):
    name, truth = published
    files, server.files = server.files, {}
    fails(lambda: data.fetch(name, tmp_path, progress=False), "404.*check the connection")
    server.files = files
    data.fetch(name, tmp_path, progress=False)
    server.close()
    data.fetch(name, tmp_path, progress=False)  # all is there: no server is needed
    check(data.load(name, path=tmp_path, preprocess="none"), truth)
    fails(lambda: data.fetch(name, tmp_path / "other", progress=False), "refused.*check the connection")


@pytest.mark.parametrize("make", [pickles, binaries])
def test_a_stalled_server_is_given_up(make, server, tmp_path, monkeypatch):
    monkeypatch.setattr("cntk_bench.data.download.SILENCE", 0.2)
    make("cifar10", None, server, monkeypatch.setattr)
    server.http.shutdown()  # the socket still listens, but nothing answers
    fails(lambda: data.fetch("cifar10", tmp_path, progress=False), "timed out.*check the connection")


def test_a_full_disk_and_an_impossible_folder(published, tmp_path, monkeypatch):
    name, _ = published
    (tmp_path / "file").touch()
    fails(lambda: data.fetch(name, tmp_path / "file" / "folder"), "cannot write .*Not a directory")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    fails(lambda: data.fetch(name, tmp_path / "new", progress=False), "no space left.*free some")
    assert not files_of(tmp_path / "new")


# Loading


def test_nothing_fetched(published, tmp_path):
    name, _ = published
    for folder in (tmp_path, tmp_path / "none"):
        fails(lambda folder=folder: data.load(name, path=folder), "fetch it")


def test_nothing_unverified_is_opened(published, tmp_path):
    """Files are replaced, or added, as pickles that would leave a trace when loaded."""
    name, _ = published
    data.fetch(name, tmp_path, progress=False)
    trace = tmp_path / "opened"
    for file, stray in [(file, False) for file in files_of(tmp_path)] + [
        (tmp_path / cls / "processed" / file, True)
        for cls in ("MNIST", "FashionMNIST")
        for file in ("training.pt", "test.pt")
    ]:
        intact = None if stray else file.read_bytes()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(Bomb(trace)))
        try:
            data.load(name, path=tmp_path)
        except UserError as error:
            assert "fetch it" in str(error) and "\n" not in str(error)
        assert not trace.exists()
        if not stray:
            file.write_bytes(intact)


def test_a_damaged_file_is_refused(published, tmp_path):
    name, _ = published
    data.fetch(name, tmp_path, progress=False)
    for file in files_of(tmp_path):
        if is_unpacked(name, tmp_path) and (file.suffix == ".gz" or "meta" in file.name):
            continue  # not read: batches are unpacked, and class names are not needed
        intact = file.read_bytes()
        file.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
        fails(lambda: data.load(name, path=tmp_path), "checksum.*fetch it")
        file.write_bytes(intact)


# idx files in a folder, without torchvision


def write_idx(folder, truth, zipped):
    folder.mkdir(exist_ok=True)
    for file, array in zip(IDX, truth, strict=True):
        content = idx(array.astype(np.uint8))
        if zipped:
            (folder / f"{file}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / file).write_bytes(content)


@pytest.fixture
def truth():
    return images(20, 28, 28), labels(20), images(12, 28, 28), labels(12)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_in_a_folder(tmp_path, truth, name, zipped, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    write_idx(tmp_path, truth, zipped)
    loaded = data.load(name, path=tmp_path, preprocess="none")
    check(loaded, (truth[0][:, None], truth[1], truth[2][:, None], truth[3]))
    data.fetch(name, tmp_path)  # nothing to do


def bad_idx():
    x = images(20, 28, 28)
    good = idx(x)
    yield "labels for images", idx(labels(20).astype(np.uint8)), "no idx file of 3 dimensions"
    yield "other type", good[:2] + b"\x0d" + good[3:], r"begins with 00000d03"
    yield "no idx", b"x_train = 1", "no idx file"
    yield "empty", b"", "no idx file"
    yield "header only", good[:15], "no idx file"
    yield "truncated", good[:-1], "has 15679 bytes of data where its header tells 15680"
    yield "too long", good + b"\0", "has 15681 bytes"
    yield "forged size", good[:4] + b"\xff" * 12 + good[16:], "where its header tells"
    for name, sizes in (
        ("no image", (0, 28, 28)),
        ("no pixel of more images than there can be", (2**32 - 1, 2**32 - 1, 0)),
        ("no row of one", (20, 0, 2**31)),
    ):
        content = good[:4] + struct.pack(">3I", *sizes)
        yield (
            name,
            content,
            f"images-idx3-ubyte has the shape {re.escape(str(sizes))}, which is empty: copy it",
        )
    yield "truncated gzip", gzip.compress(good)[:-9], "cannot be read"
    yield "damaged gzip", gzip.compress(good)[:-8] + bytes(8), "cannot be read"
    yield "gzip of nothing", b"\x1f\x8b", "cannot be read"
    yield "another number", idx(x[:19]), "20 labels for 19 images"
    yield "not square", idx(x[:, :27]), "not square"


@pytest.mark.parametrize("content, message", [pytest.param(*bad[1:], id=bad[0]) for bad in bad_idx()])
def test_bad_idx_files(tmp_path, truth, content, message):
    write_idx(tmp_path, truth, zipped=False)
    (tmp_path / IDX[0]).write_bytes(content)
    fails(lambda: data.load("fashion-mnist", path=tmp_path), message)
