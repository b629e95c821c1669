"""CIFAR's archive of pickled batches, read so that no code in it runs and only the batches are unpacked.

The batches are pickles, which could run code, and the archive is a tar, which could write anywhere;
their published checksums are MD5, which can be forged. So only plain files with the batches' names
are extracted, and unpickling makes only lists, dictionaries, text, numbers and arrays.
"""

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.data.download import digest
from cntk_bench.errors import UserError
from cntk_bench.system.files import read_plain, write_atomic
from cntk_bench.text import one_line, short

LARGEST = 2**28  # bytes of an unpacked archive, and so of a batch; the published archives have 190 MB
DAMAGED = (
    tarfile.TarError,
    EOFError,
    ValueError,
    zlib.error,
    OverflowError,
    RecursionError,
    gzip.BadGzipFile,
)


@dataclass(frozen=True)
class Archive:
    """An archive's URL, its MD5, its batches (path in the archive -> MD5), and the key of a batch's labels.

    URLs and checksums are torchvision's, which took them from the data sets' own page among others.
    """

    url: str
    md5: str
    train: dict[str, str]
    test: dict[str, str]
    meta: dict[str, str]
    key: str

    @property
    def file(self) -> str:
        """The archive's file name."""
        return self.url.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The folder that the batches are unpacked to."""
        return next(iter(self.test)).partition("/")[0]

    @property
    def batches(self) -> dict[str, str]:
        """All batches, of training, test and metadata."""
        return self.train | self.test | self.meta


ARCHIVES = {
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        {
            "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
            "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
            "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        {"cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e"},
        {"cifar-10-batches-py/batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        "labels",
    ),
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        {"cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d"},
        {"cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        {"cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48"},
        "fine_labels",
    ),
}


def unpack(archive: Path, folder: Path, batches: dict[str, str]) -> None:
    """Extract the batches (path in the archive -> MD5) of an archive into a folder.

    Raises
    ------
    UserError
        If the archive cannot be read, lacks a batch, or holds a batch with a wrong checksum.
    """
    with _damage(archive):
        for name, batch in _walked(gzip.open(archive), batches):
            if digest(batch) != batches[name]:
                raise ValueError(f"{short(name)} does not have its published checksum")
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, batch)


def members(archive: bytes, names: Iterable[str], path: Path) -> dict[str, bytes]:
    """Extract the named files (path in the archive -> content) from an archive's bytes.

    `path` is the archive's name in messages.

    Raises
    ------
    UserError
        If the archive cannot be read or lacks one of the files.
    """
    with _damage(path):
        return dict(_walked(gzip.open(io.BytesIO(archive)), names))


def _walked(packed: gzip.GzipFile, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the named plain files, in the archive's order, until all are found."""
    left = dict.fromkeys(names)
    with packed:  # unpack whole and bounded first: tarfile reads headers of whatever size they claim
        content = packed.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it unpacks to more than {LARGEST} bytes")
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as stream:
        for member in stream:
            if not 0 <= member.size <= LARGEST:  # a negative size would make tarfile loop for ever
                raise ValueError(f"{short(member.name)} claims {member.size} bytes")
            if member.name not in left or not member.isreg():
                continue
            file = stream.extractfile(member)
            yield member.name, file.read() if file else b""
            del left[member.name]
            if not left:
                return
    raise ValueError(f"it lacks {short(', '.join(left))}")


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        raise UserError(
            f"{short(str(archive))} is not the published archive ({one_line(error, 100)}): "
            "remove it and fetch again"
        ) from None


def read(files: dict[Path, str], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Read images (n, 3, 32, 32), uint8, and labels (n,) of batches (path -> MD5), concatenated.

    Raises
    ------
    UserError
        If a batch is missing, damaged or has another form.
    """
    images, labels = [], []
    for path, md5 in files.items():
        try:
            content = read_plain(path, LARGEST)
            if digest(content) != md5:
                raise ValueError("it does not have its published checksum")
            batch = _Plain(io.BytesIO(content), encoding="latin1").load()
            images.append(batch["data"].pixels.reshape(-1, 3, 32, 32))
            labels.append(np.asarray(batch[key], np.int64))
        except OSError as error:
            raise UserError(
                f"{short(str(path))} cannot be read ({error.strerror or error}): fetch it there "
                "(cntk-bench fetch)"
            ) from None
        except Exception as error:  # bytes that are no pickle can raise anything
            raise UserError(
                f"{short(str(path))} is no published batch ({one_line(error, 100)}): fetch it there "
                "(cntk-bench fetch), which renews what is missing or damaged"
            ) from None
    return np.concatenate(images), np.concatenate(labels)


class _Plain(pickle.Unpickler):
    """Unpickler that imports nothing: the NumPy names in batches map to the stand-ins below, others fail.

    NumPy's own functions would trust whatever types and pointers a pickle claims.
    """

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module.replace("numpy._core", "numpy.core"), name]
        except KeyError:
            wanted = f"{short(module)}.{short(name)}"
            raise pickle.UnpicklingError(f"it wants {wanted}, which no batch needs") from None


class _Array:
    """Stand-in for an array of bytes, made from the shape, the memory order and the bytes in its state."""

    def __init__(self, *_: object) -> None:
        self.pixels: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("it has an array without a type")
        content = content.encode("latin1") if isinstance(content, str) else content
        self.pixels = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """Stand-in for the pixels' only type, uint8; its pickled state holds nothing more."""

    def __init__(self, name: object, *_: object) -> None:
        if name != "u1":
            raise pickle.UnpicklingError(f"it has an array of the type {short(name)}, not of bytes")

    def __setstate__(self, state: object) -> None:
        pass


def _bytes(text: str, encoding: str) -> bytes:
    """Stand-in for `_codecs.encode`, by which Python 3 pickles bytes in the old protocols."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it has bytes in {short(encoding)}")
    return text.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _bytes,
}
