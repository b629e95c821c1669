"""Registry of data sets: their names, and the function that reads each."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from cntk_bench.data import digits, folder, npy, npz, official
from cntk_bench.data.folder import Layout
from cntk_bench.errors import UserError
from cntk_bench.system import plugins
from cntk_bench.text import one_line, short

FOLDER = "folder"


class Reader(Protocol):
    """A function that reads a data set; other packages register theirs under `cntk_bench.datasets`.

    The entry point's name is the value of `dataset.name`. The caller checks what is returned, selects classes
    and images, and prepares the pixels.
    """

    def __call__(self, path: Path | None) -> Sequence[np.ndarray]:
        """Read all images and labels, in the data set's own order.

        Parameters
        ----------
        path : Path or None
            `dataset.path` with ~ expanded; None if it is not set.

        Returns
        -------
        x_train, y_train, x_test, y_test : arrays
            Images (n, C, P, P), (n, P, P, C) or (n, P, P), or vectors (n, d), as uint8 (0 to 255) or floats;
            training and test images alike. Labels (n,): integers 0 .. k-1, or text that names the classes.

        Raises
        ------
        UserError
            If it cannot be read.
        """


# Data set -> its `Reader`; that of FOLDER has other parameters.
READERS: dict[str, Callable[..., Sequence[np.ndarray]]] = {
    "digits": digits.read,
    "npz": npz.read,
    "npy": npy.read,
    FOLDER: folder.read,
    **{name: partial(official.read, name) for name in official.FETCHABLE},
}
GROUP = "cntk_bench.datasets"
PATHS = {
    "npz": "the .npz file",
    "npy": "the folder of x_train.npy, y_train.npy, x_test.npy and y_test.npy",
    FOLDER: "the folder of pictures",
}


def names() -> tuple[str, ...]:
    """Names of all known data sets."""
    return (*READERS, *plugins.names(GROUP))


def canonical(name: str) -> str:
    """Resolve a spelling such as "CIFAR-10" to the name "cifar10"; unknown names are returned unchanged."""
    if not isinstance(name, str) or name in READERS:
        return name
    known = names()
    same = [one for one in known if _bare(one) == _bare(name)]
    return name if name in known or len(same) != 1 else same[0]


def _bare(name: str) -> str:
    """A name without what spellings differ in: case, hyphens, underscores and spaces."""
    return "".join(c for c in name.casefold() if c not in "-_ ")


def is_known(name: str) -> bool:
    """Whether a name, in any spelling that `canonical` resolves, is that of a data set."""
    return canonical(name) in names()


def require_known(name: str) -> None:
    """Raise UserError, with the most similar known name, if there is no such data set."""
    plugins.require_known("data set", name, names())


def read(name: str, path: str | Path | None, layout: Layout, seed: int) -> Sequence[np.ndarray]:
    """Read the four arrays of a known data set, as its reader returns them.

    Raises
    ------
    UserError
        If a path is missing or unused, layout options are given for anything but "folder", or reading fails.
    """
    if name == "digits" and path is not None:
        raise UserError(
            f"path {short(str(path))} is not used by digits, which ships with scikit-learn: remove it"
        )
    if name in READERS and name != "digits" and path is None:
        what = PATHS.get(name, "the folder it was fetched to (cntk-bench fetch)")
        raise UserError(f"data set {name} needs a path: give {what}")
    place = None if path is None else official.place(path)
    if name == FOLDER:
        return folder.read(official.place(path or ""), layout, seed)
    for key, value in vars(layout).items():
        if value != getattr(Layout, key):
            raise UserError(
                f"dataset.{key} is {short(str(value))}, which is for pictures: leave it out, or use "
                f"dataset.name={FOLDER}"
            )
    return READERS[name](place) if name in READERS else _of_package(name, place)


def _of_package(name: str, place: Path | None) -> Sequence[np.ndarray]:
    """Read a data set of another package."""
    try:
        found = tuple(plugins.load(GROUP, name)(place))
    except (UserError, MemoryError):
        raise
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}", 120)
        raise UserError(f"data set {name} failed ({reason}): mend the package that has it") from error
    if len(found) != 4 or not all(isinstance(array, np.ndarray) for array in found):
        raise UserError(
            f"data set {name} gives {short(', '.join(type(one).__name__ for one in found))}, not the four "
            "arrays x_train, y_train, x_test, y_test: mend the package that has it"
        )
    return found
