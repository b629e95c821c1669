"""The style of every figure: how large it is, its fonts and other settings, and how it is saved."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.system.files import write_atomic
from cntk_bench.text import one_line, short

log = logging.getLogger(__name__)

WIDTHS = {"column": 3.25, "text": 5.5, "page": 6.75}  # inches
"""Widths of figures: a column of ICML's two, the one of NeurIPS and ICLR, both columns of ICML."""
NARROWEST, WIDEST = 2.0, 30.0  # inches
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


def save(stem: str | Path, make: Callable[[], Any], kinds: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Draw a figure once, and write it in several kinds beside each other: STEM.png and STEM.svg.

    Where Matplotlib cannot draw, for whatever reason, a warning says so, and this and further kinds are not
    written.

    Parameters
    ----------
    stem : path-like
        The files' common name, without extension.
    make : callable
        Returns the matplotlib Figure.
    kinds : sequence of {"png", "svg", "pdf"}

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UserError
        If a file cannot be written, or `make` raises one.
    """
    files, drawn = [], cache(make)
    for kind in kinds:
        file = Path(f"{stem}.{kind}")
        try:
            with own_settings():
                found = image(drawn(), kind)
        except UserError:
            raise
        except Exception as error:  # somebody else's program, settings and fonts: the tables do without
            reason = one_line(f"{type(error).__name__}: {error}", 150)
            log.warning("no figure %s, Matplotlib cannot draw: %s", short(file.name), reason)
            break
        write_atomic(file, found)
        files.append(file)
    return files


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
