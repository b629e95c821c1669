"""Plugins of other packages: entry points, loaded when they are asked for by name.

A package adds a pool, column, backend, data set, executor or solver by an entry point in its
pyproject.toml, for example

    [project.entry-points."cntk_bench.columns"]
    RBF = "my_package:rbf"
"""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.text import one_line, short


@cache
def _found(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda p: p.name)}


def names(group: str) -> tuple[str, ...]:
    """Names that other packages registered under a group, sorted."""
    return tuple(_found(group))


def require_known(what: str, name: str, known: Sequence[str]) -> None:
    """Raise UserError, with the most similar known name, if a name of the kind `what` is unknown."""
    if name not in known:
        near = get_close_matches(str(name).casefold(), known, n=1, cutoff=0.7)
        remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
        raise UserError(f"{what} {short(name)} is unknown: {remedy}")


@cache
def load(group: str, name: str) -> Any:
    """Load the object registered under a name.

    Raises
    ------
    UserError
        If it cannot be imported.
    """
    point = _found(group)[name]
    try:
        return point.load()
    except Exception as error:
        package = point.dist.name if point.dist else "a package"
        reason = one_line(f"{type(error).__name__}: {error}", 120)
        raise UserError(
            f"{short(name)} of {short(package)} cannot be loaded ({reason}): mend or uninstall that package"
        ) from error
