"""The definition of any readout in float64: that of its family, averaged over a mirror image for flips.

Slow and plain; the backends are tested against it and do not import it.

The flip. With A the reflection of an image, left and right, K(A x, A z) = K(x, z) for every kernel here, so
the kernel averaged over the group {1, A} on both sides (Li et al. 2019) is

    K_flip(x, z) = (K(x, z) + K(x, A z)) / 2

Kernel regression with K_flip and a ridge r is regression with K on the 2n images X and A X, with all labels
twice and the ridge 2 r: by symmetry the coefficients of x and A x are equal, say a, and solve
(K(X, X) + K(X, A X) + 2 r) a = Y, which is (K_flip + r) 2 a = Y; predictions are (K(x, X) + K(x, A X)) a =
K_flip(x, X) 2 a. Ridges relative to the mean diagonal are r / mean K_flip(x, x) here and 2 r / mean K(x, x)
there.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from cntk_bench.kernels import convolutional, fully_connected, pairs
from cntk_bench.kernels.spec import CONVOLUTIONAL, Readout


def gram(
    x: np.ndarray, z: np.ndarray | None = None, *, readouts: Iterable[Readout], backend: str = "reference"
) -> np.ndarray:
    """Exact kernels between all images of x and all images of z.

    Parameters
    ----------
    x : array (n, C, P, P), float
        Images, preprocessed; vectors for fully connected kernels as (n, d, 1, 1).
    z : array (m, C, P, P), float, optional
        The other images; x itself by default (half is then computed, and mirrored).
    readouts : sequence of Readout
        Which kernels; those of one family come from one run of its recursion at the largest depth.
    backend : ignored
        Present so that this function can stand in for `cntk_bench.gram`.

    Returns
    -------
    array (len(readouts), n, m), float64
        On Arora's scale: CNTK-V is a sum over pixels, CNTK-GAP a mean over pairs of pixels; fully connected
        kernels begin with x.z / n_0 (`fully_connected`).

    Raises
    ------
    UserError
        If images are not (n, C, P, P), finite and of one shape, or there is no readout.
    """
    return pairs.gram(pair, x, z, readouts)


def pair(x: np.ndarray, z: np.ndarray, readouts: Sequence[Readout]) -> np.ndarray:
    """The kernels of one pair: x, z arrays (C, P, P) -> float64 array (len(readouts),)."""
    return averaged(_plain, x, z, readouts)


def averaged(
    function: Callable[..., np.ndarray], x: np.ndarray, z: np.ndarray, readouts: Sequence[Readout]
) -> np.ndarray:
    """Evaluate `function`(x, z, plain readouts) -> float64 (..., r), averaged over flips where asked.

    A readout with a flip gets the mean of the values for z and for its mirror image.
    """
    plain = [r.plain for r in readouts]
    values, flipped = function(x, z, plain), np.array([r.flip for r in readouts])
    if flipped.any():
        mirrored = function(x, np.asarray(z)[..., ::-1], plain)
        values = np.where(flipped, (values + mirrored) / 2, values)
    return values


def _plain(x: np.ndarray, z: np.ndarray, readouts: Sequence[Readout]) -> np.ndarray:
    out = np.empty(len(readouts))
    for family in dict.fromkeys(r.family for r in readouts):
        places = [place for place, r in enumerate(readouts) if r.family == family]
        definition = convolutional if family == CONVOLUTIONAL else fully_connected
        out[places] = definition.pair(x, z, [readouts[place] for place in places])
    return out
