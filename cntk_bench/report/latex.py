"""Tables in LaTeX with booktabs: caption, label and notes apart, so that a paper can change each.

LaTeX does not break floats: what is too long for a page continues in another float of the same number.
"""

import re
from collections.abc import Sequence
from math import ceil

from cntk_bench.errors import UserError
from cntk_bench.report.grids import Groups
from cntk_bench.report.rows import MISSING
from cntk_bench.text import short, visible

MANY = 7  # columns; more are set smaller and closer
MOST = 11  # columns beside each other; further groups stand below, the first one repeated
LINE = 345.0  # points of a line of LaTeX's article
LETTER, GAP = 4.2, 6.0  # points of a letter, and between columns, of small tables
LONG = 24  # letters of a text; a longer one is set on several lines
PAGE, HEAD = 36, 3  # lines of tables in one float, which leave a page room for notes; and of a table's head
WAITING = 15  # floats that may wait for a page: LaTeX has room for 18 at least
PREAMBLE = r"% \usepackage{booktabs}"
OTHER_LETTERS = "% Some of its letters need LuaLaTeX or XeLaTeX, and a font that has them."


def floating(
    tables: Sequence[Groups],
    title: str,
    notes: Sequence[str],
    name: str,
    caption: str | None = None,
    label: str | None = None,
) -> str:
    """Tables as one float, or as several where they are too long for a page.

    Parameters
    ----------
    tables : sequence of Groups
        Each a list of (title, {head: cells}).
    title : str
        Plain text, the caption if there is no other.
    notes : sequence of str
        Plain text; they stand in small print below.
    name : str
        Text from which the label is made, if no other is given.
    caption : str, optional
        In LaTeX, taken as it is.
    label : str, optional

    Raises
    ------
    UserError
        If the label has other characters than letters, digits and ``:._-``.
    """
    if label is not None and not re.fullmatch(r"[A-Za-z0-9:._-]{1,200}", label):
        raise UserError(f"label {short(label)}: use letters, digits and :._- alone, such as tab:accuracy")
    said = in_latex(title) + "." if caption is None else caption
    tables = [part for groups in tables for part in _parts(groups)]
    small = [r"  \footnotesize", r"  \setlength{\tabcolsep}{3pt}"]
    wide = any(sum(len(one) for _, one in groups) > MANY or _points(groups) > 0.8 * LINE for groups in tables)
    below = [
        r"  \par\smallskip",
        r"  \begin{minipage}{\linewidth}",
        r"    \footnotesize",
        *(f"    {in_latex(note)}" for note in notes),
        r"  \end{minipage}",
    ]
    first = [rf"  \caption{{{said}}}", rf"  \label{{{label or f'tab:{_slug(name)}'}}}"]
    further = [r"  \addtocounter{table}{-1}", r"  \caption{(continued)}"]
    pages = _pages(tables)
    floats = [
        [
            *([r"\clearpage"] if number and number % WAITING == 0 else []),
            r"\begin{table}[tbp]",
            r"  \centering",
            *(further if number else first),
            r"  \smallskip",
            *(small if wide else []),
            "\n  \\par\\medskip\n".join(_tabular(groups, lines) for groups, lines in page),
            *(below if notes and page is pages[-1] else []),
            r"\end{table}",
        ]
        for number, page in enumerate(pages)
    ]
    text = "\n\n".join(map("\n".join, floats))
    # pdfLaTeX sets these without further packages, but not, say, a true minus in a caller's own caption.
    strange = any(ord(letter) > 0x17F and letter not in "–—‘’“”…" for letter in text)
    return "\n".join([PREAMBLE, *([OTHER_LETTERS] if strange else []), text, ""])


def _parts(groups: Groups) -> list[Groups]:
    """Split a table that no page is wide enough for into several."""
    first, *others = groups
    parts: list[Groups] = [[first]]
    for name, group in others:
        together = [*parts[-1], (name, group)]
        if len(parts[-1]) > 1 and (sum(len(one) for _, one in together) > MOST or _points(together) > LINE):
            parts.append([first])
        parts[-1].append((name, group))
    return parts


def _pages(tables: Sequence[Groups]) -> list[list[tuple[Groups, slice]]]:
    """Which rows of which tables stand together in a float of at most `PAGE` lines."""
    pages: list[list[tuple[Groups, slice]]] = [[]]
    used = 0
    for groups in tables:
        begin = 0
        heights = [
            max(1, *(ceil(len(cell) / LONG) for cell in line)) for line in zip(*_columns(groups), strict=True)
        ]
        if pages[-1] and used + HEAD + sum(heights) > PAGE:
            pages.append([])
            used = 0
        used += HEAD
        for row, height in enumerate(heights):
            if row > begin and used + height > PAGE:
                pages[-1].append((groups, slice(begin, row)))
                pages.append([])
                begin, used = row, HEAD
            used += height
        pages[-1].append((groups, slice(begin, len(heights))))
    return pages


def in_parts(cells: dict[str, list[str]]) -> Groups:
    """The columns of a table as groups, so that `floating` can take it apart if it is too wide.

    Its parts then stand below each other, each with the numbers of the rows.
    """
    whole: Groups = [("", cells)]
    if _points(whole) <= LINE:
        return whole
    count = max(map(len, cells.values()))
    numbers = {"row": [str(row) for row in range(1, count + 1)]}
    return [("", numbers), *(("", {head: column}) for head, column in cells.items())]


def _points(groups: Groups) -> float:
    """Approximate width of a small table, in points."""
    columns = [[head, *cells] for _, group in groups for head, cells in group.items()]
    return sum(min(LONG, max(map(len, texts))) * LETTER + GAP for texts in columns)


def _aligned(cells: Sequence[str]) -> str:
    """How a column is set: numbers to the right, texts to the left, long ones on several lines."""
    if all(map(_is_number, cells)):
        return "r"
    return f"p{{{LONG * LETTER:.0f}pt}}" if max(map(len, cells)) > LONG else "l"


def _columns(groups: Groups) -> list[list[str]]:
    return [cells for _, group in groups for cells in group.values()]


def _tabular(groups: Groups, rows: slice) -> str:
    names, rules, place = [], [], 1
    for name, group in groups:
        end = place + len(group) - 1
        names.append(
            rf"\multicolumn{{{len(group)}}}{{c}}{{{in_latex(name)}}}" if name else "&" * (len(group) - 1)
        )
        rules += [rf"\cmidrule(lr){{{place}-{end}}}"] if name else []
        place = end + 1
    heads = [in_latex(head) for _, group in groups for head in group]
    columns = _columns(groups)
    aligned = list(map(_aligned, columns))
    ragged = [how.startswith("p") for how in aligned]
    lines = [
        [r"\raggedright " * several + _cell(cell) for cell, several in zip(line, ragged, strict=True)]
        for line in list(zip(*columns, strict=True))[rows]
    ]
    row_end = r"\tabularnewline" if any(ragged) else r"\\"  # which \raggedright changes
    top = [f"    {' & '.join(names)} \\\\", f"    {' '.join(rules)}"] if rules else []
    return "\n".join(
        [
            rf"  \begin{{tabular}}{{@{{}}{''.join(aligned)}@{{}}}}",
            r"    \toprule",
            *top,
            rf"    {' & '.join(heads)} \\",
            r"    \midrule",
            *(f"    {' & '.join(line)} {row_end}" for line in lines),
            r"    \bottomrule",
            r"  \end{tabular}",
        ]
    )


def _is_number(cell: str) -> bool:
    return not re.search(r"[A-Za-z]{2}", cell)


def _cell(cell: str) -> str:
    """A number with a true minus, a dash for what is missing, anything else as text."""
    if cell == MISSING:
        return "--"
    return f"${cell}$" if re.fullmatch(r"[+-][\d.,]+", cell) else in_latex(cell).replace("+-{}", r"$\pm$")


def _slug(text: str) -> str:
    found = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80].strip("-")
    return found or "table"


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\ttfamily\char34}",
    "`": r"\textasciigrave{}",
    "'": "{'}",
    "[": "{[}",  # else it would be an argument of the \\ before it
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "→": r"$\to$",
}


def in_latex(value: str) -> str:
    """Text with control characters made visible, and with LaTeX escaped."""
    text = re.sub(
        r"[\\^~<>|\"`'\[\]*±→&%$#_{}]", lambda found: _SPECIAL.get(found[0], f"\\{found[0]}"), visible(value)
    )
    return re.sub(r"-(?=-)|(?<=\+)-", "-{}", text)  # two would become a dash
