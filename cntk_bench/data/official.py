"""The published data sets: downloaded, verified and read.

No downloaded file is opened before its checksum has been verified, neither after the download nor on any
later load. Where torchvision is installed, CIFAR is fetched as the archive of pickles that torchvision uses,
too; elsewhere as the binary archive (`binary`). Whichever a folder has is read, and reading either needs no
torchvision. The files of SVHN and MNIST, their addresses and their checksums are torchvision's. Its SVHN
class verifies every file before opening it. Its MNIST classes do not, and prefer a stray
`processed/training.pt` to the files they downloaded, so `idx` reads the verified .gz files instead. Its CIFAR
classes unpickle whatever has the right MD5, so `cifar` reads the batches instead.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from os.path import exists  # unlike Path.exists, False for what cannot be a path
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.data import binary, cifar, idx, npz
from cntk_bench.data.download import digest, download
from cntk_bench.errors import UserError
from cntk_bench.system.files import writing
from cntk_bench.system.paths import expanded
from cntk_bench.text import one_line, short

CIFAR = tuple(cifar.ARCHIVES)
# Name -> torchvision's class.
SVHN = {"svhn": "SVHN"}
MNIST = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
FETCHABLE = (*CIFAR, *SVHN, *MNIST)


def read(name: str, path: Path) -> Sequence[np.ndarray]:
    """Read an official data set from the folder it was fetched to.

    Parameters
    ----------
    name : str
        A key of FETCHABLE.
    path : Path
        The folder given to `fetch`, laid out as by torchvision; for "cifar10" and "cifar100", with either
        archive (the archive's path, or that of its batches, stands for the folder). Also accepted: an .npz
        file that holds the images as in `npz`; for "mnist" and "fashion-mnist", a folder with the four idx
        files themselves (as in Debian's dataset-fashion-mnist). Neither has a published checksum, and neither
        can execute code.

    Returns
    -------
    x_train, y_train, x_test, y_test : arrays
        uint8 images, integer labels 0 .. k-1 (SVHN's label 10 is the digit 0).

    Raises
    ------
    UserError
        If torchvision is missing (SVHN, MNIST), or a file is missing or has a wrong checksum.
    """
    if path.suffix == ".npz":
        return npz.read(path)
    path = _above(name, path)
    if name in MNIST and idx.complete(path):
        return idx.read(path)
    if name in MNIST and not idx.complete(_raw(name, path)):
        raise UserError(
            f"{short(str(path))} holds neither the four idx files of {name} nor a complete download: "
            "fetch it there (cntk-bench fetch)"
        )
    if name in CIFAR:
        if _is_binary(name, path):
            return binary.read(name, path)
        archive = cifar.ARCHIVES[name]
        parts = [
            cifar.read({path / file: md5 for file, md5 in files.items()}, archive.key)
            for files in (archive.train, archive.test)
        ]
        return *parts[0], *parts[1]
    cls = _torchvision_class(name)
    if name in MNIST:
        return idx.read(_raw(name, path), md5s=dict(cls.resources))
    try:
        train, test = cls(path, split="train"), cls(path, split="test")
    except (RuntimeError, OSError):
        raise UserError(
            f"{short(str(path))} does not hold {name} complete and with its published checksums: "
            "fetch it there (cntk-bench fetch), which renews what is missing or damaged"
        ) from None
    return train.data, np.asarray(train.labels), test.data, np.asarray(test.labels)


def fetch(name: str, path: str | Path, progress: bool = True) -> None:
    """Download an official data set, verifying every file's checksum.

    Safe to run again at any time: a file with the right checksum is neither fetched nor changed; a
    partial or damaged one is fetched anew. If nothing is left to do, no request is made.

    Parameters
    ----------
    name : str
        A key of FETCHABLE.
    path : path-like
        Folder to give to `load` as `path`; created if it is missing.
    progress : bool, optional
        Show the progress on stderr.

    Raises
    ------
    UserError
        If the data set is not one to fetch, torchvision is missing (SVHN, MNIST), the network or the server
        fails, a downloaded file has a wrong checksum, or the folder cannot be written.
    """
    if name not in FETCHABLE:
        raise UserError(f"data set {short(name)} is not fetched: those to fetch are {', '.join(FETCHABLE)}")
    path = _above(name, place(path))
    if name in MNIST and idx.complete(path):
        return
    if name in CIFAR:
        with writing(path):
            return _fetch_cifar(name, path, progress)
    files = _files(name, _torchvision_class(name), path)
    with writing(path):
        for file, md5, urls in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            download(urls, file, md5, progress)


def _fetch_cifar(name: str, path: Path, progress: bool) -> None:
    """Fetch the archive that the folder already has, else the pickles if torchvision is installed."""
    if _is_binary(name, path):
        return binary.fetch(name, path, progress)
    archive = cifar.ARCHIVES[name]
    if all(_has(path / file, md5) for file, md5 in archive.batches.items()):
        return
    path.mkdir(parents=True, exist_ok=True)
    download((archive.url,), path / archive.file, archive.md5, progress)
    cifar.unpack(path / archive.file, path, archive.batches)


def _above(name: str, path: Path) -> Path:
    """The folder that holds CIFAR's archive or batches, if the path is that of these themselves."""
    if name not in CIFAR:
        return path
    archive, packed = cifar.ARCHIVES[name], binary.ARCHIVES[name]
    names = archive.file, archive.folder, packed.file, packed.folder
    if path.name not in names or any(exists(path / one) for one in names):
        return path
    if path.name == packed.folder and not exists(path.parent / packed.file):
        raise UserError(
            f"{short(str(path))} has unpacked files, which have no published checksum: give the folder of "
            f"{packed.file}, or fetch it (cntk-bench fetch)"
        )
    return path.parent


def _is_binary(name: str, path: Path) -> bool:
    """Whether a folder has, or should get, the binary archive rather than the pickles."""
    archive = cifar.ARCHIVES[name]
    if exists(path / archive.folder) or exists(path / archive.file):
        return False
    return exists(path / binary.ARCHIVES[name].file) or find_spec("torchvision") is None


def _files(name: str, cls: Any, path: Path) -> list[tuple[Path, str, tuple[str, ...]]]:
    """Path, MD5 and addresses of every file of a data set."""
    if name in SVHN:
        parts = (cls.split_list[split] for split in ("train", "test"))
        return [(path / file, md5, (url,)) for url, file, md5 in parts]
    return [
        (_raw(name, path) / file, md5, tuple(mirror + file for mirror in cls.mirrors))
        for file, md5 in cls.resources
    ]


def _has(path: Path, md5: str) -> bool:
    return path.is_file() and digest(path.read_bytes()) == md5


def _raw(name: str, path: Path) -> Path:
    return path / MNIST[name] / "raw"


def place(path: str | Path) -> Path:
    """The user's path with ~ expanded to the home directory."""
    try:
        return Path(expanded(str(path)))
    except UserError as error:
        raise UserError(f"path cannot be used: {error}") from None


def _torchvision_class(name: str) -> Any:
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(
            f"data set {name} needs torchvision, which cannot be imported ({one_line(error, 100)}): "
            "pip install 'cntk-bench[torch]', or give an .npz file"
        ) from None
    return getattr(torchvision.datasets, (SVHN | MNIST)[name])
