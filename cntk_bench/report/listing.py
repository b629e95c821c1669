"""Tables of analyses: rows of numbers under heads, as text, Markdown, CSV or LaTeX."""

from collections.abc import Mapping
from dataclasses import dataclass

from cntk_bench.errors import UserError
from cntk_bench.report.formats import as_csv, in_markdown
from cntk_bench.report.latex import floating, in_parts
from cntk_bench.report.rows import DOUBTED, cell
from cntk_bench.text import short


@dataclass(frozen=True)
class Listing:
    """One table.

    title : a line above it.
    forms : head of each column -> how its numbers are written, such as ".2f"; "s" for text.
    rows : for each row, head -> number, text or None. A text under a head of numbers is written as it is.
    notes : lines below it.
    doubtful : which rows are marked as not to be trusted, by their places.
    marked : head of the column that has the mark; by default the last.
    above : lines between title and table.
    """

    title: str
    forms: Mapping[str, str]
    rows: list[dict]
    notes: tuple[str, ...] = ()
    doubtful: frozenset[int] = frozenset()
    marked: str | None = None
    above: tuple[str, ...] = ()

    def cells(self) -> list[list[str]]:
        """The rows as text; of a doubtful one the cell under `marked` has the mark."""
        lines = []
        place_of_mark = -1 if self.marked is None else list(self.forms).index(self.marked)
        for place, row in enumerate(self.rows):
            line = [
                str(value or "") if form == "s" or isinstance(value, str) else cell(value, form)
                for head, form in self.forms.items()
                for value in [row.get(head)]
            ]
            if place in self.doubtful:
                line[place_of_mark] += DOUBTED
            lines.append(line)
        return lines


def written(listing: Listing, form: str = "text") -> str:
    """A table as "text", "markdown", "csv" or "latex", ending in a newline.

    Raises
    ------
    UserError
        If the format is unknown.
    """
    writers = {"text": _text, "markdown": _markdown, "csv": _csv, "latex": _latex}
    if form not in writers:
        raise UserError(f"format {short(form)} is unknown: use one of {', '.join(writers)}")
    return writers[form](listing)


def _text(listing: Listing) -> str:
    lines = [list(listing.forms), *listing.cells()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(map(str.rjust, line, widths)).rstrip() for line in lines]
    return "\n".join([listing.title, *listing.above, "", *table, "", *listing.notes]).rstrip("\n") + "\n"


def _markdown(listing: Listing) -> str:
    lines = [list(listing.forms), ["---:"] * len(listing.forms), *listing.cells()]
    table = ["| " + " | ".join(in_markdown(text) if i != 1 else text for text in line) + " |"
             for i, line in enumerate(lines)]  # fmt: skip
    said = [f"- {in_markdown(note)}" for note in listing.notes]
    above = [f"- {in_markdown(line)}" for line in listing.above]
    head = [f"**{in_markdown(listing.title)}**", "", *above, *([""] if above else [])]
    return "\n".join([*head, *table, "", *said]) + "\n"


def _csv(listing: Listing) -> str:
    rows = [{head: row.get(head) for head in listing.forms} for row in listing.rows]
    return as_csv([row | {"trusted": i not in listing.doubtful} for i, row in enumerate(rows)])


def _latex(listing: Listing) -> str:
    columns = zip(*listing.cells(), strict=True)
    cells = {head or " ": list(column) for head, column in zip(listing.forms, columns, strict=True)}
    name, _, _ = listing.title.partition(",")
    return floating([in_parts(cells)], listing.title, [*listing.above, *listing.notes], name)
