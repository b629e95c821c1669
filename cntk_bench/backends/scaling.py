"""Images and kernels near the ends of float32's range: scaled by powers of two, or refused.

Kernels are homogeneous, K(a x, b z) = a b K(x, z), and multiplying by a power of two changes only a number's
exponent. So an image too dim or too bright for the backends is scaled until its brightest pixel has
|x| in [2^29, 2^30), and its kernels are scaled back in float64. Each image is scaled on its own, and
ordinary ones are left as they are, so an entry still depends only on its two images.

Great depth also leaves the range, because zero padding loses what would move outside. With u(p) the
probability that a random walk of L steps (-1, 0 or 1, equally likely) from p stays among 0 .. P-1,

    sum_p v_{L-1}(x)[p] / 9 = sum_p u(p_1) u(p_2) |x[p]|^2

is exactly what is left of an image after L ReLU layers. Let s be 9 times that. float32 suffices down to
s = P^4 2^-64: numbers below 2^-126 are flushed to 0 (by CUDA with --use_fast_math), which changes n - S by at
most e = 2^-119 (the low floats of a few numbers, in units of n / 9). An angle is then off by sqrt(2 e / n),
and G by sqrt(2 e / n) T / (9 pi). After pooling, and as GAP is at least 1 / pi of its Cauchy-Schwarz bound,
that is at most P^2 sqrt(2 e / s) / 2 per layer, less than 1e-8 of the readout. This bounds how dim an image
may be at a given depth, and how deep a kernel of any image can be.

The upper end of the range is far away: T <= (L + 1) v, v <= 9 C 2^60, and the sums that CUDA keeps in
float32 have at most 32^2 entries weighted by at most 32^2 each.
"""

import sys
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import Readout, Spec

if TYPE_CHECKING:
    from cntk_bench.backends import Backend

BRIGHTEST = 30  # pixels of all prepared images, scaled or not, are below 2^BRIGHTEST
LEAST, MOST = np.finfo(np.float32).tiny, np.finfo(np.float32).max
CHUNK = 1 << 18  # numbers processed at a time, so that they stay in the cache

Prepared = tuple[np.ndarray, Any]  # exponents (n,), and what the backend's `prepare` returns


class Scaled:
    """A backend that accepts images of any brightness; see `cntk_bench.backends.Backend`.

    `prepare` also accepts wider floats than float32. `tile`, and the function that `start` returns, raise
    UserError if an entry is neither exactly 0 nor within float32's normal range.

    Parameters
    ----------
    backend : Backend

    Raises
    ------
    UserError
        If the spec is too deep for its images' size.
    """

    def __init__(self, backend: "Backend") -> None:
        self.dimmest = dimmest(backend.spec)
        self.backend = backend
        self.spec, self.name = backend.spec, backend.name
        self.limit, self.tile_bytes = backend.limit, backend.tile_bytes

    @property
    def source(self) -> str:
        """The digest of the wrapped backend's code."""
        return self.backend.source

    def prepare(self, images: np.ndarray) -> Prepared:
        """Images (n, C, P, P) -> the exponents of two that were divided out, and the images as prepared."""
        brightest = np.maximum(images.max((1, 2, 3)), -images.min((1, 2, 3)))
        exponents = np.frexp(brightest)[1] - BRIGHTEST
        exponents[(brightest == 0) | (brightest >= self.dimmest) & (exponents <= 0)] = 0
        if exponents.any():
            images = np.ldexp(images, -exponents[:, None, None, None])
        return exponents, self.backend.prepare(np.ascontiguousarray(images, np.float32))

    def tile(self, x: Prepared, z: Prepared, symmetric: bool = False) -> np.ndarray:
        """Prepared x (n images) and z (m images) -> float32 (readouts, n, m)."""
        return self.start(x, z, symmetric)()

    def start(self, x: Prepared, z: Prepared, symmetric: bool = False) -> Callable[[], np.ndarray]:
        """Start a tile; the returned function waits for it and returns it, scaled back."""
        finish = self.backend.start(x[1], z[1], symmetric)
        return lambda: self._scaled_back(finish(), x[0][:, None] + z[0])

    def _scaled_back(self, tile: np.ndarray, exponents: np.ndarray) -> np.ndarray:
        """Multiply a tile by 2^exponents (n, m) in place; UserError if an entry leaves float32's range."""
        some = max(1, CHUNK // tile[:, 0].size)
        for first in range(0, len(exponents), some):
            rows = slice(first, first + some)
            part = tile[:, rows]
            if exponents[rows].any():
                part = np.ldexp(part.astype(np.float64), exponents[rows])
            for readout, plane in zip(self.spec.readouts, part, strict=True):
                require_normal(plane, readout, first)
            tile[:, rows] = part
        return tile


def require_normal(plane: np.ndarray, readout: Readout, first: int = 0) -> None:
    """Refuse numbers that are neither 0 nor within float32's normal range.

    Parameters
    ----------
    plane : array (n, m), float
        Rows of a tile, from row `first` on, for one readout.
    readout : Readout

    Raises
    ------
    UserError
        If there are any; the message names the first.
    """
    size = abs(plane)
    outside = ~((size >= LEAST) & (size <= MOST) | (size == 0))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        value = plane[row, column]
        raise UserError(
            f"{readout} of row {first + row}, column {column} is {value:.2g}, "
            f"which float32 cannot hold ({LEAST:.1e} to {MOST:.1e}): scale the images "
            + ("down" if abs(value) > 1 else "up, or use a smaller depth")
        )


def dimmest(spec: Spec) -> float:
    """The smallest magnitude of an image's brightest pixel for which the image needs no scaling.

    Raises
    ------
    UserError
        If the spec is so deep that not even a scaled image suffices.
    """
    least, most = _dimmest(spec.size, spec.layers), 2.0 ** (BRIGHTEST - 1)
    if least > most:
        tried = range(1, min(spec.layers, sys.maxsize))  # no range is longer
        fits = bisect_right(tried, most, key=lambda layers: _dimmest(spec.size, layers))
        raise UserError(
            f"depth {spec.depths[-1]:.6g} is too deep for images of {spec.size} x {spec.size} pixels: each "
            "layer's zero padding shrinks their kernels, by then below float32's range; use depths up to "
            f"{fits + 1}"
        )
    return least


def _dimmest(size: int, layers: int) -> float:
    step = np.eye(size) + np.eye(size, k=1) + np.eye(size, k=-1)
    values, vectors = np.linalg.eigh(step / 3)
    stays = vectors @ (values ** float(layers) * vectors.sum(0))  # u; least at the border
    return size**2 * 2.0**-32 / max(stays[0], 2.0**-1000)
