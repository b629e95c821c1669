"""Studies of local average pooling: kernels by the half-width c of the window, c = 0 being none (V).

What Li et al. (2019) published stands beside the measured accuracies whatever the number of images, as long
as data and solver are theirs: the best window can be compared even if accuracies cannot.
"""

import re
from collections.abc import Iterable

from cntk_bench.report.published import Published, elsewhere
from cntk_bench.report.rows import alike, rows

LEAST = 3  # windows of a kernel; one with fewer stands among the columns by depth
Kernels = dict[str, dict[int, str]]  # kernel, such as CNTK-FLIP -> half-width -> column


def studied(columns: Iterable[str]) -> Kernels:
    """The kernels with at least `LEAST` pooling windows among the columns, and these windows, V included."""
    found: Kernels = {}
    for column in columns:
        parts = re.fullmatch(r"(CNTK|CNN-GP)-(?:V|LAP(\d{1,4}))(-FLIP)?", column)
        if parts:
            windows = found.setdefault(parts[1] + (parts[3] or ""), {})
            windows.setdefault(int(parts[2] or 0), column)
    return {kernel: windows for kernel, windows in found.items() if sum(c > 0 for c in windows) >= LEAST}


def beside(record: dict) -> dict[tuple[str, int], Published]:
    """What was published for other numbers of images, for cells (column, depth) of such studies.

    Only for kernels of which at least `LEAST` windows were published. Empty if something was published for
    the same numbers of images: that then stands in the table as for every other column.
    """
    table = rows(record)
    shown = {
        column for windows in studied(r["column"] for r in table).values() for column in windows.values()
    }
    if any(row["column"] in shown and row["published"] is not None for row in table):
        return {}
    found = {}
    for solution in record["solutions"]:
        cell = solution["column"], solution["depth"]
        known = elsewhere(alike(record["data"], solution), *cell) if cell[0] in shown else None
        if known:
            found[cell] = known
    kernels = studied(column for column, _ in found)
    kept = {column for windows in kernels.values() for column in windows.values()}
    return {cell: known for cell, known in found.items() if cell[0] in kept}
