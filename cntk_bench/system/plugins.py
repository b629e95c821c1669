"""What other packages add: entry points, loaded when they are asked for by name.

A package adds a pool, column, backend, data set, executor or solver by an entry point in its
pyproject.toml, for example

    [project.entry-points."cntk_bench.columns"]
    RBF = "my_package:rbf"
"""

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


@cache
def load(group: str, name: str) -> Any:
    """The object registered under a name.

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
