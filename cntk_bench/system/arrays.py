"""Arrays in .npz files that the program wrote, and that may have been damaged since."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cntk_bench.system.files import read_plain


def read_arrays(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file whose names are wanted; each is compared with its checksum.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged.
    """
    content = io.BytesIO(read_plain(path))
    try:
        with np.load(content, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if wanted(name)}
    except Exception as error:  # zipfile and NumPy raise all kinds, from NotImplementedError to TokenError
        raise ValueError(str(error) or type(error).__name__) from None
