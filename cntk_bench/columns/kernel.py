"""Kernel columns: a readout of the convolutional recursion, and kernel regression on it."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from cntk_bench import regression
from cntk_bench.columns.column import Cell, Given
from cntk_bench.errors import UserError
from cntk_bench.kernels import pool
from cntk_bench.kernels.spec import Readout

# A column is named KERNEL-POOL. Training is the paper's for each pool (`Readout`'s default).
KERNELS = {"CNTK": "ntk", "CNN-GP": "nngp"}
NAMES = tuple(
    f"{kernel}-{kind.upper()}{'<c>' if pool.KINDS[kind].numbered else ''}"
    for kernel in KERNELS
    for kind in pool.KINDS
)


@dataclass(frozen=True)
class KernelColumn:
    """A kernel and a pool.

    Parameters
    ----------
    name : str
        CNTK-V, CNTK-GAP, CNN-GP-V, CNN-GP-GAP, CNTK-LAP<c> or CNN-GP-LAP<c>, where <c> is the
        half-width of the pooling window, such as CNTK-LAP4.
    kernel, pool : str
        As for `Readout`.
    """

    name: str
    kernel: str
    pool: str

    def needs(self, depth: int | None) -> tuple[Readout, ...]:
        """The readout of a depth (number of 3x3 convolutions plus one); UserError if it is impossible."""
        assert depth is not None  # a kernel column has depths
        return (Readout(self.kernel, self.pool, depth),)

    def fill(self, depth: int | None, given: Given) -> Cell:
        """Solve the regression, and predict."""
        from cntk_bench.regression import normalize, prediction

        (readout,) = self.needs(depth)
        train, test = given.train(readout), given.test(readout)
        more: dict[str, Any] = {}
        if given.how.normalize == "unit_diagonal":
            more["scale"] = normalize.unit_diagonal(train)
            test = normalize.scaled_blocks(test, more["scale"])
        solution = regression.solver(given.how.solver)(
            train,
            given.y_train,
            classes=given.classes,
            ridge=given.how.ridge,
            device=given.device,
            dtype=given.dtype,
            overwrite=True,
        )
        chosen = solution.chosen
        found = prediction.predict(solution.alpha, test, chosen.largest_residual)
        facts = asdict(chosen) | {
            "edge": solution.edge,
            "path": [asdict(fit) for fit in solution.path],
        }
        facts |= {"normalize": given.how.normalize} if more else {}
        arrays = {"alpha": solution.alpha, "ridge": chosen.ridge + chosen.jitter} | more
        return Cell(found.classes, facts, found.undecided, arrays)


def column(name: str) -> KernelColumn | None:
    """The kernel column of a name; None if it is none."""
    kernel, _, rest = name.rpartition("-")
    found = re.fullmatch(r"([A-Z]{1,20})(0|[1-9]\d{0,3})?", rest)
    if kernel not in KERNELS or not found:
        return None
    kind, number = found[1].lower(), found[2]
    try:
        chosen = pool.Pool.parse(kind if number is None else f"{kind}:{number}")
    except UserError:
        return None
    return KernelColumn(name, KERNELS[kernel], str(chosen))
