"""The activation of the CPU's recursion: k0 and K from S and n - S of an entry, for LANES pairs at once.

Symbols follow `cntk_bench.kernels.convolutional`. With D = gap + (1 + B) S, gap = n - S, y = gap / D,
s = sqrt(y), and polynomials p and q (scripts/fit_polynomials.py),

    t = arccos(c) = s p(y),    k0 = 1 - t / pi,    n k1 = S + gap s q(y) / pi

s is computed without a division: with r near 1 / sqrt(gap D) and e = 1 - gap r D r, s = gap r / sqrt(1 - e),
where 1 / sqrt(1 - e) is a polynomial, too.
"""

from typing import Any

import numpy as np
from numba import njit

from cntk_bench.backends.cpu.lanes import (
    filled,
    fma,
    fnma,
    greater,
    narrow,
    reciprocal_root,
    spread,
)  # fmt: skip

inlined = njit(forceinline=True, error_model="numpy")

P = [1.62480768, -8.12393786e-2, 2.96673147e-2, -3.83182169e-3, 1.39239683e-3]
Q = [1.08320303, -1.01786627e-1, 2.22539390e-2, -4.39087328e-3, 7.20743692e-4]
R = [1.0, 0.49999843, 0.37498515, 0.31388784, 0.27858388]
B1, NINTH = 1.32, 1 / 9  # B1 = 1 + B
LEAST = 2.0**-120  # gap D counts as no less
SNAP = np.sqrt(1.4e-7)  # a smaller s counts as 0
# K, k0 and G are kept divided by 9, as the sums over neighbours need them. Compiled functions take the
# constants as an argument: LLVM would read those that it knows from memory again at every use, by addresses
# that take as many instructions as the work itself.
CONSTANTS = np.array([*np.divide([P, Q], 9 * np.pi).ravel(), *R, B1, NINTH, LEAST, SNAP, 0], np.float32)


@inlined
def five(a: np.ndarray, first: int) -> tuple:
    """Five consecutive numbers of an array, each as a vector that has it in every lane."""
    one, two, three = spread(a, first), spread(a, first + 1), spread(a, first + 2)
    return one, two, three, spread(a, first + 3), spread(a, first + 4)


@inlined
def held(constants: np.ndarray) -> tuple:
    """CONSTANTS in registers: p, q, r; B1, 1 / 9, LEAST, SNAP, 0."""
    return five(constants, 0), five(constants, 5), five(constants, 10), five(constants, 15)


@inlined
def polynomial(x: Any, a: tuple) -> Any:
    """a[0] + a[1] x + ... + a[4] x^4 of float32 vectors."""
    return fma(x, fma(x, fma(x, fma(x, a[4], a[3]), a[2]), a[1]), a[0])


@inlined
def root_of_ratio(gap: Any, S: Any, least: Any, numbers: tuple) -> Any:
    """sqrt(gap / D) of float32 vectors, 0 where it is not above `least`."""
    _, _, r, (B1, _, tiny, _, zero) = numbers
    D = fma(B1, S, gap)
    a = gap * D
    root = reciprocal_root(greater(a, tiny, a, tiny))
    rough = gap * root
    s = rough * polynomial(fnma(rough, D * root, r[0]), r)
    return greater(s, least, s, zero)


@inlined
def k0_and_gain(gap: Any, s: Any, numbers: tuple) -> tuple[Any, Any]:
    """k0 / 9 and (n k1 - S) / 9, of S >= 0."""
    p, q, _, (_, ninth, _, _, _) = numbers
    y = s * s
    return fnma(s, polynomial(y, p), ninth), (gap * s) * polynomial(y, q)


@inlined
def with_sign(S: Any, k0: Any, K: Any, K32: Any, numbers: tuple) -> tuple[Any, Any, Any]:
    """k0 / 9, K, and K in float32, from those of |S|.

    Where S < 0, k0(c) = 1 - k0(-c) and k1(c) = k1(-c) + c.
    """
    _, _, _, (_, ninth, _, _, zero) = numbers
    small = narrow(S)
    turned = fma(S, filled(1 / 9, S), K)
    k0 = greater(zero, small, ninth - k0, k0)
    return k0, greater(filled(0.0, S), S, turned, K), greater(zero, small, fma(small, ninth, K32), K32)
