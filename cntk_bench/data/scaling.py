"""Preprocessing of pixels: by the training set's statistics, or none."""

from collections.abc import Iterator, Sequence

import numpy as np

from cntk_bench.errors import UserError

CHUNK = 500  # images; bounds the float64 temporaries


def chunks(x: np.ndarray) -> Iterator[np.ndarray]:
    """Views of x, at most CHUNK images each."""
    return (x[start : start + CHUNK] for start in range(0, len(x), CHUNK))


def scaling(
    x_train: np.ndarray, preprocess: str, numbers: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale of each channel.

    Parameters
    ----------
    x_train : array (n, C, P, P), uint8 or float
        The images whose statistics are taken, finite.
    preprocess : {"standardize", "none"}
        "standardize" takes a channel's mean and standard deviation (dividing by the number of
        pixels) over all images and pixels, as the paper does. A channel that is constant, such
        as an alpha channel, has no deviation: it gets the scale 1 and so becomes 0, which adds
        nothing to a kernel. "none" divides uint8 by 255 and leaves floats as they are.
    numbers : sequence of 2 C floats, optional
        Means and then deviations to take instead of the images' own.

    Returns
    -------
    shift, scale : array (C, 1, 1), float64
        A prepared pixel is (pixel - shift) / scale.

    Raises
    ------
    UserError
        If every channel is constant: there is nothing to standardise; or the numbers are not possible.
    """
    shape = (x_train.shape[1], 1, 1)
    if preprocess == "none":
        return np.zeros(shape), np.full(shape, 255.0 if x_train.dtype == np.uint8 else 1.0)
    if numbers is not None:
        return _given(numbers, x_train.shape[1])
    mean, deviation = np.array([_moments(x_train[:, channel]) for channel in range(x_train.shape[1])]).T
    if not deviation.any():
        raise UserError(
            "x_train is constant in every channel, so it cannot be standardised: "
            "give images that differ, or preprocess none"
        )
    return mean.reshape(shape), np.where(deviation == 0, 1, deviation).reshape(shape)


def _given(numbers: Sequence[float], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale from means and deviations given as numbers."""
    values = np.asarray(numbers, np.float64)
    if values.shape != (2 * channels,) or not np.isfinite(values).all() or not (values[channels:] > 0).all():
        raise UserError(
            f"preprocess.statistics has {values.size} numbers: give the means of the {channels} channels and "
            "then their deviations, which are above 0"
        )
    shift, scale = values.reshape(2, channels, 1, 1)
    return shift, scale


def _moments(pixels: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of an array (n, P, P), in float64; exactly 0 for a constant."""
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:  # the mean's rounding would leave a tiny variance
        return low, 0.0
    # In units of a power of two near the largest pixel: the same digits, and no square underflows.
    unit = np.ldexp(1.0, np.frexp(max(-low, high))[1])
    parts = (part.astype(np.float64) / unit for part in chunks(pixels))
    sizes, means, variances = np.array([(part.size, part.mean(), part.var()) for part in parts]).T
    mean = np.average(means, weights=sizes)
    # The law of total variance: within the parts plus between them.
    return unit * mean, unit * np.sqrt(np.average(variances + (means - mean) ** 2, weights=sizes))


def scaled(x: np.ndarray, index: np.ndarray, shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The images x[index], prepared: array (len(index), C, P, P), float32, C-contiguous.

    Raises
    ------
    UserError
        If an image that is not black has only pixels below float32's range.
    """
    out = np.empty((len(index), *x.shape[1:]), np.float32)
    for start in range(0, len(index), CHUNK):
        part = slice(start, start + CHUNK)
        prepared = (x[index[part]] - shift) / scale
        brightest = abs(prepared).max((1, 2, 3))
        lost = (brightest > 0) & (brightest < np.finfo(np.float32).tiny)
        if lost.any():
            raise UserError(
                f"image {index[start + int(lost.argmax())]} has no pixel beyond "
                f"{brightest[lost.argmax()]:.2g} as prepared, which float32 cannot hold: scale the images up"
            )
        out[part] = prepared
    return out
