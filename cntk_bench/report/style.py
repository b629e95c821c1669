"""The style of every figure: what a column looks like, how large figures are, and how they are saved.

A column's colour, marker and line depend on its name alone. The colour-blind can tell the colours apart, too,
and no figure relies on them alone: markers differ, and the dashes of lines without markers.
"""

import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from zlib import crc32

from cntk_bench.errors import UserError
from cntk_bench.system.files import write_atomic
from cntk_bench.text import one_line, short

log = logging.getLogger(__name__)

Line = str | tuple[int, tuple[float, ...]]  # as Matplotlib has it


class Style(NamedTuple):
    """colour : as #RRGGBB.  marker, line : as Matplotlib has them."""

    colour: str
    marker: str
    line: Line = "-"


# Okabe and Ito's palette for convolutional networks; colours of Tol's for fully connected ones.
COLUMNS = {
    "CNTK-V": Style("#0072B2", "o"),
    "CNTK-GAP": Style("#D55E00", "s"),
    "CNN-GP-V": Style("#56B4E9", "D"),
    "CNN-GP-GAP": Style("#E69F00", "^"),
    "CNN-V": Style("#009E73", "v"),
    "CNN-GAP": Style("#CC79A7", "<"),
    "FC-NTK": Style("#882255", "*"),
    "FC-NNGP": Style("#999933", "d"),
    "FC-NN": Style("#332288", ">"),
    # Lines across the figure, without markers there.
    "RBF": Style("#000000", "1", ":"),
    "LAPLACE": Style("#8B4513", "2", (0, (6, 2))),
    "LINEAR": Style("#7F7F7F", "3", (0, (1, 4))),
    "SKLEARN-GP": Style("#6A3D9A", "4", (0, (6, 2, 1, 2))),
    "GPYTORCH-GP": Style("#3F7FBF", "+", (0, (6, 2, 1, 2, 1, 2))),
}
# Tol's muted palette: for the windows of LAP, for networks' curves, and for columns of other packages.
PALETTE = "#332288 #88CCEE #44AA99 #117733 #999933 #DDCC77 #CC6677 #882255 #AA4499".split()
# Markers of LAP by half-width c modulo 4; the colour is of c / 4, rounded down. So all up to 35 differ.
WINDOWS = {"CNTK": "XxpH", "CNN-GP": "P+h8"}
# Of fully connected kernels with biases, and of columns that are not known here.
MARKERS = "pHh8x"
LINES: tuple[Line, ...] = ((0, (8, 1)), (0, (3, 1)), (0, (6, 1, 1, 1, 1, 1)))  # no solid one
FLIP, FLIPPED, SHADE = "-FLIP", (0, (4, 1, 1, 1)), 0.6


def style(column: str) -> Style:
    """The look of a column.

    A kernel that is averaged over mirror images (-FLIP) looks like the plain one, darker and dash-dotted.
    One with biases has the colour of the one without, and another marker. A column that is not known here,
    such as another package's, has one of `PALETTE`, `MARKERS` and `LINES` that its name decides: always the
    same, but two of them may look alike.
    """
    plain = column.removesuffix(FLIP)
    found = COLUMNS.get(plain) or _derived(plain)
    if plain == column:
        return found
    return Style(_darker(found.colour), found.marker, FLIPPED)


def _derived(column: str) -> Style:
    window = re.fullmatch(r"(CNTK|CNN-GP)-LAP(\d{1,4})", column)
    if window:
        four, place = divmod(int(window[2]), 4)
        return Style(PALETTE[four % len(PALETTE)], WINDOWS[window[1]][place])
    number = crc32(column.encode(errors="replace"))
    biased = re.fullmatch(r"(FC-NTK|FC-NNGP)-B[\d.]{1,9}", column)
    number, place = divmod(number, len(PALETTE))
    number, marker = divmod(number, len(MARKERS))
    colour = COLUMNS[biased[1]].colour if biased else PALETTE[place]
    return Style(colour, MARKERS[marker], LINES[number % len(LINES)])


def _darker(colour: str) -> str:
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(SHADE * part):02X}" for part in parts)


# How figures are drawn and saved.

WIDTHS = {"column": 3.25, "text": 5.5, "page": 6.75}  # inches
"""Widths of figures: a column of ICML's two, the one of NeurIPS and ICLR, both columns of ICML."""
NARROWEST, WIDEST = 2.0, 30.0  # inches
KINDS = ("png", "svg", "pdf")
UNDATED = {"svg": "Date", "pdf": "CreationDate"}  # the metadata that would differ between equal figures
SETTINGS = {
    # Letters as large as a caption's, or a little smaller, at the sizes of `WIDTHS`.
    "font.family": ["DejaVu Sans"],  # comes with Matplotlib
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,  # or dashes do not show
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "errorbar.capsize": 1.8,
    "hatch.linewidth": 0.4,
    "savefig.dpi": 300,
    "text.parse_math": False,  # a name may hold dollars
    "svg.hashsalt": "cntk-bench",  # the same record gives the same file
    "svg.fonttype": "path",  # looks the same without the font
    "pdf.fonttype": 42,  # TrueType: conferences refuse Type 3
}
VARIABLES = ("MPLBACKEND", "MPLCONFIGDIR", "MATPLOTLIBRC")


def inches(width: float | str) -> float:
    """A width in inches: one of `WIDTHS` by its name, or a number.

    Raises
    ------
    UserError
        If it is neither, or not from 2 to 30.
    """
    try:
        found = WIDTHS[width] if isinstance(width, str) and width in WIDTHS else float(width)
    except (TypeError, ValueError):
        found = 0.0
    if not NARROWEST <= found <= WIDEST:
        names = ", ".join(f"{name} ({size:g})" for name, size in WIDTHS.items())
        raise UserError(
            f"width {short(width)} is not possible: use {names}, or inches from {NARROWEST:g} to {WIDEST:g}"
        )
    return found


def save(path: str | Path, make: Callable[[], Any]) -> bool:
    """Write a figure; where Matplotlib cannot draw, for whatever reason, warn, and write nothing.

    Parameters
    ----------
    path : path-like
        A file ending in .png, .svg or .pdf.
    make : callable
        Returns the matplotlib Figure.

    Returns
    -------
    bool
        Whether there is a figure.

    Raises
    ------
    UserError
        If the file cannot be written or is of another kind, or `make` raises one.
    """
    path = Path(path)
    kind = path.suffix[1:]
    if kind not in KINDS:
        endings = ", ".join(f".{one}" for one in KINDS)
        raise UserError(f"cannot plot to {short(str(path))}: use a name that ends in {endings}")
    try:
        with own_settings():
            found = image(make(), kind)
    except UserError:
        raise
    except Exception as error:  # somebody else's program, settings and fonts: the tables do without
        reason = one_line(f"{type(error).__name__}: {error}", 150)
        log.warning("no figure %s, Matplotlib cannot draw: %s", short(path.name), reason)
        return False
    write_atomic(path, found)
    return True


def image(figure: Any, kind: str) -> bytes:
    """A Matplotlib figure as the bytes of a file without a date: the same figure gives the same file.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    kind : {"png", "svg", "pdf"}
    """
    file = io.BytesIO()
    with own_settings():
        lay_out(figure)
        figure.savefig(file, format=kind, metadata={UNDATED[kind]: None} if kind in UNDATED else None)
    return file.getvalue()


def lay_out(figure: Any) -> None:
    """Lay a figure out once and for all: Matplotlib would draw it twice, first to find the places."""
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.set_dpi(SETTINGS["savefig.dpi"])
        engine.execute(figure)
        figure.set_layout_engine(None)  # the settings name no other
        # The layout's solver orders its equations by addresses in memory, so that the last bits of positions
        # differ between processes, and with them an SVG's names of clip paths, which are hashes of them.
        for axes in figure.axes:
            bounds = axes.get_position(original=True).bounds
            axes.set_position([round(value, 9) for value in bounds], which="original")


@contextmanager
def own_settings() -> Iterator[None]:
    """Matplotlib with its own defaults and ours; afterwards everything is as the user had it.

    Also a decorator, `@own_settings()`, of functions that make figures: what is drawn takes some settings as
    it is made, and some as it is saved.
    """
    variables = {name: os.environ.get(name) for name in VARIABLES}  # Matplotlib sets one when it is imported
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it warns of settings that are not used
    try:
        matplotlib = _matplotlib()
        defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as letters missing in the font, or deprecated settings
            with matplotlib.rc_context(defaults | SETTINGS):
                yield
    finally:
        logger.setLevel(level)
        for name, value in variables.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _matplotlib() -> ModuleType:
    """Import Matplotlib with the user's settings, or without them if they prevent it."""
    named = Path(os.environ.get("MATPLOTLIBRC") or ".")
    theirs = [Path("matplotlibrc"), named, named / "matplotlibrc"]
    # Reading a pipe might never end.
    readable = all(not path.exists() or path.is_file() or path.is_dir() for path in theirs)
    if readable or "matplotlib" in sys.modules:
        with suppress(OSError, ValueError):
            import matplotlib

            return matplotlib
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        del sys.modules[name]  # left over by the import that failed
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
