"""The recursion on the CPU, in Numba: LANES images z against one x, one slab of displacements after another.

Every layer maps the displacement (a, b) = q - p to itself, so the recursion over (P, P, P, P) falls into
(2P - 1)^2 independent rectangles of (P - |a|) x (P - |b|) entries: entry (i, j) pairs a pixel of x with the
pixel of z displaced from it by (a, b). A vector holds one entry of LANES pairs of images, so that sums over
neighbours are additions of whole vectors; beyond a rectangle's edge there is nothing to add. Rectangles of
equal a are computed side by side, in slabs (`slabs`).

The rectangle of displacement (0, 0) is computed in float64 where rounding matters: 1 - c is tiny where two
images agree, and an error of one float32 unit in c moves the angle by 3.5e-4. The other rectangles are
float32. Sums over entries are float64.

Symbols follow `cntk_bench.kernels.convolutional`.
"""

import numpy as np
from numba import njit

from cntk_bench.backends.cpu.compilation import keep_code
from cntk_bench.backends.cpu.lanes import LANES
from cntk_bench.backends.cpu.layers import ALL, OFF, ON, Flag, layer, products

Array = np.ndarray

compiled = njit(nogil=True, error_model="numpy")


@compiled
def interleave(images: Array, out: Array) -> None:
    """Interleave up to LANES images (k, n) in out (n * LANES); lanes without an image are left unchanged."""
    n = images.shape[1]
    for first in range(0, n, 16):  # few lines of `out` at once, so that they stay in the L1 cache
        for lane in range(len(images)):
            for t in range(first, min(first + 16, n)):
                out[t * LANES + lane] = images[lane, t]


@compiled
def multiply(array: Array, factor: float, size: int) -> None:
    """Multiply the first `size` numbers, in place."""
    for t in range(size):
        array[t] *= array.dtype.type(factor)


@keep_code
@compiled
def recursion(
    P: int, slabs: Array, columns: Array, ends: Array, exact: Flag, x: tuple, z: tuple, states: Array,
    reads: Array, pixel_weights: Array, scales: Array, constants: Array, room: tuple, S: Array,
    T: Array | None, T2: Array | None, out: Array,
) -> None:  # fmt: skip
    """Add to `out` the share of some displacements, for images x, each with up to LANES images z.

    slabs, columns, ends : as `slabs.slabs` makes them
    exact : ON for float64
    x, z : pairs of images (n, C, P * P) and their deviations (n, layers, P * P), in float32 or float64
    states : the training of T and of T2, if they exist: HIDDEN or ALL; that of T2 is ALL
    reads : (r, 4) of layer, readout, quantity, pool; ascending layers
    pixel_weights : (pools, P, P) float64, small integers
    scales : (layers,) powers of two that multiply S and T before a layer; the deviations already have them
    constants : `activation.CONSTANTS`
    room, S, T, T2 : see `slabs.room_of`
    out : (readouts, n, k) float64
    """
    rows, rings, z_images, z_devs, of_rows, of_columns, sums = room
    x_images, x_devs = x[0].reshape(-1), x[1].reshape(-1)
    n, channels, layers, pixels, k = len(x[0]), x[0].shape[1], x[1].shape[1], P * P, len(z[0])
    interleave(z[0].reshape(k, channels * pixels), z_images)
    interleave(z[1].reshape(k, layers * pixels), z_devs)
    for i in range(n):
        sums[:] = 0
        for slab in range(len(slabs)):
            a, begin, stop, first_end, last_end = slabs[slab]
            some, h, x_i, z_i = columns[begin:stop], P - abs(a), max(0, -a), max(0, a)
            own = ends[first_end:last_end]
            for pool in range(len(pixel_weights)):
                for t in range(h):
                    of_rows[pool, t] = pixel_weights[pool, x_i + t, z_i + t]
                for t in range(len(some)):
                    seen = some[t, 0] >= 0
                    of_columns[pool, t] = pixel_weights[pool, some[t, 0], some[t, 1]] if seen else 0
            x_at, z_at = x_i * P, z_i * P
            of_x, of_z = (x_images, i * channels * pixels + x_at), (z_images, z_at)
            products(P, h, some, own, channels, of_x, of_z, rings[0], S)
            size = (h + 1) * len(some) * LANES
            if T is not None:
                for t in range(size):  # with ALL, the first layer is trained
                    T[t] = S[t] if states[0] == ALL else 0
            if T2 is not None:
                for t in range(size):
                    T2[t] = S[t]
            first, scale = 0, 1.0
            for number in range(layers):
                if scales[number] != 1:
                    scale *= scales[number]
                    multiply(S, scales[number], size)
                    if T is not None:
                        multiply(T, scales[number], size)
                    if T2 is not None:
                        multiply(T2, scales[number], size)
                end = first
                while end < len(reads) and reads[end, 0] == number:
                    end += 1
                at = number * pixels
                of_x, of_z = (x_devs, i * layers * pixels + at + x_at), (z_devs, at + z_at)
                readout = reads, np.int64(first), np.int64(end), of_rows, of_columns, scale, sums
                # Three versions are compiled, each with what it needs: only the first S can be negative.
                if number == 0:
                    layer(P, h, some, own, of_x, of_z, S, T, T2, rows, rings, exact, ON, readout, constants)
                elif end > first:
                    layer(P, h, some, own, of_x, of_z, S, T, T2, rows, rings, exact, OFF, readout, constants)
                else:
                    layer(P, h, some, own, of_x, of_z, S, T, T2, rows, rings, exact, OFF, None, constants)
                first = end
        for number in range(len(reads)):
            for lane in range(k):
                out[reads[number, 1], i, lane] += sums[number * LANES + lane]
