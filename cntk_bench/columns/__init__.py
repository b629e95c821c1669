"""The columns of the table: a name, what its cells need, and how they are filled.

A column may need readouts of a Gram matrix, images, or nothing. It never sees a test label: it gives
predictions, and whoever asked scores them. Kernel columns are in `kernel`.

To add a column, write a class that follows `Column` (`column`), and put what makes it from a name into
`FAMILIES`, or register the column from another package under the entry point group `cntk_bench.columns`.
What a family lets the user set is a section of the YAML of its own (`section`).
"""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from cntk_bench.columns import kernel
from cntk_bench.columns.column import Cell, Column, Given
from cntk_bench.columns.section import Section
from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import Readout
from cntk_bench.system import plugins
from cntk_bench.text import short

__all__ = ["Cell", "Column", "Given", "Section", "Sections", "find", "readouts", "section", "section_names"]

GROUP, SECTION_GROUP = "cntk_bench.columns", "cntk_bench.sections"
# What makes a column from a name, or None; and the names that they know.
Family = tuple[Callable[[str], Column | None], tuple[str, ...]]
FAMILIES: tuple[Family, ...] = ((kernel.column, kernel.NAMES),)


class Sections(Section):
    """The sections of the YAML that columns of our own add, each a field."""


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
    asked, flip = name[:100].upper().replace("_", "-"), kernel.FLIP
    head, _, tail = asked.rpartition("-")
    plain = head if get_close_matches(f"-{tail}", [flip], cutoff=0.75) else asked
    generic = re.sub(r"^(FC-.*-B)[\d.]+$", r"\1<b>", re.sub(r"LAP.*", "LAP<c>", plain))
    nearest = get_close_matches(generic, known, n=1)
    if not nearest:
        return f"use one of {short(', '.join(known), 200)}; or a kernel followed by {flip}"
    found = nearest[0] + flip * (plain != asked)
    example = found.replace("<c>", "4").replace("<b>", "0.1")
    return f"did you mean {found}{f', such as {example}' if '<' in found else ''}?"
