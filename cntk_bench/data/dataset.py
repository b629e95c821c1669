"""Load a data set by its name: the arrays that determine a Gram matrix."""

import hashlib
import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.data import checks, official, preparation, sources
from cntk_bench.data import classes as named
from cntk_bench.data.folder import Layout
from cntk_bench.data.identity import KNOWN, is_published, of_places
from cntk_bench.data.order import ORDERS
from cntk_bench.data.preparation import Recipe
from cntk_bench.data.scaling import Some, prepared
from cntk_bench.errors import UserError
from cntk_bench.text import short

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Dataset:
    """The selected images, prepared, and their labels.

    Parameters
    ----------
    name : str
        As given to `load`; "npz" if the images could not be confirmed to be those of that data set.
    x_train, x_test : array (n, C, P, P), float32
        Images, in the seeded order.
    y_train, y_test : array (n,), int64
        Labels 0 .. classes - 1.
    classes : int
        Number of classes k, of the whole data set or as chosen; a small subset may lack some.
    train_index, test_index : array (n,), int64
        Index of every image in the source's own training or test set, which has all classes.
    classes_used : tuple of int, optional
        The source's labels of the classes 0 .. k-1; None if all are used in the source's order. `name` is the
        source's also where classes were chosen, so compare with published numbers by both.
    originals : pair of array (n, C, P, P), optional
        The unprepared pixels of x_train and x_test. If given, they and `recipe` identify the images, because
        prepared pixels may differ in the last bits between machines.
    recipe : str
        How `originals` were prepared (`Recipe.description`).
    draws : int
        Number of draws in x_train, which holds them one after another, all of one size.
    fitted_on : int, optional
        Number of training images that the preparation was fitted on, if it is fitted and not plain.
    class_names : tuple of str, optional
        Names of the classes 0 .. k-1, where the source has names: those of folders and of labels that are
        text, and the published names of CIFAR-10, CIFAR-100 and Fashion-MNIST.
    test_images : str
        Digest of the unprepared test images, their indices and labels, whatever their order.
    largest_pixels : pair of float, optional
        Those of the first training and test images, if they look as if they had different units.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    train_index: np.ndarray
    test_index: np.ndarray
    classes_used: tuple[int, ...] | None = None
    originals: tuple[np.ndarray, np.ndarray] | None = None
    recipe: str = ""
    draws: int = 1
    fitted_on: int | None = None
    class_names: tuple[str, ...] | None = None
    test_images: str = ""
    largest_pixels: tuple[float, float] | None = None

    @property
    def identifying_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """The pixels that, together with `recipe`, identify the training and test images."""
        return self.originals or (self.x_train, self.x_test)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the recipe and of the types, shapes and bytes of images and labels."""
        digest, (x_train, x_test) = hashlib.sha256(self.recipe.encode()), self.identifying_pixels
        for array in (x_train, self.y_train, x_test, self.y_test):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def _verified(name: str, path: str | Path | None, train: tuple, test: tuple) -> str:
    """The data set's name if the images are known to be its own, else "npz".

    A data set in KNOWN is recognized by its images, wherever they come from. Of the others, an official
    download was verified by its checksums, and a .npz file cannot be verified.
    """
    claimed = Path(path or "").suffix == ".npz" and name != "npz"
    if name in KNOWN:
        doubt = None if is_published(name, train, test) else "does not hold the images of"
    else:
        doubt = "cannot be told to hold the images of" if claimed else None
    if doubt is None:
        return name
    log.warning("%s %s %s: no published numbers will be shown", short(str(path)), doubt, name)
    return "npz"


def _of_classes(y: np.ndarray, labels: tuple[int, ...], what: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices at which y (labels 0 .. k-1) is one of `labels`, and the position in `labels` of each."""
    new = np.full(max(y.max(), *labels) + 1, -1)
    new[list(labels)] = np.arange(len(labels))
    where = np.flatnonzero(new[y] >= 0)
    if not len(where):
        raise UserError(f"{what} has no image of the classes {short(labels)}: choose others")
    return where, new[y[where]]


def _require_parameters(given: Mapping[str, Any]) -> None:
    """Raise TypeError unless all are parameters of `load` that it does not list itself."""
    known = {field.name for field in fields(Recipe)} - {"steps", "statistics"}
    if unknown := [name for name in given if name not in known]:
        *listed, _ = inspect.signature(load).parameters
        raise TypeError(
            f"load_images has no parameter {short(unknown[0])}: it has {', '.join((*listed, *sorted(known)))}"
        )


def load(
    name: str,
    *,
    path: str | Path | None = None,
    classes: Iterable[int | str] | None = None,
    train: int | None = None,
    test: int | None = None,
    draws: int = 1,
    seed: int = 0,
    order: str = "balanced",
    preprocess: str | Sequence[str] = "standardize",
    statistics: str | Sequence[float] = "full",
    size: int | None = None,
    fit: str = "crop",
    channels: int | None = None,
    labels: str | Path | None = None,
    test_share: float | None = None,
    **parameters: Any,
) -> Dataset:
    """Read a data set, select images and prepare them.

    Public as `cntk_bench.load_images`. The arguments are the keys of a config's sections `dataset` and
    `preprocess`; errors use these names, such as dataset.size for `size`.

    Parameters
    ----------
    name : str
        "digits" (8x8, ships with scikit-learn), "npz" (a file of yours), "npy" (a folder of memory-mapped
        arrays, `npy`), "folder" (a folder of pictures, `folder`), or "cifar10", "cifar100", "svhn",
        "mnist", "fashion-mnist" (download with `fetch` first); spellings such as "CIFAR-10" work, too.
    path : path-like, optional
        The file of "npz"; the folder of "npy" and "folder"; the folder that an official data set was
        fetched to, or an .npz file that holds it. "mnist" and "fashion-mnist" also take a folder that
        holds the four idx files themselves. "digits" takes none.
    classes : iterable of int or str, optional
        Labels or names of the classes to use, all by default; they become 0, 1, 2, ... in the order given.
        The result, statistics included, is as if the data set had only these images.
    train, test : int, optional
        How many images of these classes, all by default: the first ones of a seeded order, so that a larger
        selection contains a smaller one.
    draws : int, optional
        How many disjoint draws of `train` images: draw d = 0, 1, ... has the images d * train to
        (d + 1) * train - 1 of that order. If the order is balanced and no class has run out, a draw has
        equally many images of each class where `train` is a multiple of the number of classes; otherwise
        the counts of two classes differ by at most 2.
    seed : int, optional
        Seed of that order, at least 0. Training and test images use separate random streams.
    order : {"balanced", "random"}, optional
        "balanced": every prefix is balanced over the classes (`order.balanced_order`). "random": images are
        taken regardless of their classes.
    preprocess : str or sequence of str, optional
        "none", a step of `preparation`, or several in order, such as ["contrast", "zca"].
    statistics : {"full", "subset"} or sequence of float, optional
        Where "standardize" and "zca" take their statistics from. "full": all training images of the classes,
        whatever `train` is, as for the paper's whole data set, so a small training set also profits from
        images outside it, though not from their labels. "subset": only the selected images. Numbers, for
        "standardize" as the first step: the mean of each channel, then the standard deviation of each, in
        the units of the source's pixels.
    size, fit, channels, labels, test_share : optional
        For "folder": see `folder.Layout`.
    **parameters
        zca_regularizer, contrast_scale, contrast_floor: see `preparation.Recipe`.

    Returns
    -------
    Dataset

    Raises
    ------
    UserError
        If an argument is invalid, the data cannot be read, or they are not square, finite images with
        labels 0 .. k-1 of at least two classes.
    TypeError
        If there is no such argument.
    """
    _require_parameters(parameters)
    name = sources.canonical(name)
    sources.require_known(name)
    recipe = Recipe(preparation.steps(preprocess), preparation.statistics(statistics), **parameters)
    checks.require_integer(seed, 0, "seed")
    table = None if labels is None else official.place(labels)
    layout = Layout(size, fit, channels, table, test_share)
    x_train, y_train, x_test, y_test = sources.read(name, path, layout, seed)
    x_train, x_test = checks.images(x_train, "x_train"), checks.images(x_test, "x_test")
    checks.require_alike(x_train, x_test)
    y_train, y_test, class_names = named.numbered(y_train, y_test)
    y_train = checks.labels(y_train, len(x_train), "y_train")
    y_test = checks.labels(y_test, len(x_test), "y_test")
    k = checks.classes(y_train, y_test)
    name = _verified(name, path, (x_train, y_train), (x_test, y_test))
    class_names = class_names or named.official(name, k)
    picked = checks.chosen(named.resolved(classes, class_names), k)
    used = None if picked == tuple(range(k)) else picked
    from_train, y_train = _of_classes(y_train, picked, "y_train")
    from_test, y_test = _of_classes(y_test, picked, "y_test")
    n_train = checks.drawn(train, draws, len(y_train))
    if draws > 1 and recipe.statistics == "subset" and recipe.fits:
        raise UserError(
            "preprocess.statistics is subset, so each draw would prepare the test images in its own way: "
            "use full, or one draw"
        )
    n_test = checks.count(test, len(y_test), "test")

    if order not in ORDERS:
        raise UserError(f"order {short(order)} is unknown: use {' or '.join(ORDERS)}")
    first_train = ORDERS[order](y_train, seed, stream=0)[:n_train]
    first_test = ORDERS[order](y_test, seed, stream=1)[:n_test]
    train_index, test_index = from_train[first_train], from_test[first_test]
    if recipe.statistics == "subset":
        measured = x_train[train_index]
    else:
        measured = x_train if used is None else Some(x_train, from_train)
    prepare = preparation.fitted(measured, recipe)
    identity: dict[str, Any] = {}
    if not recipe.plain:
        identity["originals"] = x_train[train_index], x_test[test_index]
        identity["recipe"] = recipe.description(measured)
        identity |= {"fitted_on": len(measured)} if recipe.fits else {}
    return Dataset(
        name=name,
        x_train=prepared(x_train, train_index, prepare),
        y_train=y_train[first_train],
        x_test=prepared(x_test, test_index, prepare),
        y_test=y_test[first_test],
        classes=len(picked),
        train_index=train_index,
        test_index=test_index,
        classes_used=used,
        draws=int(draws),
        class_names=class_names and tuple(class_names[label] for label in picked),
        largest_pixels=checks.largest_pixels(x_train, x_test),  # last, as it warns: an error says enough
        test_images=of_places(x_test, y_test[first_test], test_index),
        **identity,
    )
