"""Accuracy against depth, as a figure."""

from typing import Any

from cntk_bench.report import looks, networks
from cntk_bench.report.axes import (
    apart,
    cut,
    dress,
    every,
    finish,
    letters,
    mark_doubted,
    percents,
)
from cntk_bench.report.rows import DOUBTED, rows
from cntk_bench.report.style import inches, own_settings

PUBLISHED = "published"
TALLEST = 12.0  # inches


@own_settings()
def figure(record: dict, *, width: float | str = "page", words: tuple[str, str] | None = None) -> Any:
    """Accuracy against depth, a line for each column, with bars of one standard error; published ones hollow.

    A column without depths is a broken level line, with its bar at the right end. If there are fewer than
    two depths, columns stand below each other instead.

    Parameters
    ----------
    record : dict
        A record with solutions.
    width : float or str
        Inches, or a name of `style.WIDTHS`.
    words : (str, str), optional
        Title above, and note below (`notes.title`, `note`); without, they belong in a caption.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    table, size = rows(record), inches(width)
    depths = sorted({row["depth"] for row in table if row["depth"] is not None})
    made = Figure(figsize=(size, 0.36 * size + 0.75), layout="constrained")
    axes = made.add_subplot()
    label = "test accuracy (%)" if words else "test accuracy ± s.e. (%)"
    if len(depths) < 2:
        handles = _below_each_other(made, axes, table)
        axes.set_xlabel(label if not depths else f"{label} at depth {depths[0]}")
        percents(axes.xaxis)
    else:
        handles = _against_depth(axes, table)
        axes.set_xscale("log")  # or the paper's depths 3, 4, 6 crowd together
        ticks = apart(depths, 72 * (0.88 * size - 0.5))
        axes.set_xticks(ticks, [str(depth) for depth in ticks])
        axes.set_xticks([], minor=True)
        dense = any(row["column"].startswith("FC-") for row in table)
        what = "layers of weights" if dense else "3x3 convolutions + 1"  # of a CNTK they are the same
        axes.set_xlabel(f"depth ({what})")
        axes.set_ylabel(label)
        percents(axes.yaxis)
    dress(axes)
    finish(made, [axes], handles, words)
    return made


def note(record: dict) -> str:
    """What a reader must know of the figure: its bars and marks, and where accuracies were published."""
    table = rows(record)
    said = ["Bars: one standard error."]
    if not all(row["trusted"] for row in table):
        said.append(f"{DOUBTED}: not to be trusted.")
    if favoured := networks.favoured(record["solutions"]):
        said.append(favoured)
    sources = dict.fromkeys(row["source"] for row in table if row["source"])
    said += [f"Published (hollow): {source}." for source in sources]
    return " ".join(said)


def _against_depth(axes: Any, table: list[dict]) -> dict[str, Any]:
    """Draw the lines of all columns; returns the legend's entries."""
    handles: dict[str, Any] = {}
    levels = 0
    for column in dict.fromkeys(row["column"] for row in table):
        cells = [row for row in table if row["column"] == column and row["accuracy"] is not None]
        look = looks.of(column)
        level = next((row for row in cells if row["depth"] is None), None)
        if level:
            levels += 1
            handles[column] = _level(axes, level, look, 1 - 0.02 * levels)
        cells = sorted((row for row in cells if row["depth"] is not None), key=lambda row: row["depth"])
        if not cells:
            continue
        handles[column] = axes.errorbar(
            [row["depth"] for row in cells],
            [row["accuracy"] for row in cells],
            _errors(cells),
            label=column,
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            elinewidth=0.8,
        )
        known = [row for row in cells if row["published"] is not None]
        if known:
            axes.plot(
                [row["depth"] for row in known],
                [row["published"] for row in known],
                label=f"{column}, {PUBLISHED}",
                color=look.colour,
                marker=look.marker,
                linestyle="--",
                markerfacecolor="white",
                linewidth=0.8,
                zorder=1.5,
            )
        for row in cells:
            if not row["trusted"]:
                mark_doubted(axes, row["depth"], row["accuracy"])
    return handles | _published(table, "--")


def _errors(cells: list[dict]) -> list[float]:
    """Standard errors; NaN, which draws no bar, where there is none."""
    missing = float("nan")
    return [row["standard_error"] if row["standard_error"] is not None else missing for row in cells]


def _published(table: list[dict], line: Any) -> dict[str, Any]:
    """One entry of the legend for all published accuracies."""
    from matplotlib.lines import Line2D

    if all(row["published"] is None or row["accuracy"] is None for row in table):
        return {}
    return {
        PUBLISHED: Line2D([], [], color="0.35", marker="o", markerfacecolor="white", linestyle=line, lw=0.8)
    }


def _level(axes: Any, row: dict, look: looks.Look, place: float) -> Any:
    """Draw a column without depths across the whole figure, its bar at a place from 0 to 1 along the axis."""
    error, doubt = row["standard_error"] or 0, "" if row["trusted"] else f" {DOUBTED}"
    line = look.line if look.line != "-" else ":"
    axes.plot([place, place], [row["accuracy"] - error, row["accuracy"] + error], color=look.colour,
              marker="_", linewidth=0.8, transform=axes.get_yaxis_transform())  # fmt: skip
    label = f"{row['column']}{doubt}"
    return axes.axhline(row["accuracy"], label=label, color=look.colour, linestyle=line, linewidth=1.2)


def _below_each_other(made: Any, axes: Any, table: list[dict]) -> dict[str, Any]:
    """Draw each column in a line of its own, with its name; returns the legend's entries."""
    cells = [row for row in table if row["accuracy"] is not None]
    width = made.get_figwidth()
    names = cut([row["column"] for row in cells], letters(72 * width * 0.42, 7))
    made.set_figheight(min(TALLEST, 0.55 + 0.2 * max(1, len(cells))))
    for place, row in enumerate(cells):
        look = looks.of(row["column"])
        error = row["standard_error"]
        axes.errorbar(row["accuracy"], place, xerr=error, color=look.colour, marker=look.marker,
                      linestyle="none", elinewidth=0.8, label=row["column"])  # fmt: skip
        if row["published"] is not None:
            axes.plot(row["published"], place, color=look.colour, marker=look.marker, linestyle="none",
                      markerfacecolor="white", label=f"{row['column']}, {PUBLISHED}", zorder=1.5)  # fmt: skip
        if not row["trusted"]:
            mark_doubted(axes, row["accuracy"], place)
    shown = range(0, len(cells), every(len(cells), 72 * (made.get_figheight() - 0.5), 7))
    axes.set_yticks(shown, [names[place] for place in shown])
    axes.set_ylim(len(cells) - 0.4, -0.6)
    return _published(cells, "none")
