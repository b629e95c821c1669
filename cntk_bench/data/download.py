"""One file from a server: bounded in size and time, kept only if it has its checksum."""

import hashlib
import http.client
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

from cntk_bench.errors import UserError
from cntk_bench.system.files import write_whole
from cntk_bench.text import one_line

SILENCE = 60  # seconds without a byte, at most
LONGEST = 4 * 3600  # seconds of a whole file
LARGEST = 2**29  # bytes of a file; the largest published one has 182 MB
PIECE = 2**16  # bytes read at once
# What a server, a network or something between them may do.
NETWORK = (URLError, OSError, http.client.HTTPException, ssl.SSLError, ValueError, RecursionError)


def download(urls: tuple[str, ...], path: Path, md5: str, progress: bool) -> None:
    """Fetch a file from the first address that has it with its checksum, unless it is there already.

    Raises
    ------
    UserError
        If no address has it, or it cannot be written.
    """
    if path.is_file() and digest(path.read_bytes()) == md5:
        return
    failures = []
    for url in urls:
        try:
            content = _fetched(url, path.name, progress)
        except NETWORK as error:
            failures.append(f"{url}: {one_line(error, 80) or type(error).__name__}")
            continue
        if digest(content) == md5:
            write_whole(path, content)
            return
        failures.append(f"{url}: the bytes received do not have the published checksum")
    raise UserError(
        f"{path.name} could not be downloaded ({one_line('; '.join(failures), 180)}): "
        "check the connection and fetch again; finished files are kept"
    )


def _fetched(url: str, name: str, progress: bool) -> bytes:
    """What an address sends, to its end or to the bounds."""
    begun, content, shown = time.monotonic(), bytearray(), -1
    progress = progress and sys.stderr is not None  # None where it is closed: print would use stdout
    request = urllib.request.Request(url, headers={"User-Agent": "cntk-bench"})
    try:
        with urllib.request.urlopen(request, timeout=SILENCE) as response:
            total = int(response.headers.get("Content-Length") or 0)
            while piece := response.read1(PIECE):  # what has come: a server that drips is looked at, too
                content += piece
                if len(content) > LARGEST:
                    raise ValueError(f"sends more than {LARGEST >> 20} MiB")
                if time.monotonic() - begun > LONGEST:
                    raise ValueError(f"takes longer than {LONGEST // 3600} hours")
                percent = 100 * len(content) // total if total > 0 else -1
                if progress and percent > shown:
                    shown = percent
                    print(f"\r{name}: {percent} %", end="", file=sys.stderr, flush=True)
    finally:
        if shown >= 0:
            print(file=sys.stderr)
    return bytes(content)


def digest(content: bytes) -> str:
    """MD5, as the published tables of checksums have it."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
