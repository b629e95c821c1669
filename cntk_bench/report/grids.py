"""The tables of a record, as columns in groups: by depth, by pooling window, and of columns without depths.

A study of pooling windows, such as that of Li et al. 2019, has a column for each window, and beside depths
would be wider than any page: a kernel with several windows has a line for each of them instead.
"""

from cntk_bench.report.published import FINITE, published
from cntk_bench.report.rows import DOUBTED, FORMS, HEADS, MISSING, cell, count, ridge_words, ridges, rows, run
from cntk_bench.report.windows import Kernels, beside, studied

PUBLISHED_ONLY = "published only"
WITHOUT_DEPTHS = "without depths"
CONVOLUTIONAL = ("CNTK-", "CNN-")  # beside whose depths published networks stand: others count otherwise

Groups = list[tuple[str, dict[str, list[str]]]]  # of a table's columns: (title, {head: cells})


def grids(record: dict) -> list[Groups]:
    """The tables: of columns by depth, by pooling window, and of those without depths; at least one."""
    return [found for found in (grid(record), *by_window(record), without_depths(record)) if found]


def grid(record: dict) -> Groups:
    """Depth by column, as groups with a cell for each depth; the first group holds the depths.

    Empty if no column has depths. Columns that `by_window` shows are not among them.
    """
    found = [row for row in rows(record) if row["depth"] is not None]
    others = _columns(studied(row["column"] for row in found))
    table = {(row["column"], row["depth"]): row for row in found if row["column"] not in others}
    if not table:
        return []
    depths = sorted({depth for _, depth in table})
    groups = [("", {"depth": [str(depth) for depth in depths]})]
    alike = len(ridges(table.values())) == 1  # the title says it
    for column in dict.fromkeys(column for column, _ in table):
        cells = [table.get((column, depth), {}) for depth in depths]
        groups.append((column, _group(cells, ("ridge",) if alike else ())))
    of_images = {depth for column, depth in table if column.startswith(CONVOLUTIONAL)}
    finite = {
        name: [_published(record, name, depth) if depth in of_images else MISSING for depth in depths]
        for name in FINITE
    }
    finite = {name: shown for name, shown in finite.items() if name not in dict(groups)}
    if any(set(shown) != {MISSING} for shown in finite.values()):
        groups.append((PUBLISHED_ONLY, finite))
    return groups


def by_window(record: dict) -> list[Groups]:
    """Window by kernel, a table for each depth, the first group of which holds the half-widths c.

    If nothing was published for the same numbers of images, the last groups show what was for others
    (`beside`).
    """
    table = {(row["column"], row["depth"]): row for row in rows(record)}
    kernels, known = studied(column for column, _ in table), beside(record)
    shown = {key: row for key, row in table.items() if key[0] in _columns(kernels)}
    halves = sorted({c for windows in kernels.values() for c in windows})
    without = ("ridge",) if len(ridges(shown.values())) == 1 else ()  # the title says it
    found = []
    for depth in sorted({depth for _, depth in shown}):
        groups = [(f"depth {depth}", {"c": [str(c) for c in halves]})]
        cells = {kernel: [(windows.get(c, ""), depth) for c in halves] for kernel, windows in kernels.items()}
        for kernel, keys in cells.items():
            groups.append((kernel, _group([shown.get(key, {}) for key in keys], without)))
        for sizes in sorted({one.sizes for one in known.values()}):
            there = {key: one.accuracy for key, one in known.items() if one.sizes == sizes}
            heads = {k: [cell(there.get(key), ".2f") for key in keys] for k, keys in cells.items()}
            heads = {kernel: texts for kernel, texts in heads.items() if set(texts) != {MISSING}}
            if heads:
                groups.append((f"published, {' / '.join(map(count, sizes))}", heads))
        found.append(groups)
    return found


def _columns(kernels: Kernels) -> set[str]:
    return {column for windows in kernels.values() for column in windows.values()}


def without_depths(record: dict) -> Groups:
    """The columns that have no depth, a line for each: the same number beside every depth would mislead."""
    cells = [row for row in rows(record) if row["depth"] is None]
    heads = {"column": [row["column"] for row in cells]}
    return [(WITHOUT_DEPTHS, heads | _group(cells))] if cells else []


def _group(cells: list[dict], without: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Cells as text, by head; only heads for which some cell has a value."""
    shown = {HEADS.get(key, key): [cell(c.get(key), form) for c in cells]
             for key, form in FORMS.items() if key not in without}  # fmt: skip
    if "ridge" in shown:
        shown["ridge"] = list(map(ridge_words, cells))
    shown["accuracy"] = [
        text + DOUBTED * (c.get("trusted") is False and text != MISSING)
        for text, c in zip(shown["accuracy"], cells, strict=True)
    ]
    return {head: texts for head, texts in shown.items() if head == "accuracy" or set(texts) != {MISSING}}


def _published(record: dict, column: str, depth: int) -> str:
    known = published(run(record["data"]), column, depth)
    return cell(known.accuracy if known else None, ".2f")
