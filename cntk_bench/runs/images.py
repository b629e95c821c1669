"""Fetching, loading and description of the images that a config asks for."""

from math import prod
from pathlib import Path

import numpy as np

from cntk_bench import data
from cntk_bench.columns import Request
from cntk_bench.config.config import Config
from cntk_bench.data import Dataset, Recipe
from cntk_bench.errors import UserError
from cntk_bench.grams.image_facts import ImageFacts, digests

FETCHED = "data"  # folder of official data sets if the config names no path


def fetch(name: str, path: str | None, progress: bool = False) -> Path | None:
    """Download an official data set unless it is there, and return its folder; None if not one to fetch."""
    name = data.canonical(name)
    data.require_known(name)
    if name not in data.FETCHABLE or Path(path or "").suffix == ".npz":
        return None
    folder = Path(path or FETCHED)
    data.fetch(name, folder, progress)
    return folder


def load(settings: Config, train: int | None = None, test: int | None = None) -> Dataset:
    """Load a config's images and labels; `train` (for all draws together) and `test` override the numbers."""
    asked = {key: value for key, value in settings.dataset.model_dump().items() if value is not None}
    asked |= {} if test is None else {"test": test}
    asked |= {} if train is None else {"train": train, "draws": 1}
    if settings.dataset.path is None and settings.dataset.name in data.FETCHABLE:
        asked["path"] = FETCHED
    return data.load(asked.pop("name"), **asked, **settings.preprocess.model_dump())


def require_several(n: int) -> None:
    """Raise UserError if there is a single training image, with which no regression can be solved."""
    if n < 2:
        raise UserError(f"dataset.train is {n}: a regression needs at least 2 images")


def with_path(settings: Config) -> Config:
    """The config with absolute paths of its data, which are valid in any working directory."""
    path, labels = settings.dataset.path, settings.dataset.labels
    if path is None and settings.dataset.name in data.FETCHABLE:
        path = FETCHED
    given = {name: value for name, value in (("path", path), ("labels", labels)) if value is not None}
    whole = {name: str(Path(value).absolute()) for name, value in given.items()}
    return settings.model_copy(update={"dataset": settings.dataset.model_copy(update=whole)})


def image_facts(images: Dataset) -> ImageFacts:
    """What a Gram store keeps about images: labels, indices and digests."""
    x_train, x_test = images.identifying_pixels
    return ImageFacts(
        labels=(images.y_train, images.y_test),
        indices=(images.train_index, images.test_index),
        digests=(digests(x_train, images.recipe), digests(x_test, images.recipe)),
    )


def request(settings: Config, images: Dataset) -> Request:
    """The facts that columns get before anything is computed."""
    n, *shape = images.x_train.shape
    return Request(n // images.draws, prod(shape), images.classes, settings.solve.memory, settings.section)


def described(settings: Config) -> dict:
    """Describe for people where the images are from; compared to explain why other images are refused."""
    asked, prepared = settings.dataset, recipe(settings)
    statistics = settings.preprocess.statistics
    found: dict = {
        "data_set": asked.name,
        "classes": "all" if asked.classes is None else list(asked.classes),
        "seed": asked.seed,
        "preprocess": asked.preprocess if isinstance(asked.preprocess, str) else list(asked.preprocess),
        "preprocess.statistics": statistics if isinstance(statistics, str) else list(statistics),
    } | {f"preprocess.{name}": value for name, value in prepared.parameters.items()}
    found |= _pictures(settings)
    if asked.order != "balanced":
        found["order"] = asked.order
    if statistics == "subset":
        found["training_images"] = asked.train
        if prepared.fits:  # then every image changes with their number
            found["what_prepares_every_image"] = f"statistics of {asked.train or 'all'} training images"
    return found


def _pictures(settings: Config) -> dict:
    """Settings by which pictures became images, if any."""
    asked = settings.dataset
    found = {key: getattr(asked, key) for key in ("size", "channels", "test_share")}
    found["fit"] = None if asked.size is None else asked.fit
    return {key: value for key, value in found.items() if value is not None}


def recipe(settings: Config) -> Recipe:
    """The preprocessing that a config asks for; UserError if it is invalid."""
    return Recipe(data.steps(settings.dataset.preprocess), **settings.preprocess.model_dump())


def asked(settings: Config, images: Dataset) -> dict:
    """Images that a store should have: in words, and as the single digest that stores of format 1 have."""
    return {"images": described(settings), "data": images.fingerprint}


def of_draw(draw: int, n: int) -> slice:
    """Slice of the draw d = 0, 1, ..., of n images each, among the training images of all draws."""
    return slice(draw * n, (draw + 1) * n)


def of_draws(images: Dataset, known: ImageFacts) -> list[str]:
    """Fingerprint of each draw's images, equal to that of a run with only this draw.

    known : what a store keeps about all of them (`image_facts`)
    """
    n, found = len(images.x_train) // images.draws, []
    assert known.digests is not None
    for draw in range(images.draws):
        some = of_draw(draw, n)
        (y, y_test), (x, x_test) = known.labels, known.digests
        found.append(str(ImageFacts((y[some], y_test), digests=(x[some], x_test)).fingerprint))
    return found


def record_facts(settings: Config, images: Dataset, known: ImageFacts) -> dict:
    """Facts about images for the record; `known` is what a store keeps about them (`image_facts`)."""
    return {
        "name": images.name,
        "fingerprint": images.fingerprint,
        "images": known.fingerprint,
        "n_train": len(images.x_train) // images.draws,
        **({"draws": images.draws, "images_of_draws": of_draws(images, known)} if images.draws > 1 else {}),
        "n_test": len(images.x_test),
        "classes": images.classes,
        "preprocess": ", ".join(data.steps(settings.dataset.preprocess)) or "none",
        "statistics": settings.model_dump(mode="json")["preprocess"]["statistics"],
        "train_index": " ".join(map(str, images.train_index)),
        "test_index": " ".join(map(str, images.test_index)),
        **({"test_images": images.test_images} if images.test_images else {}),
        **({} if settings.dataset.order == "balanced" else {"order": settings.dataset.order}),
        **({} if images.fitted_on is None else {"fitted_on": images.fitted_on}),
        **recipe(settings).parameters,
        **({"classes_used": list(images.classes_used)} if images.classes_used else {}),
        **({"class_names": list(images.class_names)} if images.class_names else {}),
        **_pictures(settings),
        **_unseen(images),
        **({} if images.largest_pixels is None else {"largest_pixels": list(images.largest_pixels)}),
        **_repeated(known),
    }


def _repeated(known: ImageFacts) -> dict:
    """How many test images are training images, too, of any draw, if there are such."""
    assert known.digests is not None
    train, test = known.digests
    repeated = int(np.isin(test, train).sum())
    return {"repeated_test_images": repeated} if repeated else {}


def _unseen(images: Dataset) -> dict:
    """Facts on classes without a training image, if there are any; lists have an entry for each draw.

    unseen_classes : how many such classes there are.
    seen_test_images : the percentage of test images that are of the other classes.
    """
    n, unseen, seen = len(images.x_train) // images.draws, [], []
    for draw in range(images.draws):
        there = np.unique(images.y_train[of_draw(draw, n)])
        unseen.append(images.classes - len(there))
        seen.append(100 * float(np.isin(images.y_test, there).mean()))
    return {"unseen_classes": unseen, "seen_test_images": seen} if any(unseen) else {}
