"""The HTML page of a comparison: its table and, if cells can be paired, its tests."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from cntk_bench.comparisons import pairs
from cntk_bench.comparisons.alike import Alike
from cntk_bench.comparisons.table import rows
from cntk_bench.errors import UserError
from cntk_bench.report import compared_page, paired
from cntk_bench.report.listing import Listing
from cntk_bench.system.files import remove_partial, require_no_link, write_atomic, writing
from cntk_bench.text import visible


def write(
    cells: Sequence[Alike],
    command: Sequence[str],
    folder: Path,
    against: str | None = None,
    table: Listing | None = None,
) -> Path:
    """Write index.html into a folder, which is created if missing; return the file.

    Parameters
    ----------
    cells : sequence of Alike
    command : sequence of str
        The command that compares them, without the program's name.
    folder : Path
    against : str, optional
        As for `pairs.compare`.
    table : Listing, optional
        The table of their rows, if it says more than the default one.

    Raises
    ------
    UserError
        If it cannot be written; or `against` is no column.
    """
    try:
        found = pairs.compare(cells, against)
        tests = paired.listing(found, pairs.count(cells, against))
    except UserError:
        if against is not None:
            raise
        tests = None
    again = shlex.join(["cntk-bench", *map(visible, command), "--output", visible(folder)])
    text = compared_page.html(rows(cells), again, table, tests)
    require_no_link(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove_partial(folder)
    write_atomic(folder / "index.html", text)
    return folder / "index.html"
