"""Import of libraries that may be broken, or broken by the user's settings."""

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

from cntk_bench.errors import UserError
from cntk_bench.system import cores
from cntk_bench.text import one_line

_ours = False  # whether the process is the command line's own


def own_process() -> None:
    """Declare that the process is the command line's own: libraries need not follow the user's settings."""
    global _ours
    _ours = True
    cores.drop_impossible()
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):  # their standard ignores relative paths
        if not os.path.isabs(os.environ.get(name, "/")):
            del os.environ[name]


@contextmanager
def hidden_if_broken(name: str) -> Iterator[None]:
    """Make a library whose import fails look as if it were not installed, in this context.

    Zarr, for example, imports CuPy if it is installed, and handles only ImportError; but CuPy may raise
    anything, for example if it cannot make its folder in the home directory.
    """
    hidden = False
    try:
        with _unwarned():
            importlib.import_module(name)
    except ImportError:
        pass
    except (Exception, SystemExit):
        hidden = True
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            sys.modules.pop(name, None)


@contextmanager
def hushed(loggers: Iterable[str], level: int) -> Iterator[None]:
    """Silence some loggers below a level in this context.

    Parameters
    ----------
    loggers : iterable of str
    level : int
        For example `logging.CRITICAL`.
    """
    found = [(logger, logger.level) for logger in map(logging.getLogger, loggers)]
    try:
        for logger, before in found:
            logger.setLevel(max(level, before))
        yield
    finally:
        for logger, before in found:
            logger.setLevel(before)


@contextmanager
def _unwarned() -> Iterator[None]:
    """In a process of our own, suppress warnings while importing a library: users cannot fix their causes."""
    with warnings.catch_warnings():
        if _ours:
            warnings.simplefilter("ignore")
        yield


@contextmanager
def _settings_named(name: str, settings: str) -> Iterator[None]:
    """Turn errors of a library that cannot read its settings into a UserError; an ImportError passes."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # libraries may raise anything
        reason = one_line(f"{type(error).__name__}: {error}", 100)
        raise UserError(f"{name} cannot be imported ({reason}): mend or remove {settings}") from None


def numba() -> None:
    """Import Numba.

    Raises
    ------
    UserError
        If it cannot be imported because of its settings.
    """
    with (
        _settings_named("Numba", ".numba_config.yaml in the current folder, and variables NUMBA_*"),
        _unwarned(),
    ):
        importlib.import_module("numba")


def zarr() -> ModuleType:
    """Import Zarr; in a process of our own with Zarr's defaults, whatever the user's files and variables say.

    Raises
    ------
    UserError
        If it cannot be imported because of its settings.
    """
    if _ours:
        for name in [name for name in os.environ if name.startswith("ZARR_")]:
            del os.environ[name]
    with _settings_named("Zarr", "its settings (~/.config/zarr, ZARR_CONFIG)"), hidden_if_broken("cupy"):
        import zarr
    if _ours:
        zarr.config.refresh(paths=[], env={})
    return zarr
