"""Gram matrices computed in memory, without a store."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from cntk_bench import backends
from cntk_bench.errors import UserError
from cntk_bench.grams import repeats
from cntk_bench.kernels.spec import Readout, Spec


def gram(
    x: np.ndarray, z: np.ndarray | None = None, *, readouts: Sequence[Readout], backend: str = "auto"
) -> np.ndarray:
    """Exact kernels between all images of x and all images of z.

    Parameters
    ----------
    x : array (n, C, P, P), float
        Preprocessed images; computed with as float32, whatever power of two they are scaled by. For fully
        connected kernels, give vectors as (n, d, 1, 1).
    z : array (m, C, P, P), float, optional
        The other images; x itself by default (then half of the matrix is computed, and mirrored).
    readouts : sequence of Readout
        The kernels; those of one family come from one run of its recursion at the largest depth.
    backend : {"auto", "cpu", "cuda"}
        Where to compute; "auto" takes a GPU where there is one, if it takes such images (up to 32 x 32).

    Returns
    -------
    array (len(readouts), n, m), float32
        On Arora's scale: CNTK-V is a sum over pixels, CNTK-GAP a mean over pairs of pixels; fully connected
        kernels begin with x.z / d + beta^2 (`kernels.fully_connected`).
        float32 matches the backends' accuracy, and is what a store keeps. Convert to float64
        before solving: these matrices are ill-conditioned.

    Raises
    ------
    UserError
        If images are not finite, real, square and of one shape; if a readout is listed twice; if
        the backend is missing; if an entry leaves the range of float32, or the depth is too great
        for the images' size.

    References
    ----------
    Arora et al., "On Exact Computation with an Infinitely Wide Neural Net", NeurIPS 2019.
    """
    x = checked(x, "x")
    z = x if z is None else checked(z, "z", like=x)
    worker = _worker(x, readouts, backend)
    prepared = worker.prepare(x)
    other = prepared if z is x else worker.prepare(z)
    found = finite(worker.tile(prepared, other, symmetric=z is x), "the Gram matrix")
    leader = repeats.of_images(x) if z is x else None
    if leader is not None:
        found = found[:, leader][:, :, leader]
    return found


def diagonal(
    x: np.ndarray,
    *,
    readouts: Sequence[Readout],
    backend: str = "auto",
    progress: Callable[[], None] | None = None,
) -> np.ndarray:
    """Exact kernels of each image of x with itself, the diagonal of `gram`, without the other pairs.

    They are needed for the variances of a Gaussian process, and to normalize a kernel to a unit diagonal.

    Parameters
    ----------
    x : array (n, C, P, P), float
        As for `gram`.
    readouts : sequence of Readout
    backend : {"auto", "cpu", "cuda"}
    progress : callable, optional
        Called after each image.

    Returns
    -------
    array (len(readouts), n), float32

    Raises
    ------
    UserError
        As `gram`.
    """
    x = checked(x, "x")
    worker = _worker(x, readouts, backend)
    out = np.empty((len(worker.spec.readouts), len(x)), np.float32)
    for i in range(len(x)):
        image = worker.prepare(x[i : i + 1])
        out[:, i] = worker.tile(image, image, symmetric=True)[:, 0, 0]
        if progress is not None:
            progress()
    return finite(out, "the kernel of an image with itself")


def _worker(x: np.ndarray, readouts: Iterable[Readout] | Readout, backend: str) -> backends.Backend:
    spec = Spec(_listed(readouts), *x.shape[1:3])
    return backends.create(backends.choose(backend, spec), spec)


def _listed(readouts: Iterable[Readout] | Readout) -> tuple[Readout, ...]:
    """Readouts as a tuple; UserError if anything else is among them."""
    found = tuple(readouts) if isinstance(readouts, Iterable) else (readouts,)
    for readout in found:
        if not isinstance(readout, Readout):
            raise UserError(f"readout {readout!r} is not possible: give a list of Readout objects")
    return found


def checked(x: ArrayLike, name: str, like: np.ndarray | None = None) -> np.ndarray:
    """Validate images (n, C, P, P) and return them as contiguous floats; UserError says what is wrong."""
    try:
        x = np.asarray(x)
    except (ValueError, TypeError) as error:
        raise UserError(f"{name} is not an array of images ({error}): give (n, C, P, P) numbers") from None
    if x.dtype.kind not in "fiu":
        raise UserError(f"{name} has dtype {x.dtype}: give real numbers, such as float32")
    if x.ndim != 4 or 0 in x.shape or x.shape[2] != x.shape[3]:
        raise UserError(f"{name} has shape {x.shape}: give (n, C, P, P), square images, channels first")
    if like is not None and x.shape[1:] != like.shape[1:]:
        raise UserError(f"{name} has images of shape {x.shape[1:]}, the others have {like.shape[1:]}")
    with np.errstate(over="ignore", under="ignore"):
        narrow = np.ascontiguousarray(x, np.float32)
    finite(narrow, name, "mend or leave out such images")
    # Keep wider floats if some are too small for float32: backends scale images.
    lost = x.dtype.itemsize > 4 and ((abs(narrow) < np.finfo(np.float32).tiny) & (x != 0)).any()
    return np.ascontiguousarray(x) if lost else narrow


def finite(values: np.ndarray, name: str, remedy: str = "scale the images down") -> np.ndarray:
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise UserError(f"{name} is {values[place]} at {list(place)}, as float32: {remedy}")
    return values
