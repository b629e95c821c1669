"""Archives, pickles, servers and files that mean harm or are broken: refused in a line, and nothing runs."""

import gzip
import hashlib
import io
import os
import pickle
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from cntk_bench import data
from cntk_bench.data import cifar, download, idx, npz
from cntk_bench.data.identity import digest, is_published
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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(huge()), "claims 1099511627776 bytes"),
        (b"no archive", "not the published archive"),
        (gzip.compress(b"x" * 2000), "not the published archive"),
        (b"", "not the published archive"),
    ],
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
    """A pickle that leaves a trace when it is opened."""

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


@pytest.mark.parametrize("protocol", [0, 2, 4])  # the published ones are of 2
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


# Servers


@pytest.fixture
def serve():
    """A server on loopback that answers with what a function writes."""
    servers = []

    def start(answer):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                try:
                    answer(self)
                except OSError:  # the client has gone
                    pass

            def log_message(self, *_):
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        servers.append((http, thread))
        return f"http://127.0.0.1:{http.server_port}/file"

    yield start
    for http, thread in servers:
        http.shutdown()
        http.server_close()
        thread.join()


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(10**6):  # until the client goes
        handler.wfile.write(b"x" * 2**16)


def escapes(handler):
    handler.send_response(500, "no\x1b]0;title\x07")
    handler.end_headers()


def rubbish(handler):
    handler.wfile.write(b"\x00\xff" * 1000 + b"\r\n\r\n")


def a_wrong_length(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "many")
    handler.end_headers()


def in_circles(handler):
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.end_headers()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (endless, "sends more than 1 MiB"),
        (escapes, "500"),
        (rubbish, "could not be downloaded"),
        (a_wrong_length, "could not be downloaded"),
        (in_circles, "could not be downloaded"),
    ],
)
def test_a_server_that_means_harm(serve, tmp_path, monkeypatch, answer, words):
    monkeypatch.setattr(download, "LARGEST", 2**20)
    with pytest.raises(UserError, match=words) as caught:
        download.download((serve(answer),), tmp_path / "file", "0" * 32, False)
    assert str(caught.value).isprintable() and "check the connection" in str(caught.value)
    assert len(str(caught.value)) < 300 and list(tmp_path.iterdir()) == []


def test_a_server_that_takes_for_ever(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LONGEST", -1)
    with pytest.raises(UserError, match="takes longer than"):
        download.download((serve(endless),), tmp_path / "file", "0" * 32, False)


# Files


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


def test_a_gzip_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "LARGEST", 10**5)
    for name in idx.FILES:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(UserError, match="unpacks to more than 100000 bytes"):
        data.load("mnist", path=tmp_path)


@pytest.mark.parametrize(
    "path", ["~nobody_of_this_name/x.npz", "a\0b.npz", "\udcff.npz", "x" * 5000 + ".npz", ""]
)
def test_paths_that_cannot_be(path):
    with pytest.raises(UserError) as caught:
        data.load("npz", path=path)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 300


# Identity


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
