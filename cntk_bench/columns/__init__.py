"""The columns of the table, and the readout each stands for: a new column is added here, once."""

import re
from difflib import get_close_matches

from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import Readout

# A column is named KERNEL-POOL. Training is the paper's for each pool (`Readout`'s default).
_KERNELS = {"CNTK": "ntk", "CNN-GP": "nngp"}
_POOLS = {"V": "v", "GAP": "gap"}
_NAMES = [f"{kernel}-{pool}" for kernel in _KERNELS for pool in (*_POOLS, "LAP<c>")]


def readout(column: str, depth: int) -> Readout:
    """The readout that fills one cell of the table.

    Parameters
    ----------
    column : str
        CNTK-V, CNTK-GAP, CNN-GP-V, CNN-GP-GAP, CNTK-LAP<c> or CNN-GP-LAP<c>, where <c> is the
        half-width of the pooling window, such as CNTK-LAP4.
    depth : int
        Number of 3x3 convolutions plus one.

    Returns
    -------
    Readout

    Raises
    ------
    UserError
        If the column is unknown (the nearest known one is named) or the depth is impossible.
    """
    kernel, _, name = column.rpartition("-")
    lap = re.fullmatch(r"LAP(0|[1-9]\d{0,3})", name)
    pool = f"lap:{lap[1]}" if lap else _POOLS.get(name)
    if kernel not in _KERNELS or pool is None:
        raise UserError(f"column {column[:40]!r} is unknown: {_remedy(column)}")
    return Readout(kernel=_KERNELS[kernel], pool=pool, depth=depth)


def _remedy(column: str) -> str:
    generic = re.sub(r"LAP.*", "LAP<c>", column.upper().replace("_", "-"))
    nearest = get_close_matches(generic, _NAMES, n=1)
    if not nearest:
        return f"use one of {', '.join(_NAMES)}"
    example = nearest[0].replace("<c>", "4")
    return f"did you mean {nearest[0]}{f', such as {example}' if '<c>' in nearest[0] else ''}?"
