"""Hostile or broken CIFAR archives and pickles: refused in one line, and none of their code runs."""

import codecs
import gzip
import hashlib
import io
import os
import pickle
import stat
import tarfile

import numpy as np
import pytest

from cntk_bench.data import cifar
from cntk_bench.errors import UserError


def md5(content):
    return hashlib.md5(content).hexdigest()


def batch(n=4, **more):
    pixels = np.random.default_rng(n).integers(0, 256, (n, 3072), dtype=np.uint8)
    return pickle.dumps({"data": pixels, "labels": list(range(n)), "filenames": [b"a"] * n} | more)


def archive(folder, members):
    """A .tar.gz of (TarInfo or name, content)."""
    path = folder / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


WANTED = {"batches/one": md5(batch(3)), "batches/two": md5(batch(4))}


def test_only_the_batches_leave_the_archive(tmp_path):
    setuid = tarfile.TarInfo("batches/one")
    setuid.mode = 0o6777
    path = archive(
        tmp_path,
        [
            ("../outside", b"x"),
            ("/etc/absolute", b"x"),
            ("batches/../../outside", b"x"),
            (special("batches/link", tarfile.SYMTYPE, "/etc/passwd"), b""),
            (special("batches/hard", tarfile.LNKTYPE, "../../victim"), b""),
            (special("batches/pipe", tarfile.FIFOTYPE), b""),
            (setuid, batch(3)),
            ("batches/stray", b"x"),
            ("batches/two", batch(4)),
        ],
    )
    cifar.unpack(path, tmp_path / "out", WANTED)
    found = sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert [str(p.relative_to(tmp_path / "out")) for p in found] == ["batches/one", "batches/two"]
    assert not any(stat.S_IMODE(p.stat().st_mode) & 0o7000 for p in found)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cifar.tar.gz", "out"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_batch_that_is_no_plain_file_is_missing(tmp_path, kind):
    path = archive(tmp_path, [(special("batches/one", kind, "/etc/passwd"), b""), ("batches/two", batch(4))])
    with pytest.raises(UserError, match="it lacks batches/one.*remove it and fetch again"):
        cifar.unpack(path, tmp_path / "out", WANTED)


def huge():
    info = tarfile.TarInfo("batches/zero")
    info.size = 2**40
    return info.tobuf()


def negative():
    """A member with size -1024: skipping it leads back to it."""
    header = bytearray(tarfile.TarInfo("batches/zero").tobuf())
    header[124:136] = b"\xff" * 10 + (2**16 - 1024).to_bytes(2, "big")
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(512) + bytes(header)


def long_header(kind):
    """A very long header, as for a long name, which tarfile reads before it returns the member."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 10**6
    return info.tobuf() + bytes(10**6)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_an_archive_that_unpacks_without_end(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(cifar, "LARGEST", 10**5)
    (tmp_path / "cifar.tar.gz").write_bytes(gzip.compress(long_header(kind)))
    with pytest.raises(UserError, match="it unpacks to more than 100000 bytes"):
        cifar.unpack(tmp_path / "cifar.tar.gz", tmp_path / "out", WANTED)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(huge()), "claims 1099511627776 bytes"),
        (gzip.compress(negative()[512:]), "claims -1024 bytes"),
        (b"no archive", "not the published archive"),
        (gzip.compress(b"x" * 2000), "not the published archive"),
        (b"", "not the published archive"),
    ],
    ids=["huge", "negative", "text", "no tar", "empty"],
)
def test_an_archive_that_is_none(tmp_path, content, words):
    (tmp_path / "cifar.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match=words):
        cifar.unpack(tmp_path / "cifar.tar.gz", tmp_path / "out", WANTED)


def test_a_batch_with_another_content_is_refused(tmp_path):
    path = archive(tmp_path, [("batches/one", batch(5)), ("batches/two", batch(4))])
    with pytest.raises(UserError, match="batches/one does not have its published checksum"):
        cifar.unpack(path, tmp_path / "out", WANTED)


class Runs:
    """A pickle that calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("where", ["whole", "inside"])
def test_a_pickle_with_the_right_checksum_runs_nothing(tmp_path, protocol, where):
    trace = tmp_path / "trace"
    harm = Runs(os.mkdir, str(trace))
    content = pickle.dumps(harm if where == "whole" else {"data": harm, "labels": [0]}, protocol)
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(UserError, match="no published batch .*mkdir, which no batch needs"):
        cifar.read({tmp_path / "batch": md5(content)}, "labels")
    assert not trace.exists()


class Forged:
    """A pickled array that claims another type than the size of its data allows."""

    def __init__(self, *dtype, state=None):
        self.dtype, self.state = dtype, state

    def __reduce__(self):
        dtype = Reduced(np.dtype, self.dtype, self.state)
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, (8,), dtype, False, b"x" * 64)


class Reduced:
    def __init__(self, function, arguments, state=None):
        self.all = (function, arguments) + (() if state is None else (state,))

    def __reduce__(self):
        return self.all


@pytest.mark.parametrize(
    "forged",
    [
        Forged("O8"),
        Forged("V8", False, True, state=(3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)),
        Forged("f8"),
        Reduced(np._core.multiarray._reconstruct, (np.ndarray, (10**12,), b"O")),
        Reduced(np.ndarray, ((10**12,), "O")),
        Reduced(np.dtype, ("O",)),
        Reduced(codecs.encode, ("x", "utf-8")),
    ],
    ids=["objects", "hidden objects", "floats", "much memory", "much memory at once", "a type", "text"],
)
def test_a_pickle_makes_arrays_of_bytes_alone(tmp_path, monkeypatch, forged):
    content = pickle.dumps({"data": forged, "labels": [0]}, 2)
    (tmp_path / "batch").write_bytes(content)

    def never(*_):
        raise AssertionError("NumPy was asked to believe a pickle")

    monkeypatch.setattr(np._core.multiarray, "_reconstruct", never)
    with pytest.raises(UserError, match="no published batch") as caught:
        cifar.read({tmp_path / "batch": md5(content)}, "labels")
    assert "was asked" not in str(caught.value)


def test_a_batch_as_python_2_wrote_it(tmp_path):
    """As published: byte strings and names of an old NumPy. Arrays may be in either memory order."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    head = b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\x09eU\x04dataq\x04"
    made = b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07"
    shape = b"(K\x01K\x02M\x00\x0c\x86"
    dtype = (
        b"cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|NNN"
        + b"J\xff\xff\xff\xff" * 2
        + b"K\x00tb"
    )
    for fortran in (False, True):
        raw = pixels.tobytes("F" if fortran else "C")
        order, size = b"\x88" if fortran else b"\x89", len(raw).to_bytes(4, "little")
        content = head + made + shape + dtype + order + b"T" + size + raw + b"tbu."
        # The standard library reads these bytes as we should.
        truth = pickle.loads(content, encoding="latin1")
        assert np.array_equal(truth["data"], pixels)
        (tmp_path / "batch").write_bytes(content)
        x, y = cifar.read({tmp_path / "batch": md5(content)}, "labels")
        assert np.array_equal(x.reshape(2, 3072), pixels) and y.tolist() == [6, 9]


@pytest.mark.parametrize("protocol", [0, 2, 4])  # the published files have protocol 2
def test_a_batch_is_read(tmp_path, protocol):
    truth = pickle.loads(batch(4))
    files = {}
    for name in ("one", "two"):
        content = pickle.dumps(truth, protocol)
        (tmp_path / name).write_bytes(content)
        files[tmp_path / name] = md5(content)
    x, y = cifar.read(files, "labels")
    assert (x.reshape(8, 3072) == np.concatenate([truth["data"]] * 2)).all() and x.shape == (8, 3, 32, 32)
    assert y.tolist() == truth["labels"] * 2


@pytest.mark.parametrize("value", [None, {}, [], {"data": "x"}, {"data": [1, 2], "labels": [0]}, "x"])
def test_a_batch_of_another_form(tmp_path, value):
    content = b"" if value is None else pickle.dumps(value)
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(UserError, match="no published batch"):
        cifar.read({tmp_path / "batch": md5(content)}, "labels")
    with pytest.raises(UserError, match="checksum"):
        cifar.read({tmp_path / "batch": "0" * 32}, "labels")
    with pytest.raises(UserError, match="cannot be read .*fetch it there"):
        cifar.read({tmp_path / "none": ""}, "labels")
