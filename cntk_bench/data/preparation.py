"""Preprocessing of images by a list of steps, in order. To add one, write a function and list it in `STEPS`.

    center        subtract each image's own mean over all channels and pixels
    unit_norm     divide each image by its Euclidean norm
    contrast      global contrast normalisation: center, then divide by the standard deviation or the norm
    zca           regularised whitening (`whitening`)
    standardize   each channel by its mean and deviation over all training images and pixels (`scaling`)

The last two are fitted on the training images as the earlier steps have made them, never on test images.
"none" means no step. uint8 pixels are divided by 255 first, unless "standardize" is the first step, which
removes their units anyway.
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
    """Preprocessing steps and their parameters.

    Parameters
    ----------
    steps : tuple of str
        Names of `STEPS`; none at all for "none".
    statistics : {"full", "subset"} or tuple of float
        Images that steps are fitted on: see `dataset.load`. Numbers are for "standardize" as the first step.
    zca_regularizer : float
        Regularizer of `whitening`, relative to the mean variance of a pixel.
    contrast_scale : {"deviation", "norm"}
        What "contrast" divides a centred image by.
    contrast_floor : float
        Least divisor of "contrast" and "unit_norm", in the units that pixels have at that step: an image
        below it stays nearly black, so that noise is not amplified.

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
            if not (_is_finite(value) and value > 0):
                raise UserError(f"{name} is {short(value)}: use a number above 0")

    @property
    def plain(self) -> bool:
        """Whether the steps at most shift and scale channels, so equal pixels stay equal to the last bit."""
        return self.steps in ((), ("standardize",))

    @property
    def fits(self) -> bool:
        """Whether a step is fitted on training images."""
        return bool(FITTED.intersection(self.steps)) and isinstance(self.statistics, str)

    @property
    def used(self) -> set[str]:
        """Keys of the config's section `preprocess` that the steps use."""
        return {*self.parameters, *(("statistics",) if FITTED.intersection(self.steps) else ())}

    @property
    def parameters(self) -> dict[str, float | str]:
        """The parameters that the steps use, by their keys in the config's section `preprocess`."""
        used: dict[str, float | str] = {}
        if "zca" in self.steps:
            used["zca_regularizer"] = self.zca_regularizer
        if "contrast" in self.steps:
            used["contrast_scale"] = self.contrast_scale
        if {"contrast", "unit_norm"}.intersection(self.steps):
            used["contrast_floor"] = self.contrast_floor
        return used

    def description(self, training: Images) -> str:
        """Describe in one line what determines the result: the steps, and the images they are fitted on.

        Unlike prepared pixels, whose last bits differ between machines (eigenvectors, sums over many pixels),
        this is the same everywhere. So images are identified by this and by their original pixels.
        """
        facts = {"steps": self.steps, "statistics": self.statistics, **self.parameters}
        if self.fits:
            each = (hashlib.sha256(image.tobytes()).digest() for image in training)
            whole = hashlib.sha256(f"{training.dtype.str}{training.shape[1:]}".encode())
            whole.update(b"".join(sorted(each)))
            facts["statistics"] = whole.hexdigest()
        return json.dumps(facts, sort_keys=True)


def steps(value: str | Sequence[str]) -> tuple[str, ...]:
    """Names of the steps in a setting: "none", the name of one, or a list of names.

    Raises
    ------
    UserError
        If a name is unknown, or a list is empty or longer than MOST.
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
    """Parse the setting `statistics`: a string, returned unchecked, or finite numbers, as a tuple of floats.

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
    """Whether a value is a finite number, Python's or NumPy's, that a float can hold."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:
        return False


def fitted(training: Images, recipe: Recipe) -> Prepare:
    """Fit the steps and return a function that prepares images, at most `scaling.CHUNK` at a time.

    Parameters
    ----------
    training : array (n, C, P, P), uint8 or float
        The images that steps are fitted on. They are read in chunks, so peak memory is a few chunks in
        float64 plus what `whitening` needs.
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
    """Subtract each image's mean; a constant image becomes exactly 0, although its mean may be rounded."""
    constant = images.min((1, 2, 3)) == images.max((1, 2, 3))
    mean = np.where(constant, images[:, 0, 0, 0], images.mean((1, 2, 3)))
    return images - mean[:, None, None, None]


def _divided(images: np.ndarray, by: str, floor: float) -> np.ndarray:
    """Divide images by their root mean square (for centred ones the standard deviation) or by their norm."""
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
MOST = 10  # steps in a list
