"""Gram matrices of a definition, from a function that computes the kernels of one pair of images."""

from collections.abc import Callable, Iterable

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import Readout


def gram(
    pair: Callable[[np.ndarray, np.ndarray, list[Readout]], np.ndarray],
    x: np.ndarray,
    z: np.ndarray | None,
    readouts: Iterable[Readout],
) -> np.ndarray:
    """Kernels between all images of x and all of z; if z is None, of x with itself, one half mirrored.

    Parameters and errors are as for `definition.gram`; `pair` maps images (C, P, P) and (C, P, P) and
    readouts to (len(readouts),).
    """
    x = _images(x)
    other = x if z is None else _images(z)
    if x.shape[1:] != other.shape[1:]:
        raise UserError(f"x has images of shape {x.shape[1:]}, z of shape {other.shape[1:]}: make them equal")
    readouts = list(readouts)
    if not readouts:
        raise UserError("no readouts: name at least one kernel and one depth")
    out = np.empty((len(readouts), len(x), len(other)))
    for a in range(len(x)):
        for b in range(a + 1 if z is None else len(other)):
            out[:, a, b] = pair(x[a], other[b], readouts)
            if z is None:
                out[:, b, a] = out[:, a, b]
    return out


def _images(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 4 or x.shape[2] != x.shape[3] or 0 in x.shape or x.dtype.kind not in "fiu":
        raise UserError(
            f"images of shape {x.shape} and type {x.dtype}: give real (n, C, P, P), channels first"
        )
    if not np.isfinite(x).all():
        raise UserError("images have pixels that are NaN or infinite: mend or leave out such images")
    return x.astype(np.float64)
