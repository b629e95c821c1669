"""How images are prepared: a list of steps, in order. To add one, write what makes it and put it in `STEPS`.

    center        each image's own mean, over all channels and pixels, is taken away
    unit_norm     each image is divided by its Euclidean norm
    contrast      global contrast normalisation: centred, then divided by its deviation or its norm
    zca           regularised whitening (`whitening`)
    standardize   each channel by its mean and deviation over all training images and pixels (`scaling`)

The last two are fitted on training images, as the steps before have made them; never on test images. No
step at all, "none", leaves pixels as they are. uint8 pixels are divided by 255 first, unless they are
standardised first, which takes their units away.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np

from cntk_bench.data import scaling, whitening
from cntk_bench.data.scaling import Images, affine, chunks
from cntk_bench.errors import UserError
from cntk_bench.text import short

STATISTICS = ("full", "subset")
SCALES = ("deviation", "norm")
Prepare = Callable[[np.ndarray], np.ndarray]  # images (h, C, P, P) to as many, both float64


@dataclass(frozen=True)
class Recipe:
    """Steps and what they need.

    Parameters
    ----------
    steps : tuple of str
        Names of `STEPS`; none at all for "none".
    statistics : {"full", "subset"} or tuple of float
        Of which images: see `dataset.load`. Numbers are for "standardize" as the first step.
    zca_regularizer : float
        Of `whitening`, relative to the mean variance of a pixel.
    contrast_scale : {"deviation", "norm"}
        What "contrast" divides a centred image by.
    contrast_floor : float
        The least that an image is divided by, in units of the pixels then, by "contrast" and "unit_norm": an
        image of less stays nearly black, and what is noise is not made a picture.

    Raises
    ------
    UserError
        If a value is not one of the above.
    """

    steps: tuple[str, ...]
    statistics: str | tuple[float, ...] = "full"
    zca_regularizer: float = 0.1
    contrast_scale: str = "deviation"
    contrast_floor: float = 1e-8

    def __post_init__(self) -> None:
        if isinstance(self.statistics, str):
            if self.statistics not in STATISTICS:
                known = ", ".join(STATISTICS)
                raise UserError(
                    f"statistics {short(self.statistics)} is unknown: use one of {known}, or numbers"
                )
        elif FITTED.intersection(self.steps[1:]) or self.steps[:1] != ("standardize",):
            raise UserError(
                "preprocess.statistics has numbers, which are for standardize as the first step and without "
                "zca: use full or subset"
            )
        if self.contrast_scale not in SCALES:
            raise UserError(
                f"contrast_scale {short(self.contrast_scale)} is unknown: use one of {', '.join(SCALES)}"
            )
        for name, value in (
            ("zca_regularizer", self.zca_regularizer),
            ("contrast_floor", self.contrast_floor),
        ):
            if not (isinstance(value, int | float) and isfinite(value) and value > 0):
                raise UserError(f"{name} is {short(value)}: use a number above 0")

    @property
    def plain(self) -> bool:
        """Whether it only shifts and scales channels, so that equal pixels stay equal to the last bit."""
        return self.steps in ((), ("standardize",))

    @property
    def fits(self) -> bool:
        """Whether a step is fitted on training images."""
        return bool(FITTED.intersection(self.steps)) and isinstance(self.statistics, str)

    @property
    def used(self) -> set[str]:
        """Names of the YAML's section `preprocess` that its steps use."""
        return {*self.parameters, *(("statistics",) if FITTED.intersection(self.steps) else ())}

    @property
    def parameters(self) -> dict[str, float | str]:
        """Those that its steps use, by their names in the YAML's section `preprocess`."""
        used: dict[str, float | str] = {}
        if "zca" in self.steps:
            used["zca_regularizer"] = self.zca_regularizer
        if "contrast" in self.steps:
            used["contrast_scale"] = self.contrast_scale
        if {"contrast", "unit_norm"}.intersection(self.steps):
            used["contrast_floor"] = self.contrast_floor
        return used

    def told(self, training: Images) -> str:
        """In a line, all that decides what becomes of an image: the steps, and the images they are fitted on.

        It is the same on every machine, as the prepared pixels are not: eigenvectors, and sums over many
        pixels, differ in their last bits. So images are told apart by this and by their original pixels.
        """
        facts = {"steps": self.steps, "statistics": self.statistics, **self.parameters}
        if self.fits:
            each = (hashlib.sha256(image.tobytes()).digest() for image in training)
            whole = hashlib.sha256(f"{training.dtype.str}{training.shape[1:]}".encode())
            whole.update(b"".join(sorted(each)))
            facts["statistics"] = whole.hexdigest()
        return json.dumps(facts, sort_keys=True)


def steps(value: str | Sequence[str]) -> tuple[str, ...]:
    """The steps that a setting stands for: "none", the name of one, or a list of names.

    Raises
    ------
    UserError
        If one is unknown.
    """
    if isinstance(value, str) and value == "none":
        return ()
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else (value,)
    for name in names:
        if not isinstance(name, str) or name not in STEPS:
            near = get_close_matches(str(name), STEPS, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(STEPS)}; or none alone"
            raise UserError(f"preprocess {short(name)} is unknown: {remedy}")
    if not names or len(names) > MOST:
        raise UserError(f"preprocess lists {len(names)} steps: list 1 to {MOST}, or say none")
    return names


def statistics(value: Any) -> str | tuple[float, ...]:
    """The statistics that a setting stands for: a word, which is not looked at here, or numbers.

    Raises
    ------
    UserError
        If it is neither.
    """
    if isinstance(value, str):
        return value
    what = "full, subset, or a list of numbers (each channel's mean, then each one's deviation)"
    try:
        listed = list(value)
    except TypeError:
        raise UserError(f"preprocess.statistics is {short(value)}: use {what}") from None
    for one in listed:
        if not _is_finite(one):
            shown = f"'{short(one)}'" if isinstance(one, str) else short(one)
            raise UserError(f"preprocess.statistics lists {shown}, which is no finite number: use {what}")
    return tuple(map(float, listed))


def _is_finite(value: object) -> bool:
    """Whether it is a number, Python's or NumPy's, that a float can hold."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:
        return False


def fitted(training: Images, recipe: Recipe) -> Prepare:
    """What prepares images, at most `scaling.CHUNK` at a time.

    Parameters
    ----------
    training : array (n, C, P, P), uint8 or float
        The images that steps are fitted on; read in chunks, so that the peak is some chunks in float64 and
        what `whitening` needs.
    recipe : Recipe

    Raises
    ------
    UserError
        If a step cannot be fitted.
    """
    done: list[Prepare] = []
    names = list(recipe.steps)
    first = names.pop(0) if names[:1] == ["standardize"] else "none"
    numbers = recipe.statistics if first != "none" and not isinstance(recipe.statistics, str) else None
    done.append(affine(*scaling.scaling(training, first, numbers)))

    def so_far(images: np.ndarray) -> np.ndarray:
        for step in done:
            images = step(images)
        return images

    for name in names:
        done.append(STEPS[name](lambda: map(so_far, chunks(training)), recipe))
    return so_far


def _standardize(parts: whitening.Parts, recipe: Recipe) -> Prepare:
    return affine(*scaling.standardizing(*scaling.moments(parts)))


def _zca(parts: whitening.Parts, recipe: Recipe) -> Prepare:
    return whitening.fitted(parts, recipe.zca_regularizer)


def _center(parts: whitening.Parts, recipe: Recipe) -> Prepare:
    return _centred


def _unit_norm(parts: whitening.Parts, recipe: Recipe) -> Prepare:
    return partial(_divided, by="norm", floor=recipe.contrast_floor)


def _contrast(parts: whitening.Parts, recipe: Recipe) -> Prepare:
    divide = partial(_divided, by=recipe.contrast_scale, floor=recipe.contrast_floor)
    return lambda images: divide(_centred(images))


def _centred(images: np.ndarray) -> np.ndarray:
    """Images less their means; a constant one, whose mean may be rounded, becomes exactly 0."""
    constant = images.min((1, 2, 3)) == images.max((1, 2, 3))
    mean = np.where(constant, images[:, 0, 0, 0], images.mean((1, 2, 3)))
    return images - mean[:, None, None, None]


def _divided(images: np.ndarray, by: str, floor: float) -> np.ndarray:
    """Images over the root of their mean square, of centred ones the deviation, or over their norm."""
    squares = np.square(images)
    size = np.sqrt(squares.mean((1, 2, 3)) if by == "deviation" else squares.sum((1, 2, 3)))
    return images / np.maximum(size, floor)[:, None, None, None]


STEPS: dict[str, Callable[[whitening.Parts, Recipe], Prepare]] = {
    "standardize": _standardize,
    "center": _center,
    "unit_norm": _unit_norm,
    "contrast": _contrast,
    "zca": _zca,
}
FITTED = {"standardize", "zca"}
MOST = 10  # steps
