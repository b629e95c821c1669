"""One file from a server: bounded in size and time, kept only if it has its checksum."""

import hashlib
import http.client
import logging
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

from cntk_bench.errors import UserError
from cntk_bench.system.files import is_plain, write_whole
from cntk_bench.text import one_line, short

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
    raise _failed(path, "; ".join(failures))


def retrieve(url: str, path: Path, sha256: str, progress: bool) -> None:
    """As `download`, through pooch, which knows a file by its SHA-256 and puts it in place when it is whole.

    Raises
    ------
    UserError
        If the address does not have it.
    OSError
        If it cannot be written.
    """
    import pooch

    if not is_plain(path):
        raise UserError(f"{short(str(path))} is no plain file: remove it and fetch again")

    def fetch(url: str, place: str, _: object) -> None:
        try:
            content = _fetched(url, path.name, progress)  # within our bounds of size and time
        except NETWORK as error:
            raise _failed(path, f"{url}: {one_line(error, 80) or type(error).__name__}") from None
        write_whole(place, content)

    said = pooch.get_logger()
    level = said.level
    said.setLevel(logging.ERROR)  # what it tells otherwise goes to stderr, whatever `progress` is
    try:
        pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent.absolute(), downloader=fetch)
    except ValueError:  # pooch's, of the checksum
        raise _failed(path, f"{url}: the bytes received do not have the published checksum") from None
    finally:
        said.setLevel(level)


def _failed(path: Path, reasons: str) -> UserError:
    return UserError(
        f"{path.name} could not be downloaded ({one_line(reasons, 180)}): "
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
