"""What both backends' fully connected kernels have in common: vectors, and the list of what is read.

The recursion (Sigma, Theta, biases, fixed layers) is that of `kernels.fully_connected`. Of a pair it wants
three numbers, x.z, x.x and z.z, and then costs some float64 operations per layer, whatever the number of
features.

**Scale.** A vector is kept as float32 numbers times 2^e, its largest in [1/2, 1). So float64 holds every
product exactly and no sum leaves its range. Kernels without bias are homogeneous and are scaled back at the
end; with bias they are not, and x.z, x.x and z.z are scaled back at the start, before beta^2 is added.

**Precision.** Products of float32 numbers are exact in float64. Their sum is kept with its rounding errors,
which are added up beside it (Ogita, Rump and Oishi 2005, Sum2): the result is off by u = 2^-53 times itself
and (features u)^2 times the sum of the products' sizes. x.x is summed in the same order as x.z, so that c is
exactly 1 where x = z. For what an error of c does to a kernel see `kernels.fully_connected`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cntk_bench.backends.scaling import require_normal
from cntk_bench.kernels.spec import Spec

NUMERICS = 1  # of all fully connected kernels: raised when their bits change (tests/test_fully_connected.py)
# Exponents count as no less: kernels of dimmer vectors are out of float32's range, but never 0 in float64.
DIMMEST = -400
SIGMA = -1  # in the place of a state: Sigma itself is read


@dataclass(frozen=True)
class Program:
    """What is read of a pair, in arrays that a compiled function walks through.

    squares : (g,) float64, beta^2 of each group of readouts.
    groups : (g, 4) int32: its reads first .. last - 1, its states first .. last - 1.
    states : (s,) int32: Theta is run for each, with so many fixed layers.
    reads : (r, 3) int32 of depth, readout and state within the group, or SIGMA; depths ascend.
    """

    squares: np.ndarray
    groups: np.ndarray
    states: np.ndarray
    reads: np.ndarray

    @property
    def most_states(self) -> int:
        """States of a group, at most; at least 1."""
        return max(1, int((self.groups[:, 3] - self.groups[:, 2]).max()))


def program(spec: Spec) -> Program:
    """The program of plain fully connected readouts: a group for each bias."""
    groups: list[tuple[int, ...]] = []
    states: list[int] = []
    reads: list[tuple[int, int, int]] = []
    biases = sorted({readout.bias for readout in spec.readouts})
    for bias in biases:
        chosen = [(r.depth, number, r) for number, r in enumerate(spec.readouts) if r.bias == bias]
        fixed = sorted({r.fixed for _, _, r in chosen if r.kernel == "fc-ntk"})
        rows = [
            (depth, number, fixed.index(r.fixed) if r.kernel == "fc-ntk" else SIGMA)
            for depth, number, r in sorted(chosen, key=lambda one: one[:2])
        ]
        groups.append((len(reads), len(reads) + len(rows), len(states), len(states) + len(fixed)))
        reads += rows
        states += fixed
    return Program(
        np.array(biases) ** 2,
        np.array(groups, np.int32).reshape(-1, 4),
        np.array(states, np.int32),
        np.array(reads, np.int32).reshape(-1, 3),
    )


def vectors(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, C, P, P) as vectors (n, C P^2) float32, and 2^e, (n,) float64, which they are to be
    multiplied by."""
    flat = images.reshape(len(images), -1)
    largest = np.maximum(flat.max(1), -flat.min(1))
    exponents = np.frexp(largest)[1]  # 0 of 0
    wide = flat.astype(np.promote_types(flat.dtype, np.float64))  # denormal numbers would be cut short
    scales = np.ldexp(1.0, np.maximum(exponents, DIMMEST))
    return np.ldexp(wide, -exponents[:, None]).astype(np.float32), scales


class FullyConnected:
    """The rest of a backend, around what computes a tile in float64; see `cntk_bench.backends.Backend`.

    A subclass has `name`, `source`, and

        prepare(images) -> anything
        _numbers(x, z, symmetric) -> a function that gives (readouts, n, m) float64; with `symmetric` only
        [:, i, j] with i >= j count
    """

    numerics = NUMERICS
    name: str
    _numbers: Callable[[Any, Any, bool], Callable[[], np.ndarray]]

    def __init__(self, spec: Spec):
        self.spec, self.program = spec, program(spec)

    def tile(self, x: Any, z: Any, symmetric: bool = False) -> np.ndarray:
        """Prepared x (n vectors) and z (m vectors) -> float32 (readouts, n, m)."""
        return self.start(x, z, symmetric)()

    def start(self, x: Any, z: Any, symmetric: bool = False) -> Callable[[], np.ndarray]:
        """Start a tile; the function returned gives its numbers, or raises UserError where float32 cannot
        hold one."""
        numbers = self._numbers(x, z, symmetric)

        def finish():
            wide = numbers()
            if symmetric:
                wide = np.tril(wide) + np.tril(wide, -1).swapaxes(1, 2)
            out = np.empty(wide.shape, np.float32)
            for plane, kept, readout in zip(wide, out, self.spec.readouts, strict=True):
                require_normal(plane, readout)
                kept[:] = plane
            return out

        return finish

    def limit(self) -> float | None:
        """Not known."""
        return None

    def tile_bytes(self, side: int) -> int:
        """Two sets of vectors, and a tile in float64, mirrored, and in float32."""
        return 2 * side * 4 * self.spec.features + 20 * len(self.spec.readouts) * side**2
