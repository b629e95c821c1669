"""An S3 server on loopback (moto), and a server in front of it that fails, delays or alters requests."""

import http.client
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY, SECRET = "AKIAIOSFODNN7TESTING", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYTESTSECRET"
BUCKET = "kernels"


def environment(endpoint):
    """Environment variables with the server's address and our credentials."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


@contextmanager
def serving():
    """moto's server with a bucket; yields its URL."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    connection = http.client.HTTPConnection(host, port)
    connection.request("PUT", f"/{BUCKET}")
    assert connection.getresponse().status == 200
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class Front:
    """Passes requests on to a server, except those for which `fault` says otherwise.

    seen : (method, path, bytes sent, bytes received) of each request that the server answered.
    fault : called with a request's method, path and number; returns None, a status, "late" (the answer is
    held back until `late` is set), "cut" (half of the answer), or a dict with headers to leave out.
    """

    def __init__(self, behind):
        self.fault, self.body, self.counts = lambda *_: None, b"", Counter()
        self.late, self._lock, self._number = threading.Event(), threading.Lock(), 0
        self.keys, self.seen = set(), []  # keys: the access keys with which requests were signed
        front, (host, port) = self, behind.removeprefix("http://").split(":")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self):
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with front._lock:
                    front._number += 1
                    who = (self.headers.get("Authorization") or "").partition("Credential=")[2]
                    front.keys.add(who.partition("/")[0])
                    fault = front.fault(self.command, self.path, front._number)
                    front.counts[
                        fault if isinstance(fault, str | int) else "headers" if fault else "none"
                    ] += 1
                if isinstance(fault, int):
                    self.send_response(fault)
                    self.send_header("Content-Length", str(len(front.body)))
                    self.end_headers()
                    self.wfile.write(front.body if self.command != "HEAD" else b"")
                    return
                left_out = fault if isinstance(fault, set) else set()
                headers = {k: v for k, v in self.headers.items() if k.lower() not in left_out}
                connection = http.client.HTTPConnection(host, int(port))
                connection.request(self.command, self.path, sent, headers)
                answer = connection.getresponse()
                text = answer.read()
                connection.close()
                front.seen.append((self.command, self.path, len(sent), len(text)))
                if fault == "late":
                    front.late.wait(60)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in (
                        "content-length",
                        "transfer-encoding",
                        "connection",
                        "date",
                        "server",
                    ):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(text))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                if fault == "cut":
                    self.wfile.write(text[: len(text) // 2])
                    self.close_connection = True
                else:
                    self.wfile.write(text)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

            def log_message(self, *_):
                pass

            def handle(self):
                try:
                    super().handle()
                except OSError:  # the client has gone
                    pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.late.set()
        self.server.shutdown()
        self.server.server_close()
