"""A server on loopback, and small synthetic CIFAR archives that it serves in place of the real ones."""

import hashlib
import io
import pickle
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from cntk_bench.data import binary, cifar, official

CLASSES = 4


def images(n, *shape, seed=0):
    return np.random.default_rng([seed, n]).integers(0, 256, (n, *shape), dtype=np.uint8)


def labels(n):
    return np.arange(n) % CLASSES


def md5(content):
    return hashlib.md5(content).hexdigest()


class Server:
    """Serves `files` (path -> bytes) and records the path of every request."""

    def __init__(self):
        self.files, self.requests = {}, []
        self.truncate = set()  # paths whose transfer breaks off halfway
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append(self.path)
                content = server.files.get(self.path)
                if content is None:
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if self.path in server.truncate else content)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def add(self, name, content):
        self.files[f"/{name}"] = content
        return f"{self.url}/{name}"

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def cifar_parts(name):
    """The images and labels of each file of a CIFAR archive; the last file holds the test set."""
    sizes = [8] * len(cifar.ARCHIVES[name].train) + [12]
    return [(images(n, 3072, seed=i), labels(n)) for i, n in enumerate(sizes)]


def cifar_truth(name):
    parts = [(x.reshape(-1, 3, 32, 32), y) for x, y in cifar_parts(name)]
    return *map(np.concatenate, zip(*parts[:-1], strict=True)), *parts[-1]


def packed(content):
    """A .tar.gz of files (path -> content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for file, body in content.items():
            info = tarfile.TarInfo(file)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def pickles(name, cls, server, patch):
    archive = cifar.ARCHIVES[name]
    patch(official, "find_spec", lambda _: True)
    content = {
        file: pickle.dumps({"data": x, archive.key: y.tolist()})
        for file, (x, y) in zip((*archive.train, *archive.test), cifar_parts(name), strict=True)
    }
    content |= {file: pickle.dumps({"label_names": list("abcd")}) for file in archive.meta}
    whole = packed(content)
    changes = {"url": server.add(archive.file, whole), "md5": md5(whole)}
    for part in ("train", "test", "meta"):
        changes[part] = {file: md5(content[file]) for file in getattr(archive, part)}
    patch(cifar, "ARCHIVES", cifar.ARCHIVES | {name: replace(archive, **changes)})
    return cifar_truth(name)


def records(name):
    """The files of a binary CIFAR archive: path -> content."""
    archive = binary.ARCHIVES[name]
    return {  # CIFAR-100 has coarse labels before the fine ones
        file: np.column_stack([*[(y + 1) % 5] * (archive.labels - 1), y, x]).astype(np.uint8).tobytes()
        for file, (x, y) in zip((*archive.train, *archive.test), cifar_parts(name), strict=True)
    }


def binaries(name, cls, server, patch):
    archive, whole = binary.ARCHIVES[name], packed(records(name))
    patch(official, "find_spec", lambda _: None)
    changes = {"url": server.add(archive.file, whole), "sha256": hashlib.sha256(whole).hexdigest()}
    patch(binary, "ARCHIVES", binary.ARCHIVES | {name: replace(archive, **changes)})
    return cifar_truth(name)
