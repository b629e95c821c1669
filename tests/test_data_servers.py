"""Hostile or broken servers: given up with one line, within limits of size and time."""

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cntk_bench.data import download
from cntk_bench.errors import UserError


@pytest.fixture
def serve():
    """A function that starts a server on loopback, whose answers a given function writes."""
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
    for _ in range(10**6):  # until the client closes the connection
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


WAYS = {
    "urllib": lambda url, path: download.download((url,), path, "0" * 32, False),
    "pooch": lambda url, path: download.retrieve(url, path, "0" * 64, False),
}


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
@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_means_harm(serve, tmp_path, monkeypatch, way, answer, words):
    monkeypatch.setattr(download, "LARGEST", 2**20)
    with pytest.raises(UserError, match=words) as caught:
        WAYS[way](serve(answer), tmp_path / "file")
    assert str(caught.value).isprintable() and "check the connection" in str(caught.value)
    assert len(str(caught.value)) < 300 and list(tmp_path.iterdir()) == []


def test_a_server_that_takes_for_ever(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LONGEST", -1)
    with pytest.raises(UserError, match="takes longer than"):
        download.download((serve(endless),), tmp_path / "file", "0" * 32, False)


def test_a_server_that_drips(serve, tmp_path, monkeypatch):
    """The time limit is checked after every received byte, not only after a full piece."""
    monkeypatch.setattr(download, "LONGEST", -1)
    monkeypatch.setattr(download, "SILENCE", 2)
    done = threading.Event()

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"x")
        handler.wfile.flush()
        done.wait(30)  # until the client has given up

    url = serve(drip)
    try:
        with pytest.raises(UserError, match="takes longer than"):
            download.download((url,), tmp_path / "file", "0" * 32, False)
    finally:
        done.set()


def test_progress_is_shown_once_per_percent(serve, tmp_path, capfd):
    content = os.urandom(10**6)

    def slices(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        for start in range(0, len(content), 1000):
            handler.wfile.write(content[start : start + 1000])

    def broken_off(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 300)

    urls = serve(broken_off), serve(slices)
    download.download(urls, tmp_path / "file", hashlib.md5(content).hexdigest(), True)
    assert (tmp_path / "file").read_bytes() == content
    out, err = capfd.readouterr()
    first, second, rest = err.split("\n")
    assert not out and not rest and first == "\rfile: 30 %"
    shown = second.split("\r")[1:]
    assert shown == sorted(set(shown), key=shown.index) and shown[-1] == "file: 100 %"


@pytest.mark.parametrize("shown", [True, False])
def test_pooch_keeps_what_has_its_checksum_and_says_nothing_itself(serve, tmp_path, capfd, shown):
    content, path, asked = os.urandom(10**5), tmp_path / "file", []

    def answer(handler):
        asked.append(handler.path)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    url, known = serve(answer), hashlib.sha256(content).hexdigest()
    with pytest.raises(UserError, match="the bytes received do not have the published checksum"):
        download.retrieve(url, path, "0" * 64, False)
    assert not path.exists()
    path.write_bytes(content[:-1])  # an earlier download was cut off
    download.retrieve(url, path, known, shown)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    # Permissions of an ordinary file, not of a temporary one.
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    asked.clear()
    download.retrieve(url, path, known, shown)
    assert not asked
    out, err = capfd.readouterr()
    assert not out and (err.endswith("\rfile: 100 %\n") if shown else not err)
