"""Shared by the CPU and CUDA backends for fully connected kernels: input vectors and the readout program.

The recursion (Sigma, Theta, biases, fixed layers) is that of `kernels.fully_connected`. It needs three
numbers per pair, x.z, x.x and z.z, and then a few float64 operations per layer, whatever the number of
features.

**Scale.** A vector is stored as float32 numbers times 2^e, the largest of them in [1/2, 1). So float64 holds
every product exactly and no sum leaves its range. Kernels without bias are homogeneous and are scaled back at
the end; kernels with bias are not, so x.z, x.x and z.z are scaled back first, before beta^2 is added.

**Precision.** Products of float32 numbers are exact in float64. The rounding errors of their sum are added up
beside it (Ogita, Rump and Oishi 2005, Sum2): the result is off by u = 2^-53 times itself and (features u)^2
times the sum of the products' magnitudes. x.x is summed in the same order as x.z, so that c is exactly 1
where x = z. `kernels.fully_connected` says how an error of c affects a kernel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cntk_bench.backends.scaling import require_normal
from cntk_bench.kernels.spec import Spec

NUMERICS = 1  # of all fully connected kernels: raised when their bits change (tests/test_fully_connected.py)
# Smaller exponents count as this: kernels of such dim vectors leave float32's range, but stay above 0.
DIMMEST = -400
SIGMA = -1  # as the state of a read: Sigma itself is read, not Theta


@dataclass(frozen=True)
class Program:
    """What to read from the recursion of a pair, as arrays for a compiled function.

    squares : (g,) float64, beta^2 of each group of readouts, which share one bias.
    groups : (g, 4) int32: first and end of the group's reads, first and end of its states (ends excluded).
    states : (s,) int32: the number of fixed layers of each Theta that is computed.
    reads : (r, 3) int32: depth, readout, and state within the group or SIGMA; depths ascend in a group.
    """

    squares: np.ndarray
    groups: np.ndarray
    states: np.ndarray
    reads: np.ndarray

    @property
    def most_states(self) -> int:
        """The largest number of states of any group, at least 1."""
        return max(1, int((self.groups[:, 3] - self.groups[:, 2]).max()))


def program(spec: Spec) -> Program:
    """The `Program` of plain fully connected readouts, with one group per bias."""
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
    """Images (n, C, P, P) as vectors (n, C P^2), float32, and the factors 2^e to scale by, (n,) float64."""
    flat = images.reshape(len(images), -1)
    largest = np.maximum(flat.max(1), -flat.min(1))
    exponents = np.frexp(largest)[1]  # 0 of 0
    wide = flat.astype(np.promote_types(flat.dtype, np.float64))  # denormal numbers would be cut short
    scales = np.ldexp(1.0, np.maximum(exponents, DIMMEST))
    return np.ldexp(wide, -exponents[:, None]).astype(np.float32), scales


class FullyConnected:
    """Base class of the backends' fully connected kernels; see `cntk_bench.backends.Backend`.

    A subclass has `name`, `source`, and

        prepare(images) -> anything
        _numbers(x, z, symmetric) -> a function that returns (readouts, n, m) float64; with `symmetric` only
        [:, i, j] with i >= j are used
    """

    name: str
    _numbers: Callable[[Any, Any, bool], Callable[[], np.ndarray]]

    def __init__(self, spec: Spec):
        self.spec, self.program = spec, program(spec)

    def tile(self, x: Any, z: Any, symmetric: bool = False) -> np.ndarray:
        """Prepared x (n vectors) and z (m vectors) -> float32 (readouts, n, m)."""
        return self.start(x, z, symmetric)()

    def start(self, x: Any, z: Any, symmetric: bool = False) -> Callable[[], np.ndarray]:
        """Start a tile; the returned function returns it, or raises UserError if float32 cannot hold it."""
        numbers = self._numbers(x, z, symmetric)

        def finish() -> np.ndarray:
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
        """None: no bound is known."""
        return None

    def tile_bytes(self, side: int) -> int:
        """Peak bytes of two sets of vectors, and of a tile in float64, mirrored, and in float32."""
        return 2 * side * 4 * self.spec.features + 20 * len(self.spec.readouts) * side**2
