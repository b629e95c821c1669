"""One layer of the CPU's recursion, in a slab: rectangles side by side, LANES pairs of images at once.

A layer passes through a slab once, row by row: it turns S into K and T into G and sums them over three
neighbouring columns. A ring buffer keeps these sums of the two rows before; all three together are the new S
and T of the previous row. A row is done in two loops, because the chain of operations from S to G is so long
that in one loop a CPU could work on too few entries at the same time.

S, n and n - S are float32 or float64; all else is float32. In float32, angles small enough to be rounding
errors count as 0: in flat backgrounds they would have the same error everywhere.

Symbols follow `cntk_bench.kernels.convolutional`; `activation` has the mathematics, `planes` calls this.
"""

from typing import Any

import numpy as np
from numba import njit

from cntk_bench.backends.cpu.activation import held, k0_and_gain, root_of_ratio, with_sign
from cntk_bench.backends.cpu.compilation import wide_vectors
from cntk_bench.backends.cpu.lanes import (
    LANES,
    absolute,
    filled,
    fma,
    fms,
    load,
    narrow,
    splat,
    spread,
    store,
    widen,
)

ZERO: Any = np.float32(0)
Array = np.ndarray
Flag = int | None  # Numba compiles a version of a function for each, and a loop looks at neither
ON, OFF = 1, None

# What a readout sums: K; G - K, the NTK with first and last layer fixed; G, with all layers trained.
NNGP, HIDDEN, ALL = range(3)

compiled = njit(nogil=True, error_model="numpy")
inlined = njit(nogil=True, forceinline=True, error_model="numpy")


@inlined
def push(total: Any, ring: Array, old: int, last: int, out: Array, at: int) -> None:
    """Store in `out` a row's sum over three columns, `total`, plus those of the two rows before it.

    The ring holds these: the previous row's at `last`, and at `old` that of the row before, which `total`
    replaces.
    """
    store(out, at, load(ring, old) + load(ring, last) + total)
    store(ring, old, total)


@inlined
def finish(h: int, width: int, ring: Array, out: Array) -> None:
    """Store the last row of `out`, which has no row below it, and clear the ring for the next layer."""
    nothing = splat(ring.dtype.type(0))
    old, last = h % 2 * width, (h + 1) % 2 * width
    for t in range(0, width, LANES):
        store(out, h * width + t, load(ring, old + t) + load(ring, last + t))
        store(ring, old + t, nothing)
        store(ring, last + t, nothing)


@compiled
def products(
    P: int, h: int, columns: Array, ends: Array, channels: int, x: tuple, z: tuple, ring: Array, S: Array
) -> None:
    """Set S, in a slab, to the sums of sum_c x_c z_c over 3 x 3 neighbours.

    x, z : flat images, (.., C, P * P) and (C, P * P, LANES), each with the offset of the rows' first pixel
    h, columns, ends : see `layer`
    """
    wide_vectors()
    (xs, x_at), (zs, z_at) = x, z
    width, zero = len(columns) * LANES, splat(S.dtype.type(0))
    for i in range(h):
        old, last, above = i % 2 * width, (i + 1) % 2 * width, i * width
        for k in range(len(ends) - 1):
            first, stop = ends[k] + 1, ends[k + 1]
            one = other = zero
            for e in range(first, stop):
                total, t = zero, (e - 1) * LANES
                for c in range(channels):
                    row = (c * P + i) * P
                    of_x, of_z = x_at + row + columns[e, 0], z_at + row + columns[e, 1]
                    total = fma(spread(xs, of_x), load(zs, of_z * LANES), total)
                push(one + other + total, ring, old + t, last + t, S, above + t)
                one, other = other, total
            t = (stop - 1) * LANES
            push(one + other, ring, old + t, last + t, S, above + t)
    finish(h, width, ring, S)


@inlined
def read(i: int, width: int, Ks: Array, hidden: Array, all: Array, readout: tuple) -> None:
    """Add what row i contributes to the sums that are read out at a layer.

    hidden, all : rows of G, for the training that HIDDEN reads and for the one that ALL reads
    readout : reads (r, 4); this layer's first read and the one after its last; the pools' weights of the rows
        (pools, P), and along a row (pools, ..); the factor of S and T; sums (r * LANES)
    """
    reads, first, end, of_rows, of_columns, scale, sums = readout
    for number in range(first, end):
        quantity, pool = reads[number, 2], reads[number, 3]
        weights, total = of_columns[pool], splat(ZERO)
        if quantity == HIDDEN:
            for t in range(0, width, LANES):
                total = fma(spread(weights, t // LANES), load(hidden, t) - load(Ks, t), total)
        else:
            values = Ks if quantity == NNGP else all
            for t in range(0, width, LANES):
                total = fma(spread(weights, t // LANES), load(values, t), total)
        before = load(sums, number * LANES)
        store(sums, number * LANES, fma(splat(of_rows[pool, i] / scale), widen(total, before), before))


@compiled
def layer(
    P: int, h: int, columns: Array, ends: Array, x: tuple, z: tuple, S: Array, T: Array | None,
    T2: Array | None, rows: tuple, rings: tuple, exact: Flag, signed: Flag, readout: tuple | None,
    constants: Array,
) -> None:  # fmt: skip
    """Compute one layer of a slab in place: S and T become the sums over neighbours of K and G.

    h, columns : number of rows; the column in x and in z of each slot of a row, (w, 2)
    ends : of the slab's rectangles, see `slabs.slabs`. The spare slot before a rectangle receives what is
        stored before its first entry is known, and is never read
    x, z : flat deviations, (.., P * P) and (.., P * P, LANES), each with the offset of the rows' first pixel
        in this layer
    S, T, T2 : row i is stored as row i + 1, to leave room for what is stored before the first row
    rows, rings : work space for four rows of float32; for two rows of S and of each T
    exact : ON if S is float64
    signed : ON if S may be negative
    readout : see `read`; None if nothing is read out
    """
    wide_vectors()
    (xs, x_at), (zs, z_at) = x, z
    (gaps, roots, larges, seconds), (S_ring, T_ring, T2_ring) = rows, rings
    numbers, none = held(constants), splat(S.dtype.type(0))
    _, _, _, (_, ninth32, _, snap, zero) = numbers
    width, ninth = len(columns) * LANES, filled(1 / 9, none)
    least = snap
    if exact is not None:
        least = zero  # in float64, a small gap is no rounding error
    for i in range(h):
        begin, above, old, last = (i + 1) * width, i * width, i % 2 * width, (i + 1) % 2 * width
        x_row, z_row = x_at + i * P, z_at + i * P
        for k in range(len(ends) - 1):
            first, stop = ends[k] + 1, ends[k + 1]
            for e in range(first, stop):
                t = e * LANES
                large = load(S, begin + t)
                if signed is not None:
                    large = absolute(large)
                n_x, n_z = spread(xs, x_row + columns[e, 0]), load(zs, (z_row + columns[e, 1]) * LANES)
                gap = narrow(fms(n_x, n_z, large))
                store(gaps, t, gap)
                if exact is not None:
                    store(larges, t, narrow(large))
                store(roots, t, root_of_ratio(gap, narrow(large), least, numbers))
        for k in range(len(ends) - 1):
            first, stop = ends[k] + 1, ends[k + 1]
            K1 = K2 = none
            G1 = G2 = H1 = H2 = zero
            for e in range(first, stop):
                t, before = e * LANES, (e - 1) * LANES
                own = load(S, begin + t)
                k0, gain = k0_and_gain(load(gaps, t), load(roots, t), numbers)
                large = own if signed is None else absolute(own)
                K = fma(large, ninth, widen(gain, own))
                K32 = narrow(K)
                if exact is not None:
                    K32 = fma(load(larges, t), ninth32, gain)  # for fewer conversions
                if signed is not None:
                    k0, K, K32 = with_sign(own, k0, K, K32, numbers)
                if readout is not None:
                    store(larges, t, K32)
                push(K1 + K2 + K, S_ring, old + before, last + before, S, above + before)
                K1, K2 = K2, K
                if T is not None:
                    G = fma(k0, load(T, begin + t), K32)
                    push(G1 + G2 + G, T_ring, old + before, last + before, T, above + before)
                    G1, G2 = G2, G
                    if readout is not None:
                        store(gaps, t, G)
                if T2 is not None:
                    H = fma(k0, load(T2, begin + t), K32)
                    push(H1 + H2 + H, T2_ring, old + before, last + before, T2, above + before)
                    H1, H2 = H2, H
                    if readout is not None:
                        store(seconds, t, H)
            t = (stop - 1) * LANES
            push(K1 + K2, S_ring, old + t, last + t, S, above + t)
            if T is not None:
                push(G1 + G2, T_ring, old + t, last + t, T, above + t)
            if T2 is not None:
                push(H1 + H2, T2_ring, old + t, last + t, T2, above + t)
        if readout is not None:
            read(i, width, larges, gaps, gaps if T2 is None else seconds, readout)
    finish(h, width, S_ring, S)
    if T is not None:
        finish(h, width, T_ring, T)
    if T2 is not None:
        finish(h, width, T2_ring, T2)
