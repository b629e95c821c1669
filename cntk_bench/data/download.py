"""Download of one file, bounded in size and time, and kept only if its checksum is right."""

import hashlib
import http.client
import logging
import ssl
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError

from cntk_bench.errors import UserError
from cntk_bench.system.files import is_plain, write_atomic
from cntk_bench.text import one_line, short

SILENCE = 60  # seconds without a byte, at most
LONGEST = 4 * 3600  # seconds for a whole file, at most
LARGEST = 2**29  # bytes of a file, at most; the largest published one has 182 MB
PIECE = 2**16  # bytes read at once
# What a failing server, network or proxy may raise.
NETWORK = (URLError, OSError, http.client.HTTPException, ssl.SSLError, ValueError, RecursionError)


def download(urls: tuple[str, ...], path: Path, md5: str, progress: bool) -> None:
    """Fetch a file from the first address that sends it with the right checksum, unless it is already there.

    Raises
    ------
    UserError
        If no address does, or the file cannot be written.
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
            write_atomic(path, content)
            return
        failures.append(f"{url}: the bytes received do not have the published checksum")
    raise _failed(path, "; ".join(failures))


def retrieve(url: str, path: Path, sha256: str, progress: bool) -> None:
    """Like `download`, but with pooch, which verifies the SHA-256 and moves a file into place once complete.

    Raises
    ------
    UserError
        If the address does not send the file, or `path` is not a plain file.
    OSError
        If the file cannot be written.
    """
    import pooch

    if not is_plain(path):
        raise UserError(f"{short(str(path))} is no plain file: remove it and fetch again")

    def fetch(url: str, place: str, _: object) -> None:
        try:
            content = _fetched(url, path.name, progress)  # our bounds on size and time apply
        except NETWORK as error:
            raise _failed(path, f"{url}: {one_line(error, 80) or type(error).__name__}") from None
        write_atomic(place, content)

    said = pooch.get_logger()
    level = said.level
    said.setLevel(logging.ERROR)  # pooch would log to stderr whatever `progress` is
    try:
        pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent.absolute(), downloader=fetch)
    except ValueError:  # pooch raises it for a wrong checksum
        raise _failed(path, f"{url}: the bytes received do not have the published checksum") from None
    finally:
        said.setLevel(level)


def _failed(path: Path, reasons: str) -> UserError:
    return UserError(
        f"{path.name} could not be downloaded ({one_line(reasons, 180)}): "
        "check the connection and fetch again; finished files are kept"
    )


def _fetched(url: str, name: str, progress: bool) -> bytes:
    """Content at an address; ValueError if it exceeds the bounds on size or time."""
    begun, content, shown = time.monotonic(), bytearray(), -1
    progress = progress and sys.stderr is not None  # None if stderr is closed: print would use stdout
    request = urllib.request.Request(url, headers={"User-Agent": "cntk-bench"})
    try:
        with urllib.request.urlopen(request, timeout=SILENCE) as response:
            total = int(response.headers.get("Content-Length") or 0)
            while piece := response.read1(PIECE):  # returns early, so bounds hold for slow servers
                content += piece
                if len(content) > LARGEST:
                    raise ValueError(f"sends more than {LARGEST >> 20} MiB")
                if time.monotonic() - begun > LONGEST:
                    raise ValueError(f"takes longer than {LONGEST // 3600} hours")
                percent = 100 * len(content) // total if total > 0 else -1
                if progress and percent > shown:
                    shown = percent
                    with suppress(OSError, ValueError):  # the terminal may go away; the download goes on
                        print(f"\r{name}: {percent} %", end="", file=sys.stderr, flush=True)
    finally:
        if shown >= 0:
            with suppress(OSError, ValueError):
                print(file=sys.stderr)
    return bytes(content)


def digest(content: bytes) -> str:
    """MD5 (hex), which the data sets publish as their checksums."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
