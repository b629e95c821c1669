"""Class names: how they become the labels 0 .. k-1, and those of the published data sets."""

import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.text import short

log = logging.getLogger(__name__)

LONGEST = 200  # characters of a name, at most

# Spelled as in the data sets' own files, in the order of their labels.
OFFICIAL: dict[str, tuple[str, ...]] = {
    "cifar10": tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
    "cifar100": tuple(
        "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus "
        "butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab "
        "crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo "
        "keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse "
        "mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy "
        "porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
        "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television "
        "tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm".split()
    ),
    "fashion-mnist": tuple(
        "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag".split() + ["Ankle boot"]
    ),
}


def official(name: str, k: int) -> tuple[str, ...] | None:
    """Names of a published data set's k classes; None if it has no names, or not k classes."""
    names = OFFICIAL.get(name)
    return names if names and len(names) == k else None


def natural(text: str) -> tuple[Any, ...]:
    """Key for natural sorting: numbers by their value, letters regardless of case.

    So "img2" comes before "img10", and "apple" before "Bear"; names that differ only in case are ordered by
    their code points. The order ignores the locale, so it is the same on every machine.
    """
    parts = re.split("([0-9]+)", text)  # text and digits alternate
    folded = [int(part) if number % 2 else part.casefold() for number, part in enumerate(parts)]
    return (folded, text)


def numbered(
    y_train: np.ndarray, y_test: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...] | None]:
    """Convert text labels to numbers and return the class names; numeric labels are returned unchanged.

    Parameters
    ----------
    y_train, y_test : array (n,) or (n, 1), text (str, or bytes in UTF-8) or anything else
        The classes are those of y_train, numbered 0 .. k-1 in their `natural` order.

    Returns
    -------
    y_train, y_test : arrays, int64 where they were text
    names : tuple of str, or None
        Names of the classes 0 .. k-1, in Unicode's composed form (NFC); None if labels are numbers.

    Raises
    ------
    UserError
        If only one of the two has text, a name is not valid (`checked`), there is only one class, or y_test
        has a class that y_train lacks.
    """
    kinds = ["text" if y.dtype.kind in "US" else "numbers" for y in (y_train, y_test)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"y_train has {kinds[0]} and y_test {kinds[1]}: store the labels of both as one of them"
        )
    if kinds[0] == "numbers":
        return y_train, y_test, None
    (given, y_train), (given_test, y_test) = _distinct(y_train, "y_train"), _distinct(y_test, "y_test")
    names = tuple(sorted(set(given), key=natural))
    if len(names) < 2:
        raise UserError(f"y_train has the class {short(names[0])} only: give at least two classes")
    _warn_alike(names)
    places = {name: place for place, name in enumerate(names)}
    for name in given_test:
        if name not in places:
            raise UserError(
                f"y_test has the class {short(name)}, which no training image has: remove these test images "
                "or relabel them"
            )
    train, test = (np.array([places[name] for name in some], np.int64) for some in (given, given_test))
    return train[y_train], test[y_test], names


def _warn_alike(names: Sequence[str]) -> None:
    """Warn about the first two classes whose names differ only in case: one may be a typo."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            log.warning(
                "%s and %s are two classes, whose names differ in case alone: write them alike if they are "
                "one",
                short(other),
                short(name),
            )
            return


def _distinct(y: np.ndarray, what: str) -> tuple[list[str], np.ndarray]:
    """Distinct names in an array, normalized by `checked`, and the index of each entry's name among them."""
    if y.size == 0:
        raise UserError(f"{what} is empty: give one label per image")
    if not is_unicode(y):
        raise UserError(f"{what} has a character beyond Unicode: write the labels again")
    found, which = np.unique(y, return_inverse=True)
    try:
        names = [name if isinstance(name, str) else name.decode() for name in found.tolist()]
    except UnicodeDecodeError:
        raise UserError(f"{what} has a label that is not UTF-8: store labels as text") from None
    return [checked(name, what) for name in names], which.reshape(y.shape)


def is_unicode(array: np.ndarray) -> bool:
    """Whether an array's text has only valid code points.

    NumPy also makes strings of numbers beyond Unicode, at which Python's own functions fail.
    """
    if array.dtype.kind != "U" or not array.size or not array.dtype.itemsize:
        return True
    codes = np.ascontiguousarray(array).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
    return bool(codes.max() <= 0x10FFFF)


def checked(name: str, what: str) -> str:
    """Normalize a class name (NFC, stripped); UserError if it is empty, too long or not printable."""
    name = unicodedata.normalize("NFC", name).strip()
    if not name or len(name) > LONGEST or not name.isprintable():
        raise UserError(
            f"{what} has the class {short(repr(name))}: name classes by 1 to {LONGEST} characters, all "
            "visible"
        )
    return name


def resolved(requested: Any, names: tuple[str, ...] | None) -> Any:
    """Replace names by numbers in a list of requested classes; anything that is no name stays as it is.

    If some class name is an integer, as labels of a table may be, an integer is taken as a name.

    Raises
    ------
    UserError
        If no class has one of the names.
    """
    if names is None or isinstance(requested, str) or not isinstance(requested, Iterable):
        return requested
    numbers = any(re.fullmatch("[-+]?[0-9]+", name) for name in names)

    def one(asked: Any) -> Any:
        is_name = isinstance(asked, str) or numbers and type(asked) is int
        return _number(str(asked), names) if is_name else asked

    return list(map(one, requested))


def _number(name: str, names: tuple[str, ...]) -> int:
    composed = unicodedata.normalize("NFC", name)
    if composed in names:
        return names.index(composed)
    near = get_close_matches(composed[:LONGEST], names, n=1)
    remedy = f"did you mean {short(near[0])}?" if near else f"the classes are {short(', '.join(names))}"
    raise UserError(f"classes has {short(name)}, which no class is called: {remedy}")
