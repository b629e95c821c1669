"""Libraries that are installed and broken, kept from those that only look for them."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden_if_broken(name: str) -> Iterator[None]:
    """Make a library that cannot be imported look as if it were not installed, while others are imported.

    Zarr, for example, imports CuPy where it is there, and is ready for nothing but its absence; CuPy
    fails with whatever it likes, such as where it cannot make its folder below the home directory.
    """
    hidden = False
    try:
        importlib.import_module(name)
    except ImportError:
        pass
    except Exception:
        hidden = True
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            sys.modules.pop(name, None)
