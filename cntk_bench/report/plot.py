"""Accuracy against depth, as a figure that other people's plotting settings do not change."""

import io
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from math import log as ln
from pathlib import Path
from types import ModuleType
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.report.notes import title
from cntk_bench.report.rows import DOUBTED, count, rows
from cntk_bench.report.style import Style, style
from cntk_bench.system.files import write_whole
from cntk_bench.text import one_line, short

log = logging.getLogger(__name__)

SETTINGS = {
    "svg.hashsalt": "cntk-bench",  # the same record gives the same file
    "text.parse_math": False,  # a name may hold dollars
    "font.family": ["DejaVu Sans"],
}
KINDS = (".png", ".svg", ".pdf")
UNDATED = {"svg": "Date", "pdf": "CreationDate"}  # the metadata that would differ between equal figures
VARIABLES = ("MPLBACKEND", "MPLCONFIGDIR", "MATPLOTLIBRC")


def plot(record: dict, path: str | Path) -> bool:
    """Accuracy against depth, one line per column, with bars of one standard error; published ones dashed.

    A column without depths is a broken level line, its band one standard error to either side.

    Where Matplotlib cannot draw, for whatever reason, a warning says so and there is no file.

    Parameters
    ----------
    record : dict
        A record with solutions.
    path : path-like
        A file ending in .png, .svg or .pdf.

    Returns
    -------
    bool
        Whether there is a figure.

    Raises
    ------
    UserError
        If nothing has been solved yet, or the file cannot be written or is of another kind.
    """
    table, headline = rows(record), title(record)
    return save(path, lambda kind: _drawn(table, headline, kind))


def save(path: str | Path, draw: Callable[[str], bytes]) -> bool:
    """Write a figure, drawn with our own settings; where Matplotlib cannot, warn, and write nothing.

    Parameters
    ----------
    path : path-like
        A file ending in .png, .svg or .pdf.
    draw : callable
        Given "png", "svg" or "pdf", returns the file's bytes (`image`).

    Returns
    -------
    bool
        Whether there is a figure.

    Raises
    ------
    UserError
        If the file cannot be written or is of another kind.
    """
    path = Path(path)
    if path.suffix not in KINDS:
        raise UserError(f"cannot plot to {short(str(path))}: use a name that ends in {', '.join(KINDS)}")
    try:
        with _own_settings():
            image = draw(path.suffix[1:])
    except Exception as error:  # somebody else's program, settings and fonts: the tables do without
        reason = one_line(f"{type(error).__name__}: {error}", 150)
        log.warning("no figure %s, Matplotlib cannot draw: %s", short(path.name), reason)
        return False
    write_whole(path, image)
    return True


@contextmanager
def _own_settings() -> Iterator[None]:
    """Matplotlib with its own defaults and ours; afterwards everything is as the user had it."""
    variables = {name: os.environ.get(name) for name in VARIABLES}  # Matplotlib sets one when it is imported
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what it says of settings that are not used
    try:
        matplotlib = _matplotlib()
        defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as letters that the font has not, or settings that retire
            with matplotlib.rc_context(defaults | SETTINGS):
                yield
    finally:
        logger.setLevel(level)
        for name, value in variables.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _matplotlib() -> ModuleType:
    """Import Matplotlib, as the user's settings want it; without them where they prevent it."""
    named = Path(os.environ.get("MATPLOTLIBRC") or ".")
    theirs = [Path("matplotlibrc"), named, named / "matplotlibrc"]
    # Reading a pipe might never end.
    readable = all(not path.exists() or path.is_file() or path.is_dir() for path in theirs)
    if readable or "matplotlib" in sys.modules:
        with suppress(OSError, ValueError):
            import matplotlib

            return matplotlib
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        del sys.modules[name]  # what the import that failed has left
    for name in VARIABLES:
        os.environ.pop(name, None)
    os.environ["MPLCONFIGDIR"] = os.devnull  # no folder: Matplotlib makes an empty one
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir("/")  # the file matplotlibrc of the current directory comes before all others
        import matplotlib
    finally:
        os.fchdir(here)
        os.close(here)
    return matplotlib


def _drawn(table: list[dict], headline: str, kind: str) -> bytes:
    from matplotlib.artist import Artist
    from matplotlib.container import Container
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    depths = sorted({row["depth"] for row in table if row["depth"] is not None})
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    drawn: list[Artist | Container] = []  # in the order of the legend
    for column in dict.fromkeys(row["column"] for row in table):
        cells = [row for row in table if row["column"] == column and row["accuracy"] is not None]
        look = style(column)
        level = next((row for row in cells if row["depth"] is None), None)
        if level:
            drawn.append(_level(axes, level, look))
        cells = sorted((row for row in cells if row["depth"] is not None), key=lambda row: row["depth"])
        if not cells:
            continue
        drawn.append(
            axes.errorbar(
                [row["depth"] for row in cells],
                [row["accuracy"] for row in cells],
                [row["standard_error"] or 0 for row in cells],
                label=f"{column}, n = {count(table[0]['n_train'])}",
                color=look.colour,
                marker=look.marker,
                linestyle=look.line,
                linewidth=2,
                elinewidth=1,
                capsize=3,
            )
        )
        known = [row for row in cells if row["published"] is not None]
        if known:
            drawn += axes.plot(
                [row["depth"] for row in known],
                [row["published"] for row in known],
                label=f"{column}, published",
                color=look.colour,
                marker=look.marker,
                linestyle="--",
                markerfacecolor="white",
                linewidth=1.2,
            )
        for row in cells:
            if not row["trusted"]:
                mark_doubted(axes, row["depth"], row["accuracy"])
    axes.set_xscale("log" if depths else "linear")  # or the paper's depths 3, 4, 6 crowd together
    ticks = _apart(depths)
    axes.set_xticks(ticks, [str(depth) for depth in ticks])
    axes.set_xticks([], minor=True)
    dense = any(row["column"].startswith("FC-") for row in table)
    what = "layers of weights" if dense else "3x3 convolutions + 1"  # of a CNTK they are the same
    axes.set_xlabel(f"depth ({what})" if depths else "")
    axes.set_ylabel("test accuracy (%)")
    dress(axes)
    said = ["Bars: one standard error."]
    if not all(row["trusted"] for row in table):
        said.append(f"{DOUBTED}: not to be trusted.")
    said += [f"Published: {source}." for source in dict.fromkeys(row["source"] for row in table) if source]
    write_around(figure, headline, " ".join(said))
    figure.legend(handles=drawn, loc="outside right center", frameon=False, fontsize=9)
    return image(figure, kind)


def image(figure: Any, kind: str) -> bytes:
    """A Matplotlib figure as the bytes of a file without a date: the same figure gives the same file."""
    file = io.BytesIO()
    figure.savefig(file, format=kind, metadata={UNDATED[kind]: None} if kind in UNDATED else None)
    return file.getvalue()


def _level(axes: Any, row: dict, look: Style) -> Any:
    """Draw a column without depths across the whole figure."""
    error, doubt = row["standard_error"] or 0, "" if row["trusted"] else f" {DOUBTED}"
    low, high = row["accuracy"] - error, row["accuracy"] + error
    axes.axhspan(low, high, color=look.colour, alpha=0.08, linewidth=0)
    label = f"{row['column']}, n = {count(row['n_train'])}{doubt}"
    line = look.line if look.line != "-" else ":"
    return axes.axhline(row["accuracy"], label=label, color=look.colour, linestyle=line, linewidth=1.6)


def mark_doubted(axes: Any, x: float, y: float) -> None:
    """The mark beside a point that is not to be trusted."""
    axes.annotate(DOUBTED, (x, y), (7, 7), textcoords="offset points", fontsize=14, weight="bold")


def one_legend(figure: Any, panels: Iterable[Any], place: str) -> None:
    """A legend of several panels, outside them, in which each label stands once."""
    handles = {label: handle for axes in panels
               for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}  # fmt: skip
    figure.legend(handles.values(), handles, loc=place, frameon=False, fontsize=9)


def dress(axes: Any) -> None:
    """The look that the axes of all figures have."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def plain_ticks(axis: Any) -> None:
    """Numbers such as 0.01 and 1e+06 at a logarithmic axis' ticks: mathematics is not set (`SETTINGS`)."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def write_around(figure: Any, headline: str, note: str) -> None:
    """A title above a figure and a note below, on as many lines as they need."""
    headline = textwrap.fill(headline, 100 if headline.isascii() else 60)
    figure.suptitle(headline, x=0.01, horizontalalignment="left", fontsize=10)
    note = textwrap.fill(note, 150)
    figure.supxlabel(note, x=0.01, horizontalalignment="left", fontsize=7, color="0.35")


def _apart(depths: list[int]) -> list[int]:
    """The depths that have room for a number each, on a logarithmic axis."""
    shown = depths[:1]
    for depth in depths[1:]:
        if ln(depth / shown[-1]) >= 0.035 * ln(depths[-1] / depths[0]):
            shown.append(depth)
    return shown
