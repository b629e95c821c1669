"""The columns of the table: a name, what its cells need, and how they are filled.

A column may need readouts of a Gram matrix, images, or nothing. It never sees a test label: it returns
predictions, and the caller scores them. Kernel columns are in `kernel`, trained networks in `network`,
baselines in `baseline`. A column that has to be trained first follows the protocol `Trained`, too.

To add a column, write a class that follows `Column` (`column`), and add to `FAMILIES` a function that makes
it from its name, or returns None. Another package registers a column under the entry point group
`cntk_bench.columns`, or such a function under `cntk_bench.column_families`. The settings of a family are a
section of the YAML of its own (`section`).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import Field

from cntk_bench.columns import baseline, kernel, network
from cntk_bench.columns.baseline import Baseline
from cntk_bench.columns.column import Cell, Column, Curve, Inputs, Job, Material, Request, Trained
from cntk_bench.columns.network import Network
from cntk_bench.columns.section import Section
from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import Readout
from cntk_bench.system import plugins
from cntk_bench.text import short

__all__ = ["Cell", "Column", "Curve", "Inputs", "Job", "Material", "Request", "Section", "Sections"]
__all__ += ["Trained", "cells", "decides", "find", "has_depth", "is_foreign", "readouts", "require"]
__all__ += ["section", "section_names", "trained"]

GROUP, FAMILY_GROUP, SECTION_GROUP = (
    f"cntk_bench.{what}" for what in ("columns", "column_families", "sections")
)
NAME = r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,39}"  # of a column, and so of its files
# A function that makes a column from a name, or returns None; and the names that it knows.
Family = tuple[Callable[[str], Column | None], tuple[str, ...]]
FAMILIES: tuple[Family, ...] = (
    (kernel.column, kernel.NAMES),
    (network.column, network.NAMES),
    (baseline.column, baseline.NAMES),
)


class Sections(Section):
    """The sections of the YAML that columns of our own add, each a field."""

    baseline: Baseline = Field(Baseline(), description="a mapping")
    network: Network = Field(Network(), description="a mapping")


def find(name: str) -> Column:
    """Return the column of a name.

    Raises
    ------
    UserError
        If it is unknown; the nearest known one is named.
    """
    for family, _ in FAMILIES:
        found = family(name)
        if found is not None:
            return found
    if name in plugins.names(GROUP) and re.fullmatch(NAME, name):
        return plugins.load(GROUP, name)
    for other in plugins.names(FAMILY_GROUP):
        found = plugins.load(FAMILY_GROUP, other)(name) if re.fullmatch(NAME, name) else None
        if found is not None:
            return found
    raise UserError(f"column {name[:40]!r} is unknown: {_remedy(name)}")


def is_foreign(name: str) -> bool:
    """Whether a column is another package's."""
    return all(family(name) is None for family, _ in FAMILIES)


def has_depth(column: Column) -> bool:
    """Whether a column has a cell for each depth; else it has one cell, of depth None."""
    return getattr(column, "has_depth", True)


def decides(key: str, name: str) -> bool:
    """Whether a key of the YAML, such as solve.ridge, can change a column's cells, images aside.

    If the column's package is not installed, any key of solve or of what columns add may.
    """
    known = tuple(f"{section}." for section in ("solve", *section_names()))
    try:
        keys = getattr(find(name), "keys", known)
        return key.startswith(keys if isinstance(keys, str) else tuple(keys))
    except UserError:
        return key.startswith(known)


def cells(names: Iterable[str], depths: Sequence[int]) -> tuple[tuple[str, int | None], ...]:
    """Return (column, depth) of every cell of a table, column by column."""
    return tuple((name, depth) for name in names for depth in (depths if has_depth(find(name)) else (None,)))


def require(names: Iterable[str], request: Callable[[], Request]) -> None:
    """Raise UserError if a column's cells cannot be filled here; `request` is called only if needed."""
    checks = [found.require for name in names if hasattr(found := find(name), "require")]
    if checks:
        known = request()
        for check in checks:
            check(known)


def trained(name: str) -> Trained | None:
    """Return a column that has to be trained before its cells can be filled; None for any other."""
    column = find(name)
    return column if isinstance(column, Trained) else None


def readouts(cells: Iterable[tuple[str, int | None]]) -> tuple[Readout, ...]:
    """Return the readouts that cells (column, depth) need, each once, in order of first use."""
    return tuple(dict.fromkeys(r for column, depth in cells for r in find(column).needs(depth)))


def section_names() -> tuple[str, ...]:
    """Names of the YAML's sections that columns add."""
    return (*Sections.model_fields, *plugins.names(SECTION_GROUP))


def section(name: str) -> Any:
    """The class of a section that columns add: its keys and their defaults."""
    field = Sections.model_fields.get(name)
    return plugins.load(SECTION_GROUP, name) if field is None else field.annotation


def _remedy(name: str) -> str:
    known = [*(name for _, names in FAMILIES for name in names), *plugins.names(GROUP)]
    asked, flip = name[:100].upper().replace("_", "-"), kernel.FLIP
    head, _, tail = asked.rpartition("-")
    plain = head if get_close_matches(f"-{tail}", [flip], cutoff=0.75) else asked
    generic = re.sub(r"^(FC-.*-B)[\d.]+$", r"\1<b>", re.sub(r"LAP(?!LA).*", "LAP<c>", plain))
    nearest = get_close_matches(generic, known, n=1)
    if not nearest:
        return f"use one of {short(', '.join(known), 200)}; or a kernel followed by {flip}"
    own = any(nearest[0] in names for family, names in FAMILIES if family is kernel.column)
    found = nearest[0] + flip * (plain != asked and own)  # other columns have no such variant
    example = found.replace("<c>", "4").replace("<b>", "0.1")
    return f"did you mean {found}{f', such as {example}' if '<' in found else ''}?"
