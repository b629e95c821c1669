"""A file format for arrays and plain values, with a checksum that shows whether a file is intact."""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

MAGIC = b"cntk-bench archive 1\n"
ABOUT = "about"


class Damaged(Exception):
    """The bytes are not those that were written; the message says what is wrong with them."""


def pack(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> bytes:
    """Pack arrays, by name, and JSON values that describe them into the bytes of a file with a SHA-256."""
    text = np.frombuffer(json.dumps(dict(about)).encode(), np.uint8)
    content = io.BytesIO()
    named: dict[str, Any] = {ABOUT: text} | {f"={name}": array for name, array in arrays.items()}
    np.savez(content, **named)
    body = content.getbuffer()
    return b"".join((MAGIC, hashlib.sha256(body).hexdigest().encode(), b"\n", body))


def unpack(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and values that `pack` was given.

    Raises
    ------
    Damaged
        If the bytes are not an archive, or are not as they were written.
    """
    head = len(MAGIC) + 65
    if not data.startswith(MAGIC) or len(data) < head:
        raise Damaged("it is no archive, or cut off")
    body = memoryview(data)[head:]
    if data[len(MAGIC) : head] != hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise Damaged("its SHA-256 is not that of its content")
    with np.load(io.BytesIO(body), allow_pickle=False) as found:
        about = json.loads(found[ABOUT].tobytes())
        return {name[1:]: found[name] for name in found.files if name != ABOUT}, about
