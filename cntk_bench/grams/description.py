"""What a store says of itself: the attributes of its group, and how two descriptions differ in words.

cntk_bench_format   version of the layout; 1 had one writer, and could not grow
readouts            names, in the order of the arrays' first axis
n_train, n_test     images; the arrays may be longer where growing them was interrupted
tile                images along a side of a tile
backend, numerics   what computed, and the version of its bits
fully_connected_numerics   the same of fully connected kernels, where there are some
dtype               float32
images              where the images are from, in words for people
about               for whoever opens the arrays by hand
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.grams.tiles import Plan
from cntk_bench.system.bucket import Bucket
from cntk_bench.system.files import read_plain
from cntk_bench.text import one_line, short

FORMAT = 2
BITS = ("backend", "numerics", "fully_connected_numerics", "dtype")  # what decides them
DECIDING = (*BITS, "tile")  # of the bits, or of the files
ABOUT = (
    "train[readout, i, j] is the kernel of training images i and j, test[readout, i, j] that of test image i "
    "and training image j. Of train only the tiles on and below the diagonal are stored: the others, and "
    "tiles that are not computed yet, are NaN. The matrix is symmetric. Whole matrices: `cntk-bench export`, "
    "or in Python cntk_bench.open_run(path).gram(column, depth)."
)


def attributes(plan: Plan, asked: Mapping[str, Any]) -> dict:
    """The attributes of a store for a plan; `asked` has readouts, backend, numerics, dtype and images.

    Raises
    ------
    ValueError
        If the readouts do not fit the plan.
    """
    if len(asked["readouts"]) != plan.readouts:
        raise ValueError(f"{len(asked['readouts'])} readouts do not fit the plan's {plan.readouts}")
    sizes = {"n_train": plan.n_train, "n_test": plan.n_test, "tile": plan.tile}
    kept = {name: value for name, value in asked.items() if name != "data"}
    return {"cntk_bench_format": FORMAT, **kept, **sizes, "about": ABOUT}


def exists(path: Path | Bucket) -> bool:
    """Whether a store, of any kind, is there."""
    return path.exists() if isinstance(path, Bucket) else (path / "zarr.json").exists()


def read(path: str | Path | Bucket) -> dict:
    """The attributes of a store, for which no journal is read.

    Raises
    ------
    UserError
        If there is no store of this program and version, or one of something else.
    """
    return read_tagged(path)[0]


def read_tagged(path: str | Path | Bucket) -> tuple[dict, str]:
    """As `read`, and the tag of the object that they are in; "" of a file."""
    path = path if isinstance(path, Bucket) else Path(path)
    with readable(path):
        found = raw(path)
        if found is None:
            raise UserError(f"there is no Gram store at {short(str(path))}: compute it first")
        there = json.loads(found[0])["attributes"]
        version = there["cntk_bench_format"]
        if version > FORMAT:
            raise UserError(
                f"{short(str(path))} was written by a newer cntk-bench (store format {short(version)}, "
                f"this one reads {FORMAT}): upgrade cntk-bench"
            )
    # Made before there was a numerics version: the bits of version 1.
    return {"numerics": 1, **there}, found[1]


def raw(path: Path | Bucket) -> tuple[bytes, str] | None:
    """The group's metadata as they are, and their tag, "" of a file; None where there are none."""
    if isinstance(path, Bucket):
        return path.get("zarr.json")
    return (read_plain(path / "zarr.json"), "") if os.path.exists(path / "zarr.json") else None


@contextmanager
def readable(path: Path | Bucket) -> Iterator[None]:
    """Turn what keeps a store from being read into one line."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except OSError as error:
        raise UserError(
            f"cannot read the Gram store {short(str(path))} ({error.strerror or error}): make it readable"
        ) from None
    except Exception as error:  # whatever JSON and zarr make of a file that is not what it should be
        reason = one_line(f"{type(error).__name__}: {error}", 100)
        raise UserError(
            f"{short(str(path))} is not a readable Gram store ({reason}): use another output directory"
        ) from error


NAMES = {"n_train": "training images", "n_test": "test images"}  # of what words would not tell


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], names: Iterable[str] = DECIDING
) -> list[str]:
    """In words, what two descriptions have different among some names that both have."""
    return [
        f"{_named(name)} {_words(there[name])} there, {_words(here[name])} here"
        for name in names
        if name in there and name in here and there[name] != here[name]
    ]


def differing_images(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In words, how the images of two descriptions were asked for differently; empty if they were not."""
    asked = here.get("images", {})
    return "; ".join(differences(there.get("images", {}), asked, asked))


def _named(name: str) -> str:
    return f"{NAMES[name]} are" if name in NAMES else f"{name.replace('_', ' ')} is"


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return short(", ".join(map(str, value)), 60)
    return short(str(value), 60)
