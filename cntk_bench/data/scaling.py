"""Shift and scale of each channel: by the training set's statistics, by given numbers, or by units alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.text import short

CHUNK = 500  # images at a time; bounds the float64 temporaries
OTHER_UNIT = 50  # factor between two scales of pixels beyond which their units look different


class Some:
    """Lazy view of the images x[index], so that those of a memory-mapped array are read only when needed."""

    def __init__(self, x: np.ndarray, index: np.ndarray):
        self._x, self._index = x, index
        self.dtype, self.shape = x.dtype, (len(index), *x.shape[1:])

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, which: int | slice) -> np.ndarray:
        return self._x[self._index[which]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._x[place] for place in self._index)


Images = np.ndarray | Some  # (n, C, P, P)


def chunks(x: Images) -> Iterator[np.ndarray]:
    """Views of x, at most CHUNK images each."""
    return (x[start : start + CHUNK] for start in range(0, len(x), CHUNK))


def scaling(
    x_train: Images, preprocess: str, numbers: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the shift and scale of each channel.

    Parameters
    ----------
    x_train : array (n, C, P, P), uint8 or float
        The images whose statistics are used; finite.
    preprocess : {"standardize", "none"}
        "standardize" takes a channel's mean and standard deviation (dividing by the number of
        pixels) over all images and pixels, as the paper does. A channel that is constant, such
        as an alpha channel, has no deviation: it gets the scale 1 and so becomes 0, which adds
        nothing to a kernel. "none" divides uint8 by 255 and leaves floats as they are.
    numbers : sequence of 2 C floats, optional
        Means and then standard deviations to use instead of the images' own, in the same unit.

    Returns
    -------
    shift, scale : array (C, 1, 1), float64
        A prepared pixel is (pixel - shift) / scale.

    Raises
    ------
    UserError
        If every channel is constant, so there is nothing to standardise, or the numbers are invalid.
    """
    shape = (x_train.shape[1], 1, 1)
    if preprocess == "none":
        return np.zeros(shape), np.full(shape, 255.0 if x_train.dtype == np.uint8 else 1.0)
    if numbers is not None:
        shift, scale = _given(numbers, x_train.shape[1])
        _require_unit(x_train, scale.ravel())
        return shift, scale
    mean, deviation = moments(lambda: chunks(x_train))
    return standardizing(mean, deviation)


def standardizing(mean: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale (C, 1, 1) from means and deviations (C,); some deviations may be 0, but not all."""
    if not deviation.any():
        raise UserError(
            "x_train is constant in every channel, so it cannot be standardised: "
            "give images that differ, or preprocess none"
        )
    shape = (len(mean), 1, 1)
    return mean.reshape(shape), np.where(deviation == 0, 1, deviation).reshape(shape)


def _given(numbers: Sequence[float], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale from means and deviations that the user gave."""
    values = np.asarray(numbers, np.float64)
    if values.shape != (2 * channels,) or not np.isfinite(values).all() or not (values[channels:] > 0).all():
        raise UserError(
            f"preprocess.statistics has {values.size} numbers: give the means of the {channels} channels and "
            "then their deviations, which are above 0"
        )
    shift, scale = values.reshape(2, channels, 1, 1)
    return shift, scale


def _require_unit(x_train: Images, given: np.ndarray) -> None:
    """Refuse deviations (C,) that are far from those of the first images, as if they were in another unit."""
    _, own = moments(lambda: iter([next(chunks(x_train))]))
    larger, smaller = own > OTHER_UNIT * given, own * OTHER_UNIT < given
    if not own.any() or not ((larger | (own == 0)).all() or smaller.all()):
        return
    shown = ", ".join(f"{value:.3g}" for value in given), ", ".join(f"{value:.3g}" for value in own)
    remedy = "give them in the unit of the pixels"
    if x_train.dtype == np.uint8 and larger.any():
        remedy = "multiply means and deviations by 255, as pixels go from 0 to 255"
    raise UserError(
        f"preprocess.statistics has deviations of {short(shown[0])}, but those of the images are about "
        f"{short(shown[1])}: {remedy}"
    )


def affine(shift: np.ndarray, scale: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that maps images (h, C, P, P) to (pixel - shift) / scale, in float64."""
    return lambda images: (images - shift) / scale


def moments(parts: Callable[[], Iterable[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, in float64; deviation exactly 0 if it is constant.

    Parameters
    ----------
    parts : callable
        Returns an iterable over all images, (h, C, P, P) at a time; called twice.

    Returns
    -------
    mean, deviation : array (C,), float64
    """
    ends = np.array([(part.min((0, 2, 3)), part.max((0, 2, 3))) for part in parts()], np.float64)
    low, high = ends[:, 0].min(0), ends[:, 1].max(0)
    # In units of a power of two near the largest pixel no square underflows, and scaling rounds nothing.
    units = np.ldexp(1.0, np.frexp(np.maximum(-low, high))[1])
    # (parts, C, 3): size, mean and variance of each part and channel.
    found = np.array([[_of_part(part[:, c], unit) for c, unit in enumerate(units)] for part in parts()])
    mean, deviation = low.copy(), np.zeros(len(low))
    for c in np.flatnonzero(low < high):  # the rounding of a constant's mean would leave a tiny variance
        sizes, means, variances = found[:, c].T
        middle = np.average(means, weights=sizes)
        # The law of total variance: within the parts plus between them.
        spread = np.sqrt(np.average(variances + (means - middle) ** 2, weights=sizes))
        mean[c], deviation[c] = units[c] * middle, units[c] * spread
    return mean, deviation


def _of_part(pixels: np.ndarray, unit: float) -> tuple[int, float, float]:
    pixels = pixels.astype(np.float64) / unit
    return pixels.size, pixels.mean(), pixels.var()


def prepared(x: np.ndarray, index: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Prepare the images x[index]: array (len(index), C, P, P), float32, C-contiguous.

    Parameters
    ----------
    x : array (n, C, P, P), uint8 or float
    index : array of int
    prepare : callable
        Prepares images (h, C, P, P) of x, at most `CHUNK` at a time, in float64.

    Raises
    ------
    UserError
        If a pixel is too large for float32, or all pixels of an image that is not black are too small.
    """
    out = np.empty((len(index), *x.shape[1:]), np.float32)
    for start in range(0, len(index), CHUNK):
        part = slice(start, start + CHUNK)
        with np.errstate(over="ignore", invalid="ignore"):  # raised below, as UserError
            images = prepare(x[index[part]])
        brightest = abs(images).max((1, 2, 3))
        beyond = ~(brightest <= np.finfo(np.float32).max)  # NaN, too
        if beyond.any():
            first = int(beyond.argmax())
            raise UserError(
                f"image {index[start + first]} has a pixel of {brightest[first]:.2g} as prepared, "
                "which float32 cannot hold: prepare it by statistics of images on its own scale "
                "(dataset.preprocess, preprocess.statistics)"
            )
        lost = (brightest > 0) & (brightest < np.finfo(np.float32).tiny)
        if lost.any():
            raise UserError(
                f"image {index[start + int(lost.argmax())]} has no pixel beyond "
                f"{brightest[lost.argmax()]:.2g} as prepared, which float32 cannot hold: scale the images up"
            )
        out[part] = images
    return out
