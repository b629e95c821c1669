"""Accuracy against depth, as a figure that other people's plotting settings do not change."""

import io
import logging
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.files import write_whole
from cntk_bench.report.rows import count, rows, title
from cntk_bench.text import one_line, short

log = logging.getLogger(__name__)

# Okabe and Ito's palette: told apart by the colour-blind too. A column has its colour whatever else is shown.
COLOURS = {
    "CNTK-V": ("#0072B2", "o"),
    "CNTK-GAP": ("#D55E00", "s"),
    "CNN-GP-V": ("#56B4E9", "D"),
    "CNN-GP-GAP": ("#E69F00", "^"),
    "CNN-V": ("#009E73", "v"),
    "CNN-GAP": ("#CC79A7", "P"),
}
SETTINGS = {
    "svg.hashsalt": "cntk-bench",  # the same record gives the same file
    "text.parse_math": False,  # a name may hold dollars
    "font.family": ["DejaVu Sans"],
}


def plot(record: dict, path: str | Path) -> None:
    """Accuracy against depth, one line per column, with bars of one standard error; published ones dashed.

    Where Matplotlib cannot draw, for whatever reason, a warning says so and there is no file.

    Parameters
    ----------
    record : dict
        A record with solutions.
    path : path-like
        A file ending in .png or .svg.

    Raises
    ------
    UserError
        If nothing has been solved yet, or the file cannot be written or is of another kind.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise UserError(f"cannot plot to {short(str(path))}: use a name that ends in .png or .svg")
    table, headline = rows(record), title(record)
    try:
        with _own_settings():
            image = _drawn(table, headline, path.suffix[1:])
    except Exception as error:  # somebody else's program, settings and fonts: the tables do without
        log.warning("no figure %s: %s", path.name, one_line(f"{type(error).__name__}: {error}", 150))
        return
    write_whole(path, image)


@contextmanager
def _own_settings() -> Iterator[None]:
    """Matplotlib with its own defaults and ours; afterwards the user's settings are back."""
    hidden = {name: os.environ.pop(name) for name in ("MPLBACKEND",) if name in os.environ}
    try:
        import matplotlib  # refuses an MPLBACKEND that it does not know
    finally:
        os.environ.update(hidden)
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as letters that the font has not
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def _drawn(table: list[dict], headline: str, kind: str) -> bytes:
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    depths = sorted({row["depth"] for row in table})
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for column in dict.fromkeys(row["column"] for row in table):
        cells = sorted((row for row in table if row["column"] == column), key=lambda row: row["depth"])
        cells = [row for row in cells if row["accuracy"] is not None]
        colour, marker = style(column)
        axes.errorbar(
            [row["depth"] for row in cells],
            [row["accuracy"] for row in cells],
            [row["standard_error"] or 0 for row in cells],
            label=f"{column}, n = {count(table[0]['n_train'])}",
            color=colour,
            marker=marker,
            linewidth=2,
            capsize=3,
        )
        known = [row for row in cells if row["published"] is not None]
        if known:
            axes.plot(
                [row["depth"] for row in known],
                [row["published"] for row in known],
                label=f"{column}, published",
                color=colour,
                marker=marker,
                linestyle="--",
                markerfacecolor="white",
                linewidth=1.2,
            )
        doubted = [row for row in cells if not row["trusted"]]
        for row in doubted:
            axes.annotate("?", (row["depth"], row["accuracy"]), color=colour, fontsize=14)
    axes.set_xscale("log")  # or the paper's depths 3, 4, 6 crowd together
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("depth (3x3 convolutions + 1)")
    axes.set_ylabel("test accuracy (%)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(headline, x=0.01, horizontalalignment="left", fontsize=10)
    said = ["Bars: one standard error."]
    said += [f"Published: {source}." for source in dict.fromkeys(row["source"] for row in table) if source]
    figure.supxlabel(" ".join(said), x=0.01, horizontalalignment="left", fontsize=7, color="0.35")
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def style(column: str) -> tuple[str, str]:
    """Colour and marker of a column, by its name alone."""
    if column in COLOURS:
        return COLOURS[column]
    choices = list(COLOURS.values())
    return choices[zlib.crc32(column.encode()) % len(choices)]
