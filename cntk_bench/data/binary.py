"""CIFAR's binary archives: plain bytes, read without torch and without unpacking anything onto the disk.

A record is a one-byte label (for CIFAR-100 two: coarse, then fine) and 3,072 bytes of pixels, channels first.
Only the archive itself is kept on disk, and it is read only if its checksum is right.

Sources: https://www.cs.toronto.edu/~kriz/cifar.html, which gives the MD5s c32a1d4ab5d03f1284b67883e8d87530
and 03b5dce01913d631647c71ecec9e9cb8; MLDatasets.jl and GoMLX verify the same SHA-256s.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from cntk_bench.data import cifar
from cntk_bench.data.download import retrieve
from cntk_bench.errors import UserError
from cntk_bench.system.files import read_plain
from cntk_bench.text import short

LARGEST = 2**28  # bytes of an archive, at most; the published ones have 170 MB
PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Archive:
    """An archive's URL, its SHA-256, its files of training and test records, and the labels per record."""

    url: str
    sha256: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: int

    @property
    def file(self) -> str:
        """The archive's file name."""
        return self.url.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The folder of its files."""
        return self.test[0].partition("/")[0]


ARCHIVES = {
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
        ("cifar-10-batches-bin/test_batch.bin",),
        labels=1,
    ),
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ("cifar-100-binary/train.bin",),
        ("cifar-100-binary/test.bin",),
        labels=2,
    ),
}


def fetch(name: str, folder: Path, progress: bool) -> None:
    """Download an archive unless it is already there; raises what `download.retrieve` raises."""
    archive = ARCHIVES[name]
    retrieve(archive.url, folder / archive.file, archive.sha256, progress)


def read(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read x_train, y_train, x_test, y_test: images (n, 3, 32, 32), uint8, and labels (n,), int64.

    Raises
    ------
    UserError
        If the archive is missing, has a wrong checksum, or its records have another form.
    """
    archive = ARCHIVES[name]
    path = folder / archive.file
    try:
        content = read_plain(path, LARGEST)
    except OSError as error:
        raise UserError(
            f"{short(str(path))} cannot be read ({error.strerror or error}): fetch it there "
            "(cntk-bench fetch)"
        ) from None
    if sha256(content).hexdigest() != archive.sha256:
        raise UserError(
            f"{short(str(path))} does not have its published checksum: fetch it there (cntk-bench fetch), "
            "which renews it"
        )
    members = cifar.members(content, (*archive.train, *archive.test), path)
    train, test = (
        _records([members[file] for file in files], archive.labels, path)
        for files in (archive.train, archive.test)
    )
    return *train, *test


def _records(files: list[bytes], labels: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels (the last label of each record) of several files, concatenated."""
    if any(len(content) % (labels + PIXELS) for content in files):
        raise UserError(f"{short(str(path))} has a part of a record: remove it and fetch again")
    records = np.concatenate([np.frombuffer(content, np.uint8) for content in files])
    rows = records.reshape(-1, labels + PIXELS)
    return rows[:, labels:].reshape(-1, 3, 32, 32), rows[:, labels - 1].astype(np.int64)
