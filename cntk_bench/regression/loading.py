"""Loading a Gram matrix to where it is solved, so that it can be factored."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression import checks, cholesky
from cntk_bench.regression.cholesky import Array, Cholesky, Device
from cntk_bench.text import one_line


@dataclass(frozen=True)
class Loaded:
    """A Gram matrix (n, n), divided by a unit, on the device that solves it.

    factor : the matrix, and room for its factor; nothing is factored yet.
    unit : 1, or a power of four where kernels are near the ends of float32's range.
    mean_diagonal, norm : mean diagonal and 1-norm of the matrix, divided by the unit.
    """

    factor: Cholesky
    unit: float
    mean_diagonal: float
    norm: float


@contextmanager
def loaded(gram: np.ndarray, device: str, dtype: str, overwrite: bool) -> Iterator[Loaded]:
    """Load a matrix; parameters and errors are as for `ridge.solve`.

    Errors of a GPU within this context become UserErrors of one line.
    """
    gram = checks.square(gram)
    with _device_errors(device):
        hardware = Device.named(device)
        factor = Cholesky(_load(gram, hardware.xp, np.dtype(dtype), overwrite), hardware)
        sums = factor.absolute_row_sums()
        checks.require_finite(sums)
        mean_diagonal, norm = checks.mean_diagonal(factor.matrix.diagonal()), float(sums.max())
        unit = _unit(mean_diagonal)
        if unit != 1:
            factor.matrix /= unit
        yield Loaded(factor, unit, mean_diagonal / unit, norm / unit)


def _load(gram: np.ndarray, xp: ModuleType, dtype: np.dtype, overwrite: bool) -> Array:
    """`gram` as a C-ordered device array that may be written to."""
    if xp is np:
        return checks.writable(gram, dtype, overwrite)
    out = xp.empty(gram.shape, dtype)
    for start in range(0, len(gram), cholesky.BLOCK):
        rows = slice(start, start + cholesky.BLOCK)
        out[rows] = xp.asarray(gram[rows])
    return out


def _unit(mean_diagonal: float) -> float:
    """The number to divide a matrix near the ends of float32's range by; else 1.

    It is a power of four, so that the factor is divided by a power of two, and no digit changes.
    """
    exponent = int(np.frexp(mean_diagonal)[1]) // 2 * 2
    return 1.0 if abs(exponent) < 32 else float(np.ldexp(1.0, exponent))


@contextmanager
def _device_errors(device: str) -> Iterator[None]:
    """Turn the errors of a GPU that fails, or is full, into a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if device != "cuda":
            raise
        raise UserError(
            f"the GPU failed in the solve ({one_line(error, 120) or type(error).__name__}): "
            "free its memory, or use --set solve.device=cpu"
        ) from error
