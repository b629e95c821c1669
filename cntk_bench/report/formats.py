"""The table as text, Markdown, CSV, JSON and LaTeX; text from outside is escaped for each format."""

import csv
import io
import json
import re
from collections.abc import Callable

from cntk_bench.report.grids import Groups, grids
from cntk_bench.report.latex import floating
from cntk_bench.report.notes import notes, title
from cntk_bench.report.rows import rows
from cntk_bench.text import visible


def text(record: dict) -> str:
    """The table, depth by column, for a terminal; columns without depths below it."""
    tables = [line for groups in grids(record) for line in ["", *_lines(groups)]]
    return "\n".join([title(record), *tables, "", *notes(record)]) + "\n"


def _lines(groups: Groups) -> list[str]:
    blocks = []  # of one group each, as lines of equal length
    for name, columns in groups:
        widths = [max(map(len, [head, *cells])) for head, cells in columns.items()]
        lines = [
            "  ".join(map(str.rjust, line, widths))
            for line in [columns, *zip(*columns.values(), strict=True)]
        ]
        width = max(len(name), len(lines[0]))
        blocks.append([name.center(width), *(line.rjust(width) for line in lines)])
    return ["   ".join(lines).rstrip() for lines in zip(*blocks, strict=True)]


def markdown(record: dict) -> str:
    """The table, depth by column, in GitHub's Markdown; columns without depths below it."""
    lines: list[str] = []
    for groups in grids(record):
        heads: list[str] = []
        columns: list[list[str]] = []
        alone = len(groups) == 1
        lines += ["", f"**{in_markdown(groups[0][0])}**"] if alone else []
        for name, group in groups:
            # Markdown has one line of heads: each names its group too, if there are others.
            heads += [in_markdown(head if alone else f"{name} {head}".strip()) for head in group]
            columns += [list(map(in_markdown, cells)) for cells in group.values()]
        table = [heads, ["---:"] * len(heads), *zip(*columns, strict=True)]
        lines += ["", *("| " + " | ".join(cells) + " |" for cells in table)]
    said = [f"- {in_markdown(note)}" for note in notes(record)]
    return "\n".join([f"**{in_markdown(title(record))}**", *lines, "", *said]) + "\n"


def in_markdown(value: str) -> str:
    """Text with control characters made visible, and with Markdown and HTML escaped."""
    text = re.sub(r"[\\`*_\[\]<>|#&~!$]", _escaped, visible(value))
    return re.sub(r"(?i)(:)(?=//)|(?<=www)(\.)", r"\\\1\2", text)  # or GitHub makes an address a link


def _escaped(found: re.Match) -> str:
    entities = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    character = found[0]
    return entities.get(character, f"\\{character}")


def latex(record: dict, caption: str | None = None, label: str | None = None) -> str:
    """The table, depth by column, as a LaTeX float with booktabs; columns without depths below it.

    Parameters
    ----------
    record : dict
    caption : str, optional
        In LaTeX; by default the title.
    label : str, optional
        By default tab: and the run's name.
    """
    return floating(grids(record), title(record), notes(record), record["name"], caption, label)


def comma_separated(record: dict) -> str:
    """`rows` as CSV with a header."""
    return as_csv(rows(record))


def as_csv(table: list[dict]) -> str:
    """Rows of the same keys as CSV with a header."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in table)
    return file.getvalue()


FORMULAS = tuple("=+-@＝＋－＠")  # some spreadsheets read the wide ones as the narrow ones


def _cell(value: object) -> object:
    """The value of a CSV cell.

    Text that a spreadsheet would take for a formula gets an apostrophe in front; a dash, which stands for
    what a row does not have, becomes empty.
    """
    if isinstance(value, str):
        return "" if value == "-" else f"'{value}" if value.lstrip()[:1] in FORMULAS else value
    return value


def json_text(record: dict) -> str:
    """`rows` as a JSON list of objects."""
    return json.dumps(rows(record), indent=2, allow_nan=False) + "\n"


FORMATS: dict[str, tuple[str, Callable[[dict], str]]] = {  # name: (file suffix, function)
    "text": ("txt", text),
    "markdown": ("md", markdown),
    "csv": ("csv", comma_separated),
    "json": ("json", json_text),
    "latex": ("tex", latex),
}
