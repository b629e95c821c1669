"""Tables of analyses: rows of numbers under heads, as text, Markdown, CSV or LaTeX."""

from collections.abc import Mapping
from dataclasses import dataclass

from cntk_bench.errors import UserError
from cntk_bench.report.formats import FORMATS, as_csv, in_latex, in_markdown
from cntk_bench.report.rows import DOUBTED, cell
from cntk_bench.text import short


@dataclass(frozen=True)
class Listing:
    """One table.

    title : a line above it.
    forms : head of each column -> how its numbers are written, such as ".2f"; "s" for text.
    rows : for each row, head -> number, text or None.
    notes : lines below it.
    doubtful : which rows are marked as not to be trusted, by their places.
    """

    title: str
    forms: Mapping[str, str]
    rows: list[dict]
    notes: tuple[str, ...] = ()
    doubtful: frozenset[int] = frozenset()

    def cells(self) -> list[list[str]]:
        """The rows as text; a doubtful one's last cell is marked."""
        lines = []
        for place, row in enumerate(self.rows):
            line = [
                str(row.get(head) or "") if form == "s" else cell(row.get(head), form)
                for head, form in self.forms.items()
            ]
            if place in self.doubtful:
                line[-1] += DOUBTED
            lines.append(line)
        return lines


def written(listing: Listing, form: str = "text") -> str:
    """A table in one of `FORMATS` but json, ending in a newline.

    Raises
    ------
    UserError
        If the format is unknown.
    """
    writers = {"text": _text, "markdown": _markdown, "csv": _csv, "latex": _latex}
    if form not in writers:
        raise UserError(f"format {short(form)} is unknown: use one of {', '.join(FORMATS)}")
    return writers[form](listing)


def _text(listing: Listing) -> str:
    lines = [list(listing.forms), *listing.cells()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(map(str.rjust, line, widths)).rstrip() for line in lines]
    return "\n".join([listing.title, "", *table, "", *listing.notes]).rstrip("\n") + "\n"


def _markdown(listing: Listing) -> str:
    lines = [list(listing.forms), ["---:"] * len(listing.forms), *listing.cells()]
    table = ["| " + " | ".join(in_markdown(text) if i != 1 else text for text in line) + " |"
             for i, line in enumerate(lines)]  # fmt: skip
    said = [f"- {in_markdown(note)}" for note in listing.notes]
    return "\n".join([f"**{in_markdown(listing.title)}**", "", *table, "", *said]) + "\n"


def _csv(listing: Listing) -> str:
    rows = [{head: row.get(head) for head in listing.forms} for row in listing.rows]
    return as_csv([row | {"trusted": i not in listing.doubtful} for i, row in enumerate(rows)])


def _latex(listing: Listing) -> str:
    lines = [list(listing.forms), *listing.cells()]
    table = [" & ".join(in_latex(text) for text in line) + r" \\" for line in lines]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{in_latex(' '.join([f'{listing.title}.', *listing.notes]))}}}",
            rf"  \begin{{tabular}}{{{'r' * len(listing.forms)}}}",
            f"    {table[0]}",
            r"    \hline",
            *(f"    {line}" for line in table[1:]),
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )
