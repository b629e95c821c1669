"""The recursion on the CPU, in Numba: one displacement after another, each in the L1 cache.

Every layer maps the displacement q - p to itself, so the recursion over (P, P, P, P) falls into
planes of P x P entries that never meet. Displacements are taken modulo P, (a, b) with
0 <= a, b < P: entry (i, j) of a plane pairs pixel (i, j) of x with pixel ((i + a) % P, (j + b) % P)
of z, every plane is full, and masks keep box sums from crossing the seam where a displacement
wraps. A slab is a few planes of equal b, one behind the other, treated as one flat vector: all
loops over it run without branches and vectorise.

The plane of displacement (0, 0) is computed in float64 where rounding shows: 1 - c is tiny where
two images agree, and an error of one float32 unit in c moves the angle by 3.5e-4. S, n and n - S
are float64 there; all else needs only float32. The other planes are float32, and angles that only
rounding can have made count as 0: in flat backgrounds they would err the same way everywhere. Sums
over entries are float64.

Symbols follow `cntk_bench.kernels.convolutional`. With D = n + B S, y = (n - S) / D, and f a polynomial
(fitted by scripts/fit_polynomials.py; kernels_cuda/activation.cuh says more),

    z = n sin(t) / D = sqrt(y (2 - (1 - B) y) / (1 + B)),    t = arccos(c) = z (1 + B + y f(y))
    n k1 = S k0 + n sin(t) / pi
"""

import numpy as np
from numba import njit

from cntk_bench.backends.cpu.compilation import keep_code, wide_vectors

f32 = np.float32
index = np.uint64  # a signed index would be checked for wrapping around, and not vectorise
late = index(1)

B1 = f32(1.475)  # 1 + B
LINEAR, QUADRATIC = (
    f32(factor / 1.475 / (9 * np.pi) ** 2) for factor in (2, -0.525)
)  # z is scaled by 1 / (9 pi)
f0, f1, f2, f3 = f32(2.458732019e-2), f32(7.164030496e-2), f32(-5.934673731e-3), f32(5.502650864e-3)
SNAP = f32(1.4e-7)
NINTH, ZERO, ONE, TINY = f32(1 / 9), f32(0), f32(1), f32(1e-37)
Array = np.ndarray

# What a readout sums: K; G - K, the NTK with first and last layer fixed; G, with all layers trained.
NNGP, HIDDEN, ALL = range(3)

# Not "fast": nothing that would let the compiler assume away NaN. Only the readouts' sums, which are
# float64, may be reordered.
compiled = njit(nogil=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")


# Arrays of a slab start one entry late, so that `box` may read to the left and to the right of each.


@njit(inline="always")
def k0_and_k1(S: np.float32, gap: np.float32) -> tuple[np.float32, np.float32]:
    """k0 / 9 and n k1 / 9 of S >= 0 and gap = n - S, in float32; y below SNAP counts as 0."""
    D = max(B1 * S + gap, TINY)
    y = gap / D
    y = y if y > SNAP else ZERO
    z = np.sqrt(y * (LINEAR + QUADRATIC * y))
    k0 = NINTH - z * (B1 + y * (f0 + y * (f1 + y * (f2 + y * f3))))
    return k0, z * D + S * k0


@njit(inline="always")
def k0_and_lost(S: np.float32, gap: np.float32) -> tuple[np.float32, np.float32]:
    """k0 / 9 and n (1 - k1) / 9 to float32's relative precision, however small gap = n - S is."""
    r = ONE / max(B1 * S + gap, TINY)
    y = max(gap * r, ZERO)
    z = np.sqrt(y * (LINEAR + QUADRATIC * y))
    f = f0 + y * (f1 + y * (f2 + y * f3))
    return NINTH - z * (B1 + y * f), gap * (NINTH - z * (ONE - S * r * f))


@compiled
def first_activation(
    size: int, S: Array, T: Array, x_dev: Array, x: int, z_dev: Array, z: int, k0: Array
) -> None:
    """`activation` at any correlation: k0(c) = 1 - k0(-c), k1(c) = k1(-c) + c for c < 0."""
    wide_vectors()
    for t in range(index(size)):
        n = x_dev[index(x) + t] * z_dev[index(z) + t]
        large = abs(S[t + late])
        k, lost = k0_and_lost(f32(large), f32(n - large))
        if S[t + late] < ZERO:
            k = NINTH - k
            lost += NINTH * f32(large)
        k0[t] = k
        S[t + late] = n * x_dev.dtype.type(1 / 9) - lost
        T[t + late] = k * T[t + late] + f32(S[t + late])


@compiled
def activation(size: int, S: Array, T: Array, x_dev: Array, x: int, z_dev: Array, z: int, k0: Array) -> None:
    """One layer, in place: S becomes K and T becomes G, from the second layer on, where c >= 0.

    `x` and `z` are where the layer starts in the images' deviations; `k0` receives k0 / 9.
    """
    wide_vectors()
    for t in range(index(size)):
        gap = x_dev[index(x) + t] * z_dev[index(z) + t] - S[t + late]  # a fused multiply-add rounds it once
        k, K = k0_and_k1(S[t + late], gap)
        k0[t] = k
        S[t + late] = K
        T[t + late] = k * T[t + late] + K


@compiled
def wide_activation(
    size: int, S: Array, T: Array, x_dev: Array, x: int, z_dev: Array, z: int, k0: Array
) -> None:
    """`activation` where S and n are float64."""
    wide_vectors()
    for t in range(index(size)):
        n = x_dev[index(x) + t] * z_dev[index(z) + t]
        n32, gap = f32(n), f32(n - S[t + late])
        k, lost = k0_and_lost(n32 - gap, gap)
        k0[t] = k
        S[t + late] = n * (1 / 9) - lost
        T[t + late] = k * T[t + late] + (n32 * NINTH - lost)


@compiled
def tangent(size: int, K: Array, T: Array, k0: Array) -> None:
    """The T of a second training becomes its G, with the K and k0 / 9 at hand."""
    wide_vectors()
    for t in range(index(size)):
        T[t + late] = k0[t] * T[t + late] + f32(K[t + late])


@compiled
def box(size: int, width: int, A: Array, left: Array, right: Array, up: Array, down: Array, H: Array) -> None:
    """A becomes its sums over 3x3 neighbours within each plane; H is scratch."""
    wide_vectors()
    for t in range(index(size)):
        H[t + index(width)] = A[t + late] + left[t] * A[t] + right[t] * A[t + index(2)]
    for t in range(index(size)):
        A[t + late] = H[t + index(width)] + up[t] * H[t] + down[t] * H[t + index(2 * width)]


@njit(fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
def weighted_sum(size: int, A: Array, weights: Array, pool: int) -> float:
    """Sum of A with a pool's weights, in float64."""
    wide_vectors()
    total = 0.0
    for t in range(index(size)):
        total += weights[pool, t] * np.float64(A[t + late])
    return total


@njit(fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
def weighted_difference(size: int, A: Array, B: Array, weights: Array, pool: int) -> float:
    """Sum of A - B with a pool's weights, in float64."""
    wide_vectors()
    total = 0.0
    for t in range(index(size)):
        total += weights[pool, t] * (np.float64(A[t + late]) - np.float64(B[t + late]))
    return total


@compiled
def products(size: int, x: Array, z: Array, K: Array) -> None:
    """sum_c x_c z_c of two images (C, size) -> K."""
    wide_vectors()
    for t in range(index(size)):
        K[t + late] = x[0, t] * z[0, t]
    for c in range(1, len(x)):
        for t in range(index(size)):
            K[t + late] += x[c, t] * z[c, t]


@compiled
def fill_slab(
    P: int,
    rows: Array,
    b: int,
    pixel_weights: Array,
    left: Array,
    right: Array,
    up: Array,
    down: Array,
    weights: Array,
) -> None:
    """Edge masks (size,) and pool weights (pools, size) of the planes (a, b), a in `rows`."""
    wide_vectors()
    t = 0
    for a in rows:
        for i in range(P):
            k = (i + a) % P
            for j in range(P):
                m = (j + b) % P
                left[t] = j != 0 and m != 0
                right[t] = j != P - 1 and m != P - 1
                up[t] = i != 0 and k != 0
                down[t] = i != P - 1 and k != P - 1
                for pool in range(len(weights)):
                    weights[pool, t] = pixel_weights[pool, i, k] * pixel_weights[pool, j, m]
                t += 1


@compiled
def shift(P: int, rows: Array, b: int, planes: Array, out: Array) -> None:
    """planes (k, P * P) -> out (k, size): each plane moved by (a, b) for every a in `rows`."""
    wide_vectors()
    for h in range(len(planes)):
        t = 0
        for a in rows:
            for i in range(P):
                row = ((i + a) % P) * P
                for j in range(index(P - b)):
                    out[index(h), index(t) + j] = planes[index(h), index(row + b) + j]
                for j in range(index(b)):
                    out[index(h), index(t + P - b) + j] = planes[index(h), index(row) + j]
                t += P


@keep_code
@compiled
def task(
    P: int,
    planes: int,
    rows: Array,
    b: int,
    x: tuple[Array, Array],
    z: tuple[Array, Array],
    first: int,
    states: Array,
    reads: Array,
    pixel_weights: Array,
    symmetric: bool,
    out: Array,
) -> None:
    """Adds to out what displacements (a, b), a in `rows`, give to a few images z.

    x, z : pairs of images (n, C, P * P) and their deviations (n, layers, P * P), x's with every plane
        repeated `planes` times; z is images `first` .. of the tile
    states : (0 to 2,) trainings whose T is run, HIDDEN before ALL
    reads : (r, 4) of layer, readout, quantity, pool; ascending layers
    out : (readouts, n, m) float64; with `symmetric`, only [:, i, j] with i >= j
    """
    wide_vectors()
    x_images, x_dev = x
    z_images, z_dev = z
    wide = x_dev.dtype
    channels, layers, most = x_images.shape[1], x_dev.shape[1], x_dev.shape[2]
    trained = len(states)
    S, H = np.zeros(most + 2, wide), np.zeros(most + 2 * P, wide)
    T, T2, H32 = np.zeros(most + 2, f32), np.zeros(most + 2, f32), np.zeros(most + 2 * P, f32)
    left, right, up, down = np.empty(most, f32), np.empty(most, f32), np.empty(most, f32), np.empty(most, f32)
    k0 = np.empty(most, f32)
    weights = np.empty((len(pixel_weights), most))
    images = np.empty((len(z_images), channels, most), wide)
    dev = np.empty((len(z_dev), layers, most), wide)
    flat_x, flat_z = x_dev.reshape(-1), dev.reshape(-1)

    for start in range(0, len(rows), planes):
        slab = rows[start : start + planes]
        size = len(slab) * P * P
        fill_slab(P, slab, b, pixel_weights, left, right, up, down, weights)
        for m in range(len(images)):
            shift(P, slab, b, z_images[m], images[m])
            shift(P, slab, b, z_dev[m], dev[m])
        for n in range(first if symmetric else 0, len(x_dev)):
            for m in range(min(len(images), n + 1 - first) if symmetric else len(images)):
                products(size, x_images[n], images[m], S)
                box(size, P, S, left, right, up, down, H)
                for t in range(index(size)):
                    T2[t + late] = f32(S[t + late])  # the first layer is trained
                    T[t + late] = T2[t + late] if trained > 0 and states[0] == ALL else ZERO
                read = 0
                for layer in range(layers):
                    at_x, at_z = (n * layers + layer) * most, (m * layers + layer) * most
                    if layer == 0:
                        first_activation(size, S, T, flat_x, at_x, flat_z, at_z, k0)
                    elif x_dev.itemsize == 4:
                        activation(size, S, T, flat_x, at_x, flat_z, at_z, k0)
                    else:
                        wide_activation(size, S, T, flat_x, at_x, flat_z, at_z, k0)
                    if trained == 2:
                        tangent(size, S, T2, k0)
                    # S is K now, T and T2 are G: read out, then sum over neighbours.
                    while read < len(reads) and reads[read, 0] == layer:
                        _, readout, quantity, pool = reads[read]
                        if quantity == NNGP:
                            value = weighted_sum(size, S, weights, pool)
                        elif quantity == HIDDEN:
                            value = weighted_difference(size, T, S, weights, pool)
                        else:
                            value = weighted_sum(size, T2 if trained == 2 else T, weights, pool)
                        out[readout, n, first + m] += value
                        read += 1
                    if layer + 1 < layers:
                        box(size, P, S, left, right, up, down, H)
                        if trained > 0:
                            box(size, P, T, left, right, up, down, H32)
                        if trained == 2:
                            box(size, P, T2, left, right, up, down, H32)
