"""The columns of the table: a name, what its cells need, and how they are filled.

A column may need readouts of a Gram matrix, images, or nothing. It never sees a test label: it gives
predictions, and whoever asked scores them. Kernel columns are in `kernel`, trained networks in `network`;
what has to be trained first says so by following `Trained`, too.

To add a column, write a class that follows `Column` (`column`), and put what makes it from a name into
`FAMILIES`, or register the column from another package under the entry point group `cntk_bench.columns`.
What a family lets the user set is a section of the YAML of its own (`section`).
"""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import Field

from cntk_bench.columns import kernel, network
from cntk_bench.columns.column import Cell, Column, Curve, Given, Job, Material, Trained
from cntk_bench.columns.network import Network
from cntk_bench.columns.section import Section
from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import Readout
from cntk_bench.system import plugins
from cntk_bench.text import short

__all__ = [
    "Cell",
    "Column",
    "Curve",
    "Given",
    "Job",
    "Material",
    "Section",
    "Sections",
    "Trained",
    "find",
    "readouts",
    "section",
    "section_names",
    "trained",
]

GROUP, SECTION_GROUP = "cntk_bench.columns", "cntk_bench.sections"
# What makes a column from a name, or None; and the names that they know.
Family = tuple[Callable[[str], Column | None], tuple[str, ...]]
FAMILIES: tuple[Family, ...] = ((kernel.column, kernel.NAMES), (network.column, network.NAMES))


class Sections(Section):
    """The sections of the YAML that columns of our own add, each a field."""

    network: Network = Field(Network(), description="a mapping")


def find(name: str) -> Column:
    """The column of a name.

    Raises
    ------
    UserError
        If it is unknown; the nearest known one is named.
    """
    for family, _ in FAMILIES:
        found = family(name)
        if found is not None:
            return found
    if name in plugins.names(GROUP):
        return plugins.load(GROUP, name)
    raise UserError(f"column {name[:40]!r} is unknown: {_remedy(name)}")


def trained(name: str) -> Trained | None:
    """The column of a name, where it has to be trained before its cells can be filled; else None."""
    column = find(name)
    return column if isinstance(column, Trained) else None


def readouts(cells: Iterable[tuple[str, int]]) -> tuple[Readout, ...]:
    """The readouts that cells, (column, depth), need; each once, in order of first use."""
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
    generic = re.sub(r"LAP.*", "LAP<c>", name[:100].upper().replace("_", "-"))
    nearest = get_close_matches(generic, known, n=1)
    if not nearest:
        return f"use one of {short(', '.join(known), 200)}"
    example = nearest[0].replace("<c>", "4")
    return f"did you mean {nearest[0]}{f', such as {example}' if '<c>' in nearest[0] else ''}?"
