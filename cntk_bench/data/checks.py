"""Validation of arrays and options that users supply."""

import logging
from collections.abc import Iterable
from numbers import Integral

import numpy as np

from cntk_bench.data.scaling import OTHER_UNIT, chunks
from cntk_bench.errors import UserError
from cntk_bench.text import short

log = logging.getLogger(__name__)

LARGEST = np.float64(1e9)  # of a pixel, so its square and the kernel's sums stay well within float32


def images(x: np.ndarray, what: str) -> np.ndarray:
    """Validate images in any accepted layout and return a view of shape (n, C, P, P).

    Accepted are (n, P, P), one channel; (n, P, P, C), channels last; and (n, C, P, P), channels
    first, told apart by which two sides are equal. If all three are, as in (n, 3, 3, 3), channels
    are taken to be last. Vectors (n, d) are images of one pixel with d channels.

    Parameters
    ----------
    x : array, uint8 or float
    what : str
        Name of the array, for messages.

    Raises
    ------
    UserError
        If the type or shape is not accepted, the array is empty, or a pixel is NaN, infinite or
        beyond 1e9 in absolute value.
    """
    given = short(x.shape)
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise UserError(
            f"{what} has the type {short(str(x.dtype))}: store pixels as uint8 (0..255) or as floats"
        )
    if x.ndim not in (2, 3, 4):
        raise UserError(
            f"{what} has the shape {given}: use (n, P, P), (n, P, P, C), (n, C, P, P), or vectors (n, d)"
        )
    if x.size == 0:
        raise UserError(f"{what} has the shape {given}, which is empty: give at least one image")
    if x.ndim == 2:
        x = x[:, :, None, None]
    elif x.ndim == 3:
        x = x[:, None]
    elif x.shape[1] == x.shape[2]:
        x = np.moveaxis(x, 3, 1)
    if x.shape[2] != x.shape[3]:
        raise UserError(f"{what} has the shape {given}, images that are not square: crop or pad them")
    if x.dtype.kind == "f":
        fine = np.concatenate([(abs(part) <= LARGEST).all((1, 2, 3)) for part in chunks(x)])
        if not fine.all():
            raise UserError(
                f"{what} has a pixel that is NaN, infinite or beyond {LARGEST:g} in image {fine.argmin()}: "
                "remove that image or mend it"
            )
    return x


def require_alike(x_train: np.ndarray, x_test: np.ndarray) -> None:
    """Refuse training and test images that differ in shape or in the kind of their pixels."""
    if x_train.shape[1:] != x_test.shape[1:]:
        raise UserError(
            f"training images (C, P, P) are {x_train.shape[1:]}, test images {x_test.shape[1:]}: "
            "give both one shape"
        )
    if x_train.dtype.kind != x_test.dtype.kind:
        raise UserError(
            f"x_train is {x_train.dtype} and x_test {x_test.dtype}: store both as uint8 or both as floats"
        )


def largest_pixels(x_train: np.ndarray, x_test: np.ndarray, samples: int = 100) -> tuple[float, float] | None:
    """The largest absolute value of the first `samples` images of either set, if they differ too much.

    Then test pixels look as if they had another unit than training pixels, such as 255 for 1, and there is a
    warning; else None.
    """
    if not len(x_test):
        return None
    train, test = (float(abs(x[:samples].astype(np.float64)).max()) for x in (x_train, x_test))
    if (train or test) and min(train, test) * OTHER_UNIT <= max(train, test):
        log.warning(
            "the largest of the first pixels is %.3g in x_train and %.3g in x_test: give both in one unit",
            train,
            test,
        )
        return train, test
    return None


def labels(y: np.ndarray, n: int, what: str) -> np.ndarray:
    """Validate integer labels of shape (n,) or (n, 1) and return them as int64 of shape (n,)."""
    if y.dtype.kind not in "iu" or (y.ndim != 1 and y.shape[1:] != (1,)):
        raise UserError(
            f"{what} has the shape {short(y.shape)} and type {short(str(y.dtype))}: "
            "store labels of shape (n,), as integers or as text"
        )
    if len(y) != n:
        raise UserError(f"{what} has {len(y)} labels for {n} images: give one label per image")
    if n and y.max() > np.iinfo(np.int64).max:
        raise UserError(f"{what} has the label {y.max()}: number the classes 0, 1, 2, ...")
    return y.reshape(n).astype(np.int64)


def classes(y_train: np.ndarray, y_test: np.ndarray) -> int:
    """Number of classes k; refuse training labels that are not exactly 0 .. k-1, and other test labels."""
    present = np.unique(y_train)
    k = int(present[-1]) + 1
    if present[0] < 0:
        raise UserError(f"y_train has the label {present[0]}: number the classes 0, 1, 2, ...")
    if len(present) < k:
        missing = np.flatnonzero(present != np.arange(len(present)))[0]
        raise UserError(
            f"y_train has the label {k - 1}, but no image of class {missing}: "
            "number the classes 0, 1, 2, ... without gaps"
        )
    if k < 2:
        raise UserError("y_train has the label 0 only: give at least two classes")
    outside = y_test[(y_test < 0) | (y_test >= k)]
    if outside.size:
        raise UserError(
            f"y_test has the label {outside[0]}, outside the training labels 0..{k - 1}: "
            "remove these test images or relabel them"
        )
    return k


def require_integer(value: object, least: int, what: str) -> None:
    """Refuse a value that is not an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise UserError(f"{what} is {_shown(value)}: use an integer of at least {least}")


def count(requested: int | None, available: int, what: str) -> int:
    """How many of the available images are requested; None means all of them."""
    if requested is None:
        return available
    require_integer(requested, 1, what)
    if requested > available:
        raise UserError(
            f"{what} is {_shown(requested)}, but the data have {available}: use at most {available}"
        )
    return int(requested)


def drawn(requested: int | None, draws: int, available: int) -> int:
    """Total number of training images in `draws` disjoint draws of `requested` images each.

    Raises
    ------
    UserError
        If too few are available, or if several draws are wanted but `requested` is None (all images).
    """
    require_integer(draws, 1, "draws")
    if draws == 1:
        return count(requested, available, "train")
    if requested is None:
        raise UserError(f"draws is {_shown(draws)}, but train is null: say how many images a draw has")
    each = count(requested, available, "train")
    if each * draws > available:
        raise UserError(
            f"{_shown(draws)} draws of {each:,} training images share none, and the data have {available:,}: "
            f"use at most {available // each:,} draws, or fewer images for each"
        )
    return each * int(draws)


def chosen(requested: Iterable[int] | None, k: int) -> tuple[int, ...]:
    """Validate the labels of the requested classes and return them in that order; None means 0 .. k-1.

    Raises
    ------
    UserError
        If they are not at least two different labels of the data.
    """
    if requested is None:
        return tuple(range(k))
    if isinstance(requested, str) or not isinstance(requested, Iterable):
        raise UserError(f"classes is {_shown(requested)}: use a list of at least two different labels")
    asked = list(requested)
    for label in asked:
        require_integer(label, 0, "a label in classes")
        if label >= k:
            raise UserError(f"classes has the label {_shown(label)}, but the data have 0..{k - 1}: use those")
    if len(asked) < 2 or len(set(asked)) < len(asked):
        raise UserError(f"classes is {_shown(asked)}: use a list of at least two different labels")
    return tuple(int(label) for label in asked)


def _shown(value: object) -> str:
    """A value as shown in a message; strings keep their quotes, since '3' is not 3."""
    return f"'{short(value)}'" if isinstance(value, str) else short(value)
