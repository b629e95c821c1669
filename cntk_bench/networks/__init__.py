"""Finite networks, whose infinite-width limits are the kernels.

`architecture` says what they compute; `training` trains them, step by step, from a `recipe`; `folder` stores
the state and results of training, so that it can resume after an interruption; other modules compute their
empirical kernels. The modules here need PyTorch (extra `[torch]`): call `require` before importing one.
`recipe`, `archive` and `folder` do without it, so that what was trained elsewhere can be read.
"""

from importlib import import_module
from importlib.util import find_spec

from cntk_bench.errors import UserError
from cntk_bench.text import one_line

# Kinds of networks, and their least depths: with "gap" the first and the last layer are not trained.
LEAST_DEPTH = {"v": 2, "gap": 3, "fc": 2}


def require() -> None:
    """Raise UserError, with the remedy, if PyTorch is not installed or cannot be loaded."""
    if find_spec("torch") is None:
        raise UserError("trained networks need PyTorch: pip install 'cntk-bench[torch]'")
    try:
        import_module("torch")
    except Exception as error:  # a library that is missing or of another version raises whatever it likes
        raise UserError(
            f"PyTorch is installed and does not load ({one_line(error, 120)}): "
            "pip install --force-reinstall torch"
        ) from None
