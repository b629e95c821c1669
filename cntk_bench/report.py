"""A record as tables and as a plot; nothing is computed here but differences."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

from cntk_bench.errors import UserError, writing
from cntk_bench.published import FINITE, N_TEST, N_TRAIN, VERSION, published

MISSING = "-"
PUBLISHED_ONLY = "published only"


def rows(record: dict) -> list[dict]:
    """One row for each column and depth, in the order of the record.

    Parameters
    ----------
    record : dict
        A record with solutions.

    Returns
    -------
    list of dict
        column : str
        depth : int
        accuracy : float
            Measured test accuracy in percent.
        published : float or None
            Published test accuracy in percent.
        n_train, n_test : int
            Images used.
        ridge : float
            Relative to the mean diagonal of the Gram matrix.

    Raises
    ------
    UserError
        If nothing has been solved yet.
    """
    if not record["solutions"]:
        raise UserError(f"run {record['name']!r} has no accuracies yet: solve it first")
    data = record["data"]
    return [
        {
            "column": solution["column"],
            "depth": solution["depth"],
            "accuracy": solution["accuracy"],
            "published": published(data["name"], solution["column"], solution["depth"]),
            "n_train": data["n_train"],
            "n_test": data["n_test"],
            "ridge": solution["ridge"],
        }
        for solution in record["solutions"]
    ]


def text(record: dict) -> str:
    """The table, depth by column, for a terminal."""
    blocks = []  # of one group each, as lines of equal length
    for title, columns in _grid(record):
        widths = [max(map(len, [head, *cells])) for head, cells in columns.items()]
        lines = [
            "  ".join(map(str.rjust, line, widths))
            for line in [columns, *zip(*columns.values(), strict=True)]
        ]
        width = max(len(title), len(lines[0]))
        blocks.append([title.center(width), *(line.rjust(width) for line in lines)])
    table = ["   ".join(lines).rstrip() for lines in zip(*blocks, strict=True)]
    return "\n".join([_title(record), "", *table, "", *_notes(record)]) + "\n"


def markdown(record: dict) -> str:
    """The table, depth by column, in GitHub's Markdown."""
    heads, columns = [], []
    for title, group in _grid(record):
        # Markdown has one line of heads: each names its group too.
        heads += [f"{title} {head}".strip() for head in group]
        columns += group.values()
    table = [heads, ["---:"] * len(heads), *zip(*columns, strict=True)]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    return (
        "\n".join([f"**{_title(record)}**", "", *lines, "", *(f"- {note}" for note in _notes(record))]) + "\n"
    )


def latex(record: dict) -> str:
    """The table, depth by column, as a LaTeX table that needs no package."""
    groups = _grid(record)
    titles = [rf"\multicolumn{{{len(group)}}}{{c}}{{{title}}}" for title, group in groups]
    heads = [head for _, group in groups for head in group]
    columns = [cells for _, group in groups for cells in group.values()]
    lines = [
        [f"${cell}$" if cell[0] in "+-" else cell for cell in line] for line in zip(*columns, strict=True)
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_escape(' '.join([f'{_title(record)}.', *_notes(record)]))}}}",
            rf"  \begin{{tabular}}{{{'|'.join('r' * len(group) for _, group in groups)}}}",
            *(rf"    {' & '.join(line)} \\" for line in (titles, heads)),
            r"    \hline",
            *(rf"    {' & '.join(line)} \\" for line in lines),
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def comma_separated(record: dict) -> str:
    """`rows` and the difference to the published accuracy, as CSV with a header."""
    table = _with_difference(record)
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return file.getvalue()


def json_text(record: dict) -> str:
    """`rows` as a JSON list of objects."""
    return json.dumps(rows(record), indent=2) + "\n"


FORMATS: dict[str, tuple[str, Callable[[dict], str]]] = {  # name: (file suffix, function)
    "text": ("txt", text),
    "markdown": ("md", markdown),
    "csv": ("csv", comma_separated),
    "json": ("json", json_text),
    "latex": ("tex", latex),
}


def table(record: dict, format: str = "text") -> str:
    """The table in one of `FORMATS`, ending in a newline."""
    if format not in FORMATS:
        raise UserError(f"format {format!r} is unknown: use one of {', '.join(FORMATS)}")
    return FORMATS[format][1](record)


def write(record: dict, folder: str | Path) -> None:
    """Write the table in every format (table.txt, .md, .csv, .json, .tex) and the plot (accuracy.png, .svg).

    Raises
    ------
    UserError
        If nothing has been solved yet or the folder cannot be written.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, function in FORMATS.values():
            (folder / f"table.{suffix}").write_text(function(record), encoding="utf-8")
    plot(record, folder / "accuracy.png")
    plot(record, folder / "accuracy.svg")


def plot(record: dict, path: str | Path) -> None:
    """Accuracy against depth, a line a column; published accuracies dashed.

    Parameters
    ----------
    record : dict
        A record with solutions.
    path : path-like
        A file ending in .png or .svg.

    Raises
    ------
    UserError
        If the file cannot be written or is of another kind.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    if Path(path).suffix not in (".png", ".svg"):
        raise UserError(f"cannot plot to {path}: use a name that ends in .png or .svg")
    table = rows(record)
    n_train, depths = table[0]["n_train"], sorted({row["depth"] for row in table})
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for i, column in enumerate(dict.fromkeys(row["column"] for row in table)):
        cells = sorted((row for row in table if row["column"] == column), key=lambda row: row["depth"])
        style = {"color": _COLOURS[i % len(_COLOURS)], "marker": "osD^vP"[(i + i // 6) % 6]}
        axes.plot(
            [row["depth"] for row in cells],
            [row["accuracy"] for row in cells],
            label=f"{column}, n = {n_train:,}",
            linewidth=2,
            **style,
        )
        known = [row for row in cells if row["published"] is not None]
        if known:
            axes.plot(
                [row["depth"] for row in known],
                [row["published"] for row in known],
                label=f"{column}, n = {N_TRAIN:,}, published",
                linestyle="--",
                markerfacecolor="white",
                linewidth=1.2,
                **style,
            )
    axes.set_xscale("log")  # or the paper's depths 3, 4, 6 crowd together
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("depth (3x3 convolutions + 1)")
    axes.set_ylabel("test accuracy (%)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(_title(record), x=0.01, horizontalalignment="left", fontsize=10)
    if any(row["published"] is not None for row in table):
        note = f"Published: {VERSION}."
        figure.supxlabel(note, x=0.01, horizontalalignment="left", fontsize=7, color="0.35")
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    metadata = {"Date": None} if Path(path).suffix == ".svg" else None
    with writing(path), rc_context({"svg.hashsalt": "cntk-bench"}):  # the same record gives the same file
        figure.savefig(path, metadata=metadata)


# Okabe and Ito's palette: told apart by the colour-blind too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def _with_difference(record: dict) -> list[dict]:
    table = rows(record)
    for row in table:
        known = row["published"] is not None
        row["difference"] = round(row["accuracy"] - row["published"], 2) if known else None
    return table


def _grid(record: dict) -> list[tuple[str, dict[str, list[str]]]]:
    """The table as groups of columns: (title, {head: a cell for each depth}); the first holds the depths."""
    table = {(row["column"], row["depth"]): row for row in _with_difference(record)}
    depths = sorted({depth for _, depth in table})
    keys = {"accuracy": ".2f", "published": ".2f", "difference": "+.2f", "ridge": ".3g"}
    if len({row["ridge"] for row in table.values()}) == 1:
        del keys["ridge"]  # the title says it
    groups = [("", {"depth": [str(depth) for depth in depths]})]
    for column in dict.fromkeys(column for column, _ in table):
        cells = [table.get((column, depth), {}) for depth in depths]
        group = {key: [_cell(cell.get(key), form) for cell in cells] for key, form in keys.items()}
        groups.append((column, {key: shown for key, shown in group.items() if set(shown) != {MISSING}}))
    dataset = record["data"]["name"]
    finite = {name: [_cell(published(dataset, name, depth), ".2f") for depth in depths] for name in FINITE}
    if any(set(shown) != {MISSING} for shown in finite.values()):
        groups.append((PUBLISHED_ONLY, finite))
    return groups


def _cell(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)


def _title(record: dict) -> str:
    data = record["data"]
    title = (
        f"{record['name']}: {data['name']}, {data['n_train']:,} training and {data['n_test']:,} test images, "
        f"preprocess {data['preprocess']}"
    )
    ridges = {solution["ridge"] for solution in record["solutions"]}
    if len(ridges) == 1:
        title += f", ridge {ridges.pop():.3g}"
    tried = max(len(solution.get("path", [])) for solution in record["solutions"])
    return f"{title} (best of {tried} by leave-one-out)" if tried > 1 else title


def _notes(record: dict) -> list[str]:
    """What a reader must know to read the numbers rightly."""
    notes = ["Accuracies in percent; ridge relative to the mean diagonal."]
    data = record["data"]
    if any(row["published"] is not None for row in rows(record)):
        notes.append(f"Published: {VERSION}; difference = accuracy - published.")
        if (data["n_train"], data["n_test"]) != (N_TRAIN, N_TEST):
            notes.append(
                f"Published numbers are for {N_TRAIN:,} training and {N_TEST:,} test images, not for "
                f"the {data['n_train']:,} and {data['n_test']:,} of this run."
            )
    if _grid(record)[-1][0] == PUBLISHED_ONLY:
        notes.append(f"{' and '.join(FINITE)}: trained finite networks, published only, not computed here.")
    jittered = [f"{s['column']} at depth {s['depth']}" for s in record["solutions"] if s.get("jitter")]
    if jittered:
        notes.append(f"The solver had to add jitter to the diagonal of {', '.join(jittered)}.")
    return notes


def _escape(value: str) -> str:
    return re.sub(r"[&%$#_{}]", r"\\\g<0>", value)
