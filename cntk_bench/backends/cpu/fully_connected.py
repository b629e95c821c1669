"""Fully connected kernels on the CPU, in Numba: LANES vectors z against one x, feature after feature.

Sums run over the features in one order, whatever the tile, the threads or the neighbours in a vector: each
lane is a pair of its own.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import acos, sqrt
from pathlib import Path

import numpy as np
from numba import njit

from cntk_bench.backends import fully_connected
from cntk_bench.backends.cpu.compilation import keep_code, wide_vectors
from cntk_bench.backends.cpu.lanes import LANES
from cntk_bench.system.cores import threads

UNROLLED = 4  # features summed before a lane's sum is stored
index = np.uint64  # a signed index would be checked for wraparound, which prevents vectorisation
f64 = np.float64
Arrays = tuple[np.ndarray, ...]

# Products are exact, so that fusing them changes nothing; nothing may be reordered.
compiled = njit(nogil=True, fastmath={"contract", "nsz"}, error_model="numpy")


@njit(inline="always", fastmath={"contract", "nsz"}, error_model="numpy")
def add(total: float, lost: float, x: float, z: float) -> tuple[float, float]:
    """total + x z, and the rounding errors of the sum so far, added up (Knuth's two-sum)."""
    product = f64(x) * f64(z)
    new = total + product
    share = new - total
    return new, lost + ((total - (new - share)) + (product - share))


@compiled
def squares(x: np.ndarray, out: np.ndarray) -> None:
    """x.x of vectors (n, padded), summed as `products` does -> out (n,)."""
    for i in range(len(x)):
        total, lost = 0.0, 0.0
        for k in range(x.shape[1]):
            total, lost = add(total, lost, x[i, k], x[i, k])
        out[i] = total + lost


@compiled
def products(x: np.ndarray, z: np.ndarray, total: np.ndarray, lost: np.ndarray) -> None:
    """Dot products of x (features,) with the columns of z (features, LANES): total + lost, each (LANES,)."""
    wide_vectors()
    for t in range(index(LANES)):
        total[t], lost[t] = 0.0, 0.0
    for k in range(index(0), index(len(x)), index(UNROLLED)):
        for t in range(index(LANES)):
            s, e = total[t], lost[t]
            s, e = add(s, e, x[k], z[k, t])
            s, e = add(s, e, x[k + index(1)], z[k + index(1), t])
            s, e = add(s, e, x[k + index(2)], z[k + index(2), t])
            s, e = add(s, e, x[k + index(3)], z[k + index(3), t])
            total[t], lost[t] = s, e


@compiled
def recursion(
    S: float,
    vx: float,
    vz: float,
    square: float,
    scale: float,
    fixed: np.ndarray,
    reads: np.ndarray,
    T: np.ndarray,
    out: np.ndarray,
    i: int,
    j: int,
) -> None:
    """Write one pair's readouts of one bias to out[:, i, j].

    S, vx, vz : x.z, x.x and z.z over n_0, with beta^2 added.  scale : factor of the results.
    """
    depth = 1
    for state in range(len(fixed)):
        T[state] = S if fixed[state] == 0 else 0.0
    for read in range(len(reads)):
        while depth < reads[read, 0]:
            n = sqrt(vx * vz)
            c = min(max(S / n, -1.0), 1.0) if n > 0 else 0.0
            rest = np.pi - acos(c)
            k0 = rest / np.pi
            S = n * ((c * rest + sqrt((1 - c) * (1 + c))) / np.pi) + square
            vx += square
            vz += square
            depth += 1
            for state in range(len(fixed)):
                T[state] = k0 * T[state] + (S if depth > fixed[state] else 0.0)
        value = S if reads[read, 2] < 0 else T[reads[read, 2]]
        out[reads[read, 1], i, j] = value * scale


@keep_code
@compiled
def task(
    features: int, x: Arrays, z: Arrays, first: int, program: Arrays, symmetric: bool, out: np.ndarray
) -> None:
    """The readouts of all x against up to LANES vectors z, whose first is number `first` of the tile.

    x, z : vectors (n, padded) float32, their x.x (n,) and scales (n,); z's are transposed, (padded, LANES).
    program : squares, groups, states and reads, as in `Program`.
    out : (readouts, n, m) float64; with `symmetric` only [:, i, j] with i >= j are needed.
    """
    x_vectors, x_squares, x_scales = x
    z_vectors, z_squares, z_scales = z
    bias_squares, groups, states, reads = program
    total, lost, T = np.empty(LANES), np.empty(LANES), np.empty(len(states) + 1)
    for i in range(first if symmetric else 0, len(x_vectors)):
        products(x_vectors[i], z_vectors, total, lost)
        for t in range(min(len(z_squares), i + 1 - first) if symmetric else len(z_squares)):
            S, vx, vz = total[t] + lost[t], x_squares[i], z_squares[t]
            S, vx, vz = S / features, vx / features, vz / features
            sx, sz = x_scales[i], z_scales[t]
            for g in range(len(groups)):
                fixed = states[groups[g, 2] : groups[g, 3]]
                some = reads[groups[g, 0] : groups[g, 1]]
                square = bias_squares[g]
                if square == 0:
                    recursion(S, vx, vz, 0.0, sx * sz, fixed, some, T, out, i, first + t)
                else:
                    biased = S * sx * sz + square, vx * sx * sx + square, vz * sz * sz + square
                    recursion(*biased, square, 1.0, fixed, some, T, out, i, first + t)


@dataclass(frozen=True)
class Vectors:
    """values (n, padded) float32, features padded with zeros; squares x.x and scales 2^e, (n,) float64."""

    values: np.ndarray
    squares: np.ndarray
    scales: np.ndarray


class FullyConnected(fully_connected.FullyConnected):
    """Fully connected kernels of one spec on the CPU."""

    name = "cpu"

    @property
    def source(self) -> str:
        """Digest (sha256, hex) of the code that decides the bits of the results."""
        files = (Path(__file__), Path(fully_connected.__file__))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

    def prepare(self, images: np.ndarray) -> Vectors:
        """Images (n, C, P, P) -> vectors."""
        values, scales = fully_connected.vectors(images)
        values = np.pad(values, ((0, 0), (0, -values.shape[1] % UNROLLED)))
        own = np.empty(len(values))
        squares(values, own)
        return Vectors(values, own, scales)

    def _numbers(self, x: Vectors, z: Vectors, symmetric: bool) -> Callable[[], np.ndarray]:
        return lambda: self._tile(x, z, symmetric)

    def _tile(self, x: Vectors, z: Vectors, symmetric: bool) -> np.ndarray:
        out = np.zeros((len(self.spec.readouts), len(x.values), len(z.values)))
        used = self.program
        arrays = used.squares, used.groups, used.states, used.reads
        rows = x.values, x.squares, x.scales

        def run(first: int) -> None:
            some = slice(first, first + LANES)
            lanes = np.zeros((z.values.shape[1], LANES), np.float32)
            lanes[:, : len(z.squares[some])] = z.values[some].T
            block = lanes, z.squares[some], z.scales[some]
            task(self.spec.features, rows, block, first, arrays, symmetric, out)

        with ThreadPoolExecutor(threads()) as pool:
            for _ in pool.map(run, range(0, len(z.values), LANES)):
                pass  # raises what a job raised
        return out
