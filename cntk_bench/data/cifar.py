"""CIFAR's archive and its batches: nothing in them is executed, and nothing but the batches is unpacked.

The batches are pickles, which could run code, and the archive is a tar, which could write anywhere;
their published checksums are MD5, which can be forged. So only plain files with the batches' names
leave the archive, and of pickles only lists, dictionaries, text, numbers and arrays are made.
"""

import io
import pickle
import tarfile
import zlib
from pathlib import Path

import numpy as np

from cntk_bench.data.download import digest
from cntk_bench.errors import UserError
from cntk_bench.files import read_plain, write_whole
from cntk_bench.text import one_line, short

LARGEST = 2**28  # bytes of a batch; the largest has 155 MB
DAMAGED = (tarfile.TarError, EOFError, ValueError, zlib.error, OverflowError)


def unpack(archive: Path, folder: Path, batches: dict[str, str]) -> None:
    """Write the batches (path in the archive -> MD5) of an archive below a folder.

    Raises
    ------
    UserError
        If the archive lacks a batch, or holds another one than the published.
    """
    left = dict(batches)
    try:
        with tarfile.open(archive, "r|gz") as stream:
            for member in stream:
                if member.size > LARGEST:
                    raise ValueError(f"{short(member.name)} claims {member.size} bytes")
                md5 = left.get(member.name)
                if md5 is None or not member.isreg():
                    continue
                content = stream.extractfile(member).read()
                if digest(content) != md5:
                    raise ValueError(f"{short(member.name)} does not have its published checksum")
                path = folder / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, content)
                del left[member.name]
                if not left:
                    return
        raise ValueError(f"it lacks {short(', '.join(left))}")
    except DAMAGED as error:
        raise UserError(
            f"{short(str(archive))} is not the published archive ({one_line(error, 100)}): "
            "remove it and fetch again"
        ) from None


def read(files: dict[Path, str], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32), uint8, and labels (n,) of batches (path -> MD5), one after another.

    Raises
    ------
    UserError
        If a batch is missing, damaged or of another form.
    """
    images, labels = [], []
    for path, md5 in files.items():
        try:
            content = read_plain(path, LARGEST)
            if digest(content) != md5:
                raise ValueError("it does not have its published checksum")
            batch = _Plain(io.BytesIO(content), encoding="latin1").load()
            images.append(np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32))
            labels.append(np.asarray(batch[key], np.int64))
        except OSError as error:
            raise UserError(
                f"{short(str(path))} cannot be read ({error.strerror or error}): fetch it there "
                "(cntk-bench fetch)"
            ) from None
        except Exception as error:  # whatever a pickle that is none makes of itself
            raise UserError(
                f"{short(str(path))} is no published batch ({one_line(error, 100)}): fetch it there "
                "(cntk-bench fetch), which renews what is missing or damaged"
            ) from None
    return np.concatenate(images), np.concatenate(labels)


class _Plain(pickle.Unpickler):
    """Makes arrays, and of the rest only what pickles have without importing anything."""

    ALLOWED = {(f"{numpy}.multiarray", "_reconstruct") for numpy in ("numpy.core", "numpy._core")} | {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module, name):
        if (module, name) in self.ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it wants {short(module)}.{short(name)}, which no batch needs")
