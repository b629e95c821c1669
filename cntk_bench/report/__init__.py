"""A record as tables and figures; nothing is computed here but differences.

`rows` collects what is known of each cell, `grids` arranges it in tables, `notes` writes the title above and
the notes below; `formats` write it as text, Markdown, CSV, JSON and `latex`; `depth` and `pooling` draw it.
Every figure is made by a function `figure`, in the common `style`, with the `looks` of columns and the
helpers in `axes`. `confusion`, `misclassified`, `ridges` and `spectrum` draw what is known beyond the record
(`findings`). `page_figures` describes each figure of a solve (`sketch`), for a page and for a paper. `page`
puts it all on one HTML page.
"""

from functools import partial
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.report import depth, formats, pooling, style
from cntk_bench.report.formats import FORMATS
from cntk_bench.report.notes import title
from cntk_bench.report.rows import name_of, rows
from cntk_bench.report.windows import studied
from cntk_bench.system.files import write_atomic, writing
from cntk_bench.text import short

__all__ = ["FORMATS", "name_of", "rows", "table", "write"]


def table(record: dict, format: str = "text", *, caption: str | None = None, label: str | None = None) -> str:
    """The table in one of `FORMATS`, ending in a newline; caption and label are of LaTeX alone.

    Raises
    ------
    UserError
        If nothing has been solved yet, the format is unknown, or caption or label is for another format.
    """
    if format not in FORMATS:
        raise UserError(f"format {short(format)} is unknown: use one of {', '.join(FORMATS)}")
    if format == "latex":
        return formats.latex(record, caption, label)
    if caption is not None or label is not None:
        raise UserError(f"a caption or label is for the format latex, not {format}: leave it out")
    return FORMATS[format][1](record)


def write(record: dict, folder: str | Path) -> None:
    """Write the table in every format (table.txt, .md, .csv, .json, .tex), and accuracy.png and .svg.

    A study of pooling windows has a figure of its own, too (windows.png, .svg).

    Raises
    ------
    UserError
        If nothing has been solved yet or the folder cannot be written.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for suffix, function in FORMATS.values():
        write_atomic(folder / f"table.{suffix}", function(record))
    above = title(record)
    style.save(folder / "accuracy", partial(depth.figure, record, words=(above, depth.note(record))))
    if studied(row["column"] for row in rows(record)):
        style.save(folder / "windows", partial(pooling.figure, record, words=(above, pooling.note(record))))
