"""A folder of four memory-mapped .npy files: only the images that are used are ever in memory."""

import logging
from pathlib import Path

import numpy as np

from cntk_bench.data.npz import KEYS
from cntk_bench.errors import UserError
from cntk_bench.system import memory
from cntk_bench.system.files import is_plain
from cntk_bench.text import one_line, short

log = logging.getLogger(__name__)


def read(path: Path) -> list[np.ndarray]:
    """Open the four arrays of a folder.

    Parameters
    ----------
    path : Path
        A folder with x_train.npy, y_train.npy, x_test.npy and y_test.npy, as `np.save` and
        `np.lib.format.open_memmap` write them; layouts and types as in `checks.images` and `checks.labels`.

    Returns
    -------
    x_train, y_train, x_test, y_test : arrays
        The images are mapped read-only: the system reads a page of the file when it is used and may drop it
        again. The labels are read into memory.

    Raises
    ------
    UserError
        If the folder cannot be accessed, or a file is missing, truncated, not a plain .npy file, or holds
        Python objects.
    """
    try:
        missing = [f"{key}.npy" for key in KEYS if not _exists(path / f"{key}.npy")]
    except OSError as error:
        raise UserError(
            f"{short(str(path))} cannot be looked into ({error.strerror or error}): make it readable, or "
            "give another folder"
        ) from None
    if missing:
        raise UserError(
            f"{short(str(path))} has no file {', '.join(missing)}: give a folder with "
            f"{', '.join(f'{key}.npy' for key in KEYS)}"
        )
    return [_mapped(path / f"{key}.npy", whole=key.startswith("y")) for key in KEYS]


def _exists(file: Path) -> bool:
    """Whether a file exists; OSError if that cannot be known, which `Path.exists` hides in some Pythons."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _mapped(path: Path, whole: bool) -> np.ndarray:
    try:
        if not is_plain(path):
            raise ValueError("it is not a plain file")
        array = np.lib.format.open_memmap(path, mode="r")
    except MemoryError:
        raise
    except Exception as error:  # bytes that are no header can raise anything
        said = getattr(error, "strerror", None) or one_line(error, 120) or type(error).__name__
        raise UserError(
            f"{short(str(path))} cannot be mapped ({said}): write a plain array with np.save"
        ) from None
    if whole:
        return np.array(array)
    if array.flags.f_contiguous and not array.flags.c_contiguous and array.nbytes > memory.available():
        log.warning(
            "%s is larger than the free memory and in Fortran order, in which each image is spread over the "
            "whole file: reading takes very long; write it in C order (np.lib.format.open_memmap)",
            short(str(path)),
        )
    return np.asarray(array)
