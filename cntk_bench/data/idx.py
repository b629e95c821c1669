"""The idx format of MNIST and similar data sets: a few header bytes, then uint8."""

import gzip
import io
import math
import zlib
from os.path import isfile  # unlike Path.is_file, False where access is denied
from pathlib import Path

import numpy as np

from cntk_bench.data.download import digest
from cntk_bench.errors import UserError
from cntk_bench.system.files import read_plain
from cntk_bench.text import short

LARGEST = 2**28  # bytes of a file, at most; MNIST's largest has 47 MB

# File -> number of dimensions, of x_train, y_train, x_test, y_test.
FILES = {
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}


def complete(folder: Path) -> bool:
    """Whether the folder holds the four files, each gzipped (.gz) or not."""
    return all(isfile(_find(folder, name)) for name in FILES)


def read(folder: Path, md5s: dict[str, str] | None = None) -> list[np.ndarray]:
    """Read the four files of a folder.

    Parameters
    ----------
    folder : Path
        Holds the four files of FILES; where a file is there both gzipped and not, the gzipped one
        is read, since gzip carries a checksum.
    md5s : dict of str, optional
        Checksums of the gzipped files by name: then only gzipped files are read, and unpacked only
        after their checksum has been verified. Without it any file of the right form is accepted;
        the format is plain numbers, so nothing in it can be executed.

    Returns
    -------
    x_train, y_train, x_test, y_test : arrays (n, P, Q) and (n,), uint8

    Raises
    ------
    UserError
        If a file is missing, has a wrong checksum, or is not a complete idx file.
    """
    arrays = []
    for name, ndim in FILES.items():
        file = _find(folder, name) if md5s is None else folder / f"{name}.gz"
        try:
            content = read_plain(file, LARGEST)
            if md5s is not None and digest(content) != md5s[file.name]:
                raise UserError(
                    f"{short(str(file))} does not have its published checksum: "
                    "fetch it again (cntk-bench fetch)"
                )
            if content[:2] == b"\x1f\x8b":
                content = _unzipped(content)
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{short(str(file))} cannot be read ({reason}): fetch it again") from None
        arrays.append(parse(content, ndim, file))
    return arrays


def _unzipped(content: bytes) -> bytes:
    with gzip.open(io.BytesIO(content)) as stream:
        plain = stream.read(LARGEST + 1)
    if len(plain) > LARGEST:
        raise OSError(f"it unpacks to more than {LARGEST} bytes")
    return plain


def parse(content: bytes, ndim: int, what: object) -> np.ndarray:
    """Parse the bytes of an idx file: two zeros, 8 (uint8), ndim, big-endian sizes, data."""
    start = 4 + 4 * ndim
    if len(content) < start or content[:4] != bytes([0, 0, 8, ndim]):
        raise UserError(
            f"{short(str(what))} is no idx file of {ndim} dimensions (it begins with {content[:4].hex()}): "
            "copy it again"
        )
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if 0 in shape:  # before reshape: the other sizes may be more than an array can have
        raise UserError(f"{short(str(what))} has the shape {shape}, which is empty: copy it again")
    if len(content) - start != math.prod(shape):
        raise UserError(
            f"{short(str(what))} has {len(content) - start} bytes of data where its header tells "
            f"{math.prod(shape)}: copy it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    zipped = folder / f"{name}.gz"
    return zipped if isfile(zipped) else folder / name
