"""The definition: the recursion of the CNTK in float64 NumPy, one pair of images at a time.

Slow, plain and independent of every backend; the backends are tested against it, and it is
tested against neural-tangents and closed forms. Equations: Arora et al., "On Exact Computation
with an Infinitely Wide Neural Net" (NeurIPS 2019), section 4, with a 3x3 filter (q = 3), zero
padding and ReLU.

Symbols: x, z images (C, P, P); p = (i, j) a pixel of x and q = (k, l) a pixel of z; S and T the
paper's Sigma and Theta, arrays (P, P, P, P) over [i, j, k, l]; v a pixel's variance Sigma[p, p].

Where two images agree, c must be exactly 1: an error of one unit in its last place is 1e-8 in
the angle, in every layer. So S and v are summed in the same order, and n is sqrt(v v), which
is exactly v.
"""

from collections.abc import Iterable

import numpy as np

from cntk_bench.kernels import pairs
from cntk_bench.kernels.spec import Readout


def gram(x: np.ndarray, z: np.ndarray | None = None, *, readouts: Iterable[Readout]) -> np.ndarray:
    """As `definition.gram`, for plain convolutional readouts: images (n, C, P, P) and (m, C, P, P) -> float64
    (len(readouts), n, m)."""
    return pairs.gram(pair, x, z, readouts)


def pair(x: np.ndarray, z: np.ndarray, readouts: list[Readout]) -> np.ndarray:
    """The kernels of one pair: x, z arrays (C, P, P) -> float64 array (len(readouts),)."""
    x, z = np.asarray(x, np.float64), np.asarray(z, np.float64)
    out = np.empty(len(readouts))
    vx, vz = box2((x**2).sum(0)), box2((z**2).sum(0))  # (P, P)
    S = box4(sum(a[:, :, None, None] * b for a, b in zip(x, z, strict=True)))
    T = {"all": S, "hidden": np.zeros_like(S)}  # the first layer is trained, or fixed
    for depth in range(2, max(r.depth for r in readouts) + 1):
        n = np.sqrt(vx[:, :, None, None] * vz)  # (P, P, P, P)
        c = np.clip(np.divide(S, n, out=np.zeros_like(S), where=n > 0), -1, 1)
        angle = np.arccos(c)
        k0 = (np.pi - angle) / np.pi
        k1 = (c * (np.pi - angle) + np.sqrt(1 - c**2)) / np.pi
        K = n * k1 / 9  # E[relu relu], c_sigma = 2; 1/q^2 = 1/9
        G = {train: k0 / 9 * T[train] + K for train in T}
        for index, readout in enumerate(readouts):
            if readout.depth == depth:
                out[index] = pool(_value(readout, K, G), readout)
        S, T = box4(K), {train: box4(G[train]) for train in T}
        vx, vz = box2(vx / 9), box2(vz / 9)  # exact: k1(1) = 1
    return out


def _value(readout: Readout, K: np.ndarray, G: dict[str, np.ndarray]) -> np.ndarray:
    if readout.kernel == "nngp":
        return K
    if readout.train == "all":
        return G["all"]
    return G["hidden"] - K  # the last layer is fixed


def pool(A: np.ndarray, readout: Readout) -> float:
    """Pool A (P, P, P, P) over both images' pixels into one number."""
    if readout.pool == "v":
        return np.einsum("ijij->", A)
    if readout.pool == "gap":
        return A.mean()
    size = A.shape[0]
    if not readout.pool.startswith("lap:"):  # another package's pool: by its weights
        m = readout.pooling.weights(size)
        return np.einsum("ijkl,ik,jl->", A, m, m, optimize=True)
    # LAP(c): the average over a window of each image, then the sum over window positions.
    c = readout.pooling.number
    pixel = np.arange(size)
    inside = (abs(pixel[:, None] - pixel[None, :]) <= c) / (2 * c + 1)  # (position, pixel)
    rows = np.einsum("oi,ijkl,ok->jl", inside, A, inside, optimize=True)
    return np.einsum("oj,jl,ol->", inside, rows, inside, optimize=True)


def box2(a: np.ndarray) -> np.ndarray:
    """Sum of the 3x3 neighbours of each pixel of a (P, P), zero outside."""
    size = a.shape[0]
    padded = np.pad(a, 1)
    return sum((padded[s : s + size, t : t + size] for s in range(3) for t in range(3)), np.zeros_like(a))


def box4(A: np.ndarray) -> np.ndarray:
    """Sum over shifts s in {-1, 0, 1}^2 of A[p + s, q + s], zero where p + s or q + s is outside."""
    size = A.shape[0]
    padded = np.pad(A, 1)
    out = np.zeros_like(A)
    for s in range(3):
        for t in range(3):
            rows, columns = slice(s, s + size), slice(t, t + size)
            out += padded[rows, columns, rows, columns]
    return out
