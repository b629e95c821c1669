"""What a store says of itself: the attributes of its group, and how two descriptions differ in words.

cntk_bench_format   version of the layout; 1 had one writer, and could not grow
readouts            names, in the order of the arrays' first axis
n_train, n_test     images; the arrays may be longer where growing them was interrupted
tile                images along a side of a tile
backend, numerics   what computed, and the version of its bits
dtype               float32
images              where the images are from, in words for people
about               for whoever opens the arrays by hand
"""

from collections.abc import Mapping
from typing import Any

from cntk_bench.grams.tiles import Plan
from cntk_bench.text import short

FORMAT = 2
DECIDING = ("backend", "numerics", "dtype", "tile")  # of the bits, or of the files
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


def differences(there: Mapping[str, Any], here: Mapping[str, Any], names=DECIDING) -> list[str]:
    """In words, what two descriptions have different among some names that both have."""
    return [
        f"{name.replace('_', ' ')} is {_words(there[name])} there, {_words(here[name])} here"
        for name in names
        if name in there and name in here and there[name] != here[name]
    ]


def differing_images(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In words, how the images of two descriptions were asked for differently; empty if they were not."""
    asked = here.get("images", {})
    return "; ".join(differences(there.get("images", {}), asked, asked))


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return short(", ".join(map(str, value)), 60)
    return short(str(value), 60)
