"""Finite networks: those whose infinite-width limits the kernels are.

`architecture` says what they compute; the other modules train them, and take their empirical kernels.
Modules of this room need PyTorch (extra `[torch]`): call `require` before importing one.
"""

from importlib.util import find_spec

from cntk_bench.errors import UserError


def require() -> None:
    """UserError, with the remedy, where PyTorch is not installed."""
    if find_spec("torch") is None:
        raise UserError("trained networks need PyTorch: pip install 'cntk-bench[torch]'")
