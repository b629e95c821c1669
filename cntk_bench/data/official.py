"""The published data sets, downloaded and (CIFAR, SVHN) read through torchvision.

Nothing official is opened before its checksum has been verified, neither after a download nor
on any later load: CIFAR's batches are pickles, which can execute code. The files, their
addresses and their checksums are torchvision's. Its CIFAR and SVHN classes verify every file
they are about to open; its MNIST classes do not, and prefer a stray `processed/training.pt`
to the files they downloaded. So the verified .gz files of MNIST are read with `idx` instead.
"""

import http.client
import io
import socket
import ssl
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import numpy as np

from cntk_bench.data import idx, npz
from cntk_bench.errors import UserError

# Name -> torchvision's class.
CIFAR = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
SVHN = {"svhn": "SVHN"}
MNIST = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
FETCHABLE = CIFAR | SVHN | MNIST

TIMEOUT = 60  # seconds without a byte
NETWORK = (URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException, RecursionError)


def read(name: str, path: Path):
    """Read an official data set from the folder it was fetched to.

    Parameters
    ----------
    name : str
        A key of FETCHABLE.
    path : Path
        The folder given to `fetch`, laid out as torchvision does. Without torchvision: a file
        whose name ends in .npz and that holds the images as in `npz`; for "mnist" and
        "fashion-mnist" a folder with the four idx files themselves (as in Debian's
        dataset-fashion-mnist). Neither has a published checksum, and neither can execute code.

    Returns
    -------
    x_train, y_train, x_test, y_test : arrays
        uint8 images, integer labels 0 .. k-1 (SVHN's label 10 is the digit 0).

    Raises
    ------
    UserError
        If torchvision is missing, or a file is missing or does not have its checksum.
    """
    if path.suffix == ".npz":
        return npz.read(path)
    if name in MNIST and idx.complete(path):
        return idx.read(path)
    if name in MNIST and not idx.complete(_raw(name, path)):
        raise UserError(
            f"{path} holds neither the four idx files of {name} nor a complete download: "
            "fetch it there (cntk-bench fetch)"
        )
    cls = _torchvision_class(name)
    if name in MNIST:
        return idx.read(_raw(name, path), md5s=dict(cls.resources))
    try:
        if name in SVHN:
            train, test = cls(path, split="train"), cls(path, split="test")
            return train.data, train.labels, test.data, test.labels
        train, test = cls(path, train=True), cls(path, train=False)
        return train.data, np.asarray(train.targets), test.data, np.asarray(test.targets)
    except (RuntimeError, OSError):
        raise UserError(
            f"{path} does not hold {name} complete and with its published checksums: "
            "fetch it there (cntk-bench fetch), which renews what is missing or damaged"
        ) from None


def fetch(name: str, path, progress: bool = True) -> None:
    """Download an official data set through torchvision, verifying every file's checksum.

    Safe to run again at any time: a finished file that has its checksum is neither fetched nor
    changed; a partial or damaged one is noticed by its checksum and fetched anew. Where nothing
    is left to do, no request is made.

    Parameters
    ----------
    name : str
        A key of FETCHABLE.
    path : path-like
        Folder, created where it is missing: the `path` to give to `load`.
    progress : bool, optional
        Show torchvision's progress bar on stderr.

    Raises
    ------
    UserError
        If the data set cannot be fetched, torchvision is missing, the network or the server
        fails, a downloaded file does not have its checksum, or the folder cannot be written.
    """
    if name not in FETCHABLE:
        raise UserError(f"data set {name!r} is not fetched: those to fetch are {', '.join(FETCHABLE)}")
    path = Path(path).expanduser()
    if name in MNIST and idx.complete(path):
        return
    cls = _torchvision_class(name)
    if name in CIFAR and _extracted(cls, path):
        return
    with nullcontext() if progress else redirect_stderr(io.StringIO()), _timeout():
        try:
            for file in _files(name, cls, path):
                file.download()
            if name in CIFAR:
                from torchvision.datasets.utils import extract_archive

                extract_archive(path / cls.filename, path)
        except OSError as error:
            raise UserError(
                f"{name} cannot be stored in {path} ({error.strerror or error}): "
                "free space or choose another folder, then fetch again; finished files are kept"
            ) from None


@dataclass(frozen=True)
class _File:
    folder: Path
    name: str
    md5: str
    urls: tuple[str, ...]

    def download(self):
        """Fetch the file from the first address that works, unless it is there and verified."""
        from torchvision.datasets.utils import download_url

        failures = []
        for url in self.urls:
            try:
                return download_url(url, self.folder, self.name, self.md5)
            except NETWORK as error:
                failures.append(f"{url}: {error}")
            except RuntimeError:
                failures.append(f"{url}: the bytes received do not have the published checksum")
        raise UserError(
            f"{self.name} could not be downloaded ({'; '.join(failures)}): "
            "check the connection and fetch again; finished files are kept"
        )


def _files(name, cls, path):
    if name in CIFAR:
        return [_File(path, cls.filename, cls.tgz_md5, (cls.url,))]
    if name in SVHN:
        return [
            _File(path, cls.split_list[s][1], cls.split_list[s][2], (cls.split_list[s][0],))
            for s in ("train", "test")
        ]
    return [
        _File(_raw(name, path), file, md5, tuple(mirror + file for mirror in cls.mirrors))
        for file, md5 in cls.resources
    ]


def _raw(name, path):
    return path / MNIST[name] / "raw"


def _extracted(cls, path) -> bool:
    """Whether all of CIFAR's pickles are there; torchvision's own check leaves out the names."""
    from torchvision.datasets.utils import check_integrity

    batches = [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])]
    return all(check_integrity(path / cls.base_folder / file, md5) for file, md5 in batches)


def _torchvision_class(name):
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"data set {name} needs torchvision, which cannot be imported ({reason}): "
            "install the extra cntk-bench[torch] (pip install -e '.[torch]'), or give an .npz file"
        ) from None
    return getattr(torchvision.datasets, FETCHABLE[name])


@contextmanager
def _timeout():
    """A stalled server must not hang a download; torchvision sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
