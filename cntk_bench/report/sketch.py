"""A figure before it is drawn, with its caption and texts; and a figure as it stands on a page."""

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cntk_bench.report.page_tables import Table
from cntk_bench.report.style import image, own_settings
from cntk_bench.text import one_line

log = logging.getLogger(__name__)

DPI = 96  # of CSS pixels


@dataclass(frozen=True)
class Sketch:
    """One figure that can be drawn.

    key : names it within the page, and its file.
    caption : what it shows, for readers who see it.
    alt : what it shows, for readers who do not.
    make : given width (inches, or a name of `style.WIDTHS`) and words (title and note, or None), returns the
        matplotlib Figure.
    tables : its numbers.
    kind : of the image on a page, "svg" or "png".
    note : what stands below the figure if words do; by default the caption.
    """

    key: str
    caption: str
    alt: str
    make: Callable[..., Any]
    tables: tuple[Table, ...] = ()
    kind: str = "svg"
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """One figure on a page: key, caption, alt and tables are as in `Sketch`.

    source : the image as a data URI; "" where Matplotlib cannot draw.
    width, height : in CSS pixels.
    """

    key: str
    caption: str
    alt: str
    source: str
    width: int
    height: int
    tables: tuple[Table, ...] = ()


def shown(sketch: Sketch | None) -> Figure | None:
    """Draw a figure; if Matplotlib cannot, a warning says so, and its numbers stand alone."""
    if sketch is None:
        return None
    key, caption, alt = sketch.key, sketch.caption, sketch.alt
    try:
        found = drawn(lambda: sketch.make(width="text", words=None), sketch.kind)
        return Figure(key, caption, alt, *found, sketch.tables)
    except Exception as error:  # somebody else's program, settings and fonts
        reason = one_line(f"{type(error).__name__}: {error}", 150)
        log.warning("no figure %s on the page, Matplotlib cannot draw: %s", key, reason)
        return Figure(key, caption, alt, "", 0, 0, sketch.tables)


def drawn(make: Callable[[], Any], kind: str) -> tuple[str, int, int]:
    """Draw a figure; returns it as a data URI, with its width and height in CSS pixels."""
    with own_settings():
        made = make()
        content = image(made, kind)
        width, height = (round(DPI * inches) for inches in made.get_size_inches())
    media = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return f"data:{media};base64,{base64.b64encode(content).decode('ascii')}", width, height
