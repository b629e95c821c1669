"""Export of a run's matrices to other formats (npy, npz, HDF5, torch), without a second copy in memory."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.runs.access import Gram
from cntk_bench.system.files import atomic_file, remove_partial, writing
from cntk_bench.text import short


def write(gram: Gram, target: Path) -> list[Path]:
    """Write matrices and labels to a file, in the format given by its suffix.

    Parameters
    ----------
    gram : Gram
    target : Path
        FILE.npz, FILE.h5, FILE.hdf5 or FILE.pt: one file. FILE.npy: a file per array, FILE-train.npy and
        so on, which can be memory-mapped.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UserError
        If the format is unknown, a library that it needs is missing, or a file cannot be written.
    """
    require(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_partial(target.parent, target.stem)  # leftovers as large as the matrices
    return FORMATS[target.suffix](gram.arrays(), target)


def require(target: Path) -> None:
    """Raise UserError if the file's suffix is not one of `FORMATS`."""
    if target.suffix not in FORMATS:
        raise UserError(f"--to {short(str(target))}: end the name in one of {', '.join(FORMATS)}")


def _npy(arrays: dict[str, np.ndarray], target: Path) -> list[Path]:
    written = []
    for name, values in arrays.items():
        path = target.with_name(f"{target.stem}-{name}.npy")
        with atomic_file(path) as file:
            np.save(file, values)
        written.append(path)
    return written


def npz(arrays: Mapping[str, Any]) -> bytes:
    """The bytes of a small .npz file."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _npz(arrays: dict[str, Any], target: Path) -> list[Path]:
    with atomic_file(target) as file:
        np.savez(file, **arrays)
    return [target]


def _hdf5(arrays: dict[str, np.ndarray], target: Path) -> list[Path]:
    try:
        import h5py
    except ImportError:
        raise UserError("writing HDF5 needs h5py: pip install 'cntk-bench[export]'") from None
    with atomic_file(target) as content, h5py.File(content, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
    return [target]


def _torch(arrays: dict[str, np.ndarray], target: Path) -> list[Path]:
    try:
        import torch
    except ImportError:
        raise UserError("writing a torch file needs torch: pip install 'cntk-bench[torch]'") from None
    with atomic_file(target) as file:
        try:
            torch.save({name: torch.from_numpy(values) for name, values in arrays.items()}, file)
        except RuntimeError as error:  # torch's own, which hides the OSError
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    return [target]


FORMATS: dict[str, Callable[[dict[str, np.ndarray], Path], list[Path]]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".pt": _torch,
}
