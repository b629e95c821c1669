"""A store's description of itself: its Zarr group's attributes, and the differences of two in words.

cntk_bench_format   version of the layout; 1 had one writer, and could not grow
readouts            names, in the order of the arrays' first axis
n_train, n_test     numbers of images; the arrays may be longer if growth was interrupted
tile                images along a side of a tile
tile_asked          compute.tile of the config, if it is a number: for fewer images, tiles are smaller
first_sizes         n_train and n_test that a store of format 1 had before it grew
backend, numerics   the backend, and the version of its results, to the bit
fully_connected_numerics   the same version for fully connected kernels, if there are any
dtype               float32
images              where the images are from, for people to read
image_digests       digests of the images' digests (`image_facts.whole`), if these are known
data                in stores of format 1 that have not grown: the digest of all images and labels
about               an explanation for people who open the arrays directly
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
BITS = ("backend", "numerics", "fully_connected_numerics", "dtype")  # attributes that determine the bits
DECIDING = (*BITS, "tile")  # attributes that determine the bits or the files
ABOUT = (
    "train[readout, i, j] is the kernel of training images i and j, test[readout, i, j] that of test image i "
    "and training image j. Of train only the tiles on and below the diagonal are stored: the others, and "
    "tiles that are not computed yet, are NaN. The matrix is symmetric. Whole matrices: `cntk-bench export`, "
    "or in Python cntk_bench.open_run(path).gram(column, depth)."
)


def attributes(plan: Plan, asked: Mapping[str, Any]) -> dict:
    """Make a store's attributes for a plan, from what is asked for: all others but `data`, which is not kept.

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
    """Whether a store exists at the path or in the bucket."""
    return path.exists() if isinstance(path, Bucket) else (path / "zarr.json").exists()


def read(path: str | Path | Bucket) -> dict:
    """Read a store's attributes, without reading its journals.

    Raises
    ------
    UserError
        If there is no store, or one that is not of this program or is of a newer version.
    """
    return read_tagged(path)[0]


def read_tagged(path: str | Path | Bucket) -> tuple[dict, str]:
    """Like `read`, but also return the tag of the object that holds the attributes; "" for a file."""
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
    # Stores made before there was a numerics version have the bits of version 1.
    return {"numerics": 1, **there}, found[1]


def raw(path: Path | Bucket) -> tuple[bytes, str] | None:
    """Read the group's raw metadata and their tag ("" for a file); None if there are none."""
    if isinstance(path, Bucket):
        return path.get("zarr.json")
    return (read_plain(path / "zarr.json"), "") if os.path.exists(path / "zarr.json") else None


def changed(path: Path | Bucket) -> UserError:
    """The error to raise if another process has changed what a store holds while we relied on it."""
    return UserError(
        f"{short(str(path))} was changed by another process meanwhile: run the same command again"
    )


@contextmanager
def readable(path: Path | Bucket) -> Iterator[None]:
    """Turn errors that keep a store from being read into a UserError of one line."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except OSError as error:
        raise UserError(
            f"cannot read the Gram store {short(str(path))} ({error.strerror or error}): make it readable"
        ) from None
    except Exception as error:  # JSON and zarr may raise anything
        reason = one_line(f"{type(error).__name__}: {error}", 100)
        raise UserError(
            f"{short(str(path))} is not a readable Gram store ({reason}): use another output directory"
        ) from error


NAMES = {"n_train": "training images", "n_test": "test images"}  # attributes named otherwise in messages


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], names: Iterable[str] = DECIDING
) -> list[str]:
    """Describe in words how two descriptions differ in those of the given names that both have."""
    return [
        f"{_named(name)} {_words(there[name])} there, {_words(here[name])} here"
        for name in names
        if name in there and name in here and there[name] != here[name]
    ]


def differing_images(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Describe in words how the image settings of two descriptions differ; empty if they do not."""
    asked = here.get("images", {})
    return "; ".join(differences(there.get("images", {}), asked, asked))


def _named(name: str) -> str:
    return f"{NAMES[name]} are" if name in NAMES else f"{name.replace('_', ' ')} is"


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return short(", ".join(map(str, value)), 60)
    return short(str(value), 60)
