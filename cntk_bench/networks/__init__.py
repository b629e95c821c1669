"""Finite networks: those whose infinite-width limits the kernels are.

`architecture` says what they compute; `training` trains them, step by step, from a `recipe`; `folder` keeps
what training leaves, so that it goes on after an interruption; other modules take their empirical kernels.
Modules of this room need PyTorch (extra `[torch]`): call `require` before importing one. `recipe`, `archive`
and `folder` do without it: they also serve those who only read what was trained elsewhere.
"""

from importlib import import_module
from importlib.util import find_spec

from cntk_bench.errors import UserError
from cntk_bench.text import one_line

# Kinds of networks, and their least depths: with "gap" the first and the last layer are not trained.
LEAST_DEPTH = {"v": 2, "gap": 3, "fc": 2}


def require() -> None:
    """UserError, with the remedy, where PyTorch is not installed, or cannot be loaded."""
    if find_spec("torch") is None:
        raise UserError("trained networks need PyTorch: pip install 'cntk-bench[torch]'")
    try:
        import_module("torch")
    except Exception as error:  # a library that is missing or of another version raises whatever it likes
        raise UserError(
            f"PyTorch is installed and does not load ({one_line(error, 120)}): "
            "pip install --force-reinstall torch"
        ) from None
