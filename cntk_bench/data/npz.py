"""A user's own data set: one .npz file. Nothing in it is ever unpickled."""

from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from cntk_bench.errors import UserError
from cntk_bench.system import memory
from cntk_bench.system.files import is_plain
from cntk_bench.text import one_line, short

KEYS = ("x_train", "y_train", "x_test", "y_test")


def read(path: Path) -> list[np.ndarray]:
    """Read the four arrays of a .npz file.

    Parameters
    ----------
    path : Path
        A file with x_train, y_train, x_test, y_test; layouts and types as in `checks.images` and
        `checks.labels`. Each array's zip checksum is verified.

    Returns
    -------
    x_train, y_train, x_test, y_test : arrays

    Raises
    ------
    UserError
        If the file does not exist or is not a readable .npz, an array is missing, there twice or
        holds Python objects, or the arrays are larger than the free memory.
    """
    try:
        if not is_plain(path):
            raise ValueError("it is not a plain file")
        with path.open("rb") as stream, np.lib.npyio.NpzFile(stream, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise UserError(
                    f"{short(str(path))} has no array {', '.join(missing)}: name its arrays {', '.join(KEYS)}"
                )
            _bound(file, path)
            return [_array(file, key, path) for key in KEYS]
    except FileNotFoundError:
        raise UserError(f"there is no file {short(str(path))}: give the path of an .npz file") from None
    except UserError:
        raise
    except Exception as error:  # zipfile and NumPy raise all kinds, from LZMAError to TokenError
        raise UserError(
            f"{short(str(path))} is not a readable .npz file ({_line(error)}): give one written by np.savez"
        ) from None


def _bound(file: NpzFile, path: Path) -> None:
    """Refuse, before unpacking, arrays that are there twice or need more memory than is free.

    NumPy takes a member with or without the suffix .npy, and silently the last of several with one name.
    """
    assert file.zip is not None  # it is open
    names = [name.removesuffix(".npy") for name in file.zip.namelist()]
    twice = [key for key in KEYS if names.count(key) > 1]
    if twice:
        raise UserError(f"{short(str(path))} has the array {twice[0]} twice: give a file with one of each")
    sizes = zip(names, file.zip.infolist(), strict=True)
    needed = sum(info.file_size for name, info in sizes if name in KEYS)
    free = memory.available()
    if needed > free:
        raise UserError(
            f"{short(str(path))} unpacks to {needed / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free: "
            "give fewer images, or more memory"
        )


def _array(file: NpzFile, key: str, path: Path) -> np.ndarray:
    try:
        array = file[key]
        if not isinstance(array, np.ndarray):
            raise ValueError("it is no array")
    except Exception as error:
        raise UserError(
            f"{key} in {short(str(path))} cannot be read ({_line(error)}): write plain arrays with np.savez"
        ) from None
    return array


def _line(error: Exception) -> str:
    return one_line(error, 120) or type(error).__name__
