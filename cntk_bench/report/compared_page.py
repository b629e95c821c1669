"""A comparison as one self-contained HTML page, in the style of a run's (`page`)."""

from collections.abc import Sequence

from cntk_bench.report.compared import listing, makers, shared
from cntk_bench.report.listing import Listing
from cntk_bench.report.page import rendered
from cntk_bench.report.page_tables import Table
from cntk_bench.report.rows import DOUBTED, count

SECTIONS = {
    "results": "Results",
    "paired": "Paired tests",
    "shared": "Shared settings",
    "reproduce": "Reproduce",
}


def html(
    rows: Sequence[dict],
    command: str,
    table: Listing | None = None,
    tests: Listing | None = None,
    title: str = "",
) -> str:
    """The page; the same rows give the same page.

    Parameters
    ----------
    rows : sequence of dict
        As `comparisons.table.rows` has them.
    command : str
        The command that writes the page again.
    table : Listing, optional
        Their table, by default `compared.listing`.
    tests : Listing, optional
        Paired tests (`report.paired.listing`); None where nothing can be paired.
    title : str
        By default the table's.
    """
    table = table or listing(rows)
    there = {"paired": tests is not None}
    return rendered(
        "compared.html",
        {
            "name": title or table.title,
            "summary": _summary(rows),
            "sections": {key: heading for key, heading in SECTIONS.items() if there.get(key, True)},
            "results": _table(table, "Test accuracy in percent"),
            "notes": _notes(table),
            "paired": tests and _table(tests, "Differences on the same test images, in percentage points"),
            "paired_notes": _notes(tests) if tests else [],
            "shared": list(shared(rows).items()),
            "made": makers(rows),
            "command": command,
        },
        "compared.css",
    )


def _summary(rows: Sequence[dict]) -> list[tuple[str, str, str]]:
    """The facts at the head of the page: (name, value, explanation)."""
    solves = {name for row in rows for name in row["runs"]}
    columns = dict.fromkeys(row["column"] for row in rows)
    doubted = sum(not row["trusted"] for row in rows)
    told = "all trusted" if not doubted else f"{doubted} marked {DOUBTED}, not to be trusted"
    names = ", ".join(list(columns)[:4]) + (", ..." if len(columns) > 4 else "")
    return [
        ("solves", count(len(solves)), f"{count(len(rows))} rows, {told}"),
        ("columns", count(len(columns)), names),
    ]


def _table(one: Listing, caption: str) -> Table:
    texts = frozenset(place for place, form in enumerate(one.forms.values()) if form == "s")
    return Table(caption, list(one.forms), one.cells(), text_columns=texts)


def _notes(one: Listing) -> list[tuple[str, bool]]:
    return [(note, note.startswith(DOUBTED)) for note in one.notes]
