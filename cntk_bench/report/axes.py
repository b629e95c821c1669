"""Helpers for the axes of several figures: grid, ticks, marks, legends, and words around them."""

import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from math import log as ln
from typing import Any, NamedTuple

from cntk_bench.report.rows import DOUBTED
from cntk_bench.text import visible

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LETTER = 0.6  # mean width of a letter, in units of the font's size
FILLER = "\x00"  # for the other half of a letter that is twice as wide; not in visible text
CORNERS = ("upper right", "upper left", "lower right", "lower left", "center right", "center left",
           "upper center", "lower center")  # fmt: skip
FONT = 7  # points, of legends and ticks
MOST_LINES = 7  # of a note
PAD = 3.0  # points around axes that are placed here
BESIDE, SHRUNK = 9.0, 0.8  # width of a colour bar in points; its height relative to the axes it explains
COMB = 10**3.5  # of a logarithmic axis that spans more, only powers of ten have ticks
CLEAR = 3.0  # points between a legend and what is drawn
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))


def dress(axes: Any) -> None:
    """Give axes the look that those of all figures have."""
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def dash(values: Sequence[Any], value: Any) -> Any:
    """The line style of one of several depths, as Matplotlib has it."""
    return LINES[values.index(value) % len(LINES)]


def powers(axis: Any) -> None:
    """Label a logarithmic axis with powers of ten, such as 10⁻³, as plain text.

    Matplotlib's mathematics is turned off (`style.SETTINGS`).
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10, numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    axis.set_minor_formatter(NullFormatter())


def power(value: float) -> str:
    """A power of ten with its exponent raised; those from 0.01 to 100, and any other number, as they are."""
    mantissa, _, exponent = f"{value:e}".partition("e")
    if float(mantissa) != 1 or -2 <= int(exponent) <= 2:
        return f"{value:g}"
    return "10" + str(int(exponent)).translate(RAISED)


def decades(axis: Any) -> None:
    """Ticks of a logarithmic axis, whatever it spans: powers of ten, and 2 and 5 between few of them.

    Where there are many, the small ticks between them, which would be a dense comb, are left out.
    """
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

    low, high = sorted(axis.get_view_interval())
    powers(axis)
    if high / low > COMB:
        axis.set_minor_locator(NullLocator())
    if high / low < 100:
        inside = [tick for tick in LogLocator(10, (1, 2, 5)).tick_values(low, high) if low <= tick <= high]
        if len(inside) < 2:
            inside = [low * (high / low) ** share for share in (0.1, 0.5, 0.9)]
            inside = [float(f"{tick:.2g}") for tick in inside]
        axis.set_major_locator(FixedLocator(inside))


def percents(axis: Any, room: float = 0.03) -> None:
    """Limits and ticks of an axis of percentages: none below 0 or above 100, but room for a mark there."""
    from matplotlib.ticker import FixedLocator

    low, high = axis.get_view_interval()
    axis.axes.set(**{f"{axis.axis_name}lim": (max(low, -100 * room), min(high, 100 + 100 * room))})
    ticks = [tick for tick in axis.get_major_locator()() if 0 <= tick <= 100]
    axis.set_major_locator(FixedLocator(ticks))


def apart(values: Sequence[int], points: float, size: float = FONT) -> list[int]:
    """Those of some ascending numbers that have room as labels on a logarithmic axis, always the last."""
    if len(values) < 2:
        return list(values)
    unit = points / ln(values[-1] / values[0])

    def fits(one: int, other: int) -> bool:
        letters_between = (len(f"{one:,}") + len(f"{other:,}")) / 2 + 1
        return unit * abs(ln(one / other)) >= LETTER * size * letters_between

    shown = [values[0]]
    for value in values[1:-1]:
        if fits(value, shown[-1]) and fits(value, values[-1]):
            shown.append(value)
    return [*shown, values[-1]] if fits(shown[-1], values[-1]) else [values[-1]]


def mark_doubted(axes: Any, x: float, y: float) -> None:
    """Mark a point as one that is not to be trusted."""
    axes.annotate(DOUBTED, (x, y), (4, 4), textcoords="offset points", fontsize=10, weight="bold")


def labelled(panels: Iterable[Any]) -> dict[str, Any]:
    """Label -> the handle that has it, of several axes; each label once."""
    return {label: handle for axes in panels
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}  # fmt: skip


def finish(
    figure: Any,
    panels: Sequence[Any],
    handles: Mapping[str, Any],
    words: tuple[str, str] | None,
    below: Any = None,
) -> None:
    """Add what stands around a figure, when all is drawn: a legend, a title above, and a note below.

    The legend hides nothing: it is in an empty corner if there is only one panel, or else below all panels.
    The figure grows in height by what legend and words need.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        With a constrained layout.
    panels : sequence of matplotlib.axes.Axes
    handles : mapping of str
        Label -> the handle that has it.
    words : (str, str), optional
        Title and note.
    below : matplotlib.text.Text, optional
        A label of all panels (`supxlabel`). Matplotlib would leave it at the figure's lower edge, where the
        legend and the note are.
    """
    width, height = 72 * figure.get_figwidth(), 72 * figure.get_figheight()  # points
    inside = len(panels) == 1 and len(handles) <= 8 and _corner(figure, panels[0], handles)
    around = _around(words, width)
    longest = max(map(len, handles), default=0)
    room = max(1, int(width / (LETTER * FONT * (longest + 1) + 3.6 * FONT)))
    rows = 0 if inside else -(-len(handles) // room)
    keys = (1.4 * rows + 1.2 if rows else 0) * FONT
    label = 0.0 if below is None else 1.3 * below.get_fontsize() + PAD
    height += around.above + label + keys + around.below
    figure.set_figheight(height / 72)
    foot = (label + keys + around.below) / height
    figure.get_layout_engine().set(rect=(0, foot, 1, 1 - foot - around.above / height))
    if below is not None:
        below.set(y=(keys + around.below) / height, verticalalignment="bottom", in_layout=False)
    if rows:
        figure.legend(list(handles.values()), list(handles), loc="lower center", columnspacing=1.2,
                      ncols=-(-len(handles) // rows), bbox_to_anchor=(0.5, around.below / height),
                      borderaxespad=0.4, labelspacing=0.4).set_in_layout(False)  # fmt: skip
    _write(figure, around)


def surround(figure: Any, words: tuple[str, str] | None) -> None:
    """Add title and note to a figure whose axes and texts are already placed: it grows, and they stay."""
    if words is None:
        return
    high = 72 * figure.get_figheight()  # points
    around = _around(words, 72 * figure.get_figwidth())
    whole = high + around.above + around.below
    figure.set_figheight(whole / 72)
    for axes in figure.axes:
        x, y, width, height = axes.get_position(original=True).bounds
        axes.set_position((x, (around.below + high * y) / whole, width, height * high / whole))
    for text in figure.texts:
        x, y = text.get_position()
        text.set_position((x, (around.below + high * y) / whole))
    _write(figure, around)


class _Around(NamedTuple):
    """Words in lines, and the points that they need above and below a figure."""

    headline: str
    note: str
    above: float
    below: float


def _around(words: tuple[str, str] | None, width: float) -> _Around:
    headline, note = (
        wrap(text, width - 6, size) for text, size in zip(words or ("", ""), (8, 6), strict=True)
    )
    if note.count("\n") >= MOST_LINES:
        note = "\n".join([*note.splitlines()[: MOST_LINES - 1], "... The rest is below the table."])
    above, below = (1.3 * size * (text.count("\n") + 1) + 2 if text else 0.0
                    for text, size in ((headline, 8), (note, 6)))  # fmt: skip
    return _Around(headline, note, above, below)


def _write(figure: Any, around: _Around) -> None:
    width, height = 72 * figure.get_figwidth(), 72 * figure.get_figheight()
    for text, y, place, how in ((around.headline, height - 2, "top", {"fontsize": 8}),
                                (around.note, 2, "bottom", {"fontsize": 6, "color": "0.35"})):  # fmt: skip
        figure.text(3 / width, y / height, text, va=place, **how).set_in_layout(False)


def _corner(figure: Any, axes: Any, handles: Mapping[str, Any]) -> bool:
    """Put a legend where nothing is drawn, if there is such a place."""
    figure.get_layout_engine().execute(figure)
    for place in CORNERS if handles else ():
        found = axes.legend(list(handles.values()), list(handles), loc=place)
        found.set_in_layout(False)
        if not _hides(axes, found.get_window_extent().padded(CLEAR * figure.dpi / 72)):
            return True
        found.remove()
    return False


def _hides(axes: Any, box: Any) -> bool:
    """Whether anything is drawn in a box, in pixels."""
    for line in axes.lines:
        if line.get_transform().transform_path(line.get_path()).intersects_bbox(box, filled=False):
            return True
    for collection in axes.collections:
        for path in collection.get_paths():
            moved = collection.get_transform().transform_path(path)
            if moved.intersects_bbox(box, filled=bool(collection.get_fill())):
                return True
    opaque = [patch for patch in axes.patches if patch.get_alpha() is None]
    return any(box.overlaps(one.get_window_extent()) for one in [*opaque, *axes.texts])


def letters(points: float, size: float) -> int:
    """How many letters of a font's size have room in a width, both in points; at least 1."""
    return max(1, int(points / (LETTER * size)))


def wrap(text: str, points: float, size: float) -> str:
    """Wrap text into as many lines as it needs for a width in points, at a font size."""
    padded = "".join(f"{one}{FILLER}" if unicodedata.east_asian_width(one) in "WF" else one for one in text)
    return textwrap.fill(padded, max(8, letters(points, 0.95 * size))).replace(FILLER, "")


def every(count: int, room: float, size: float) -> int:
    """The step at which `count` labels along `room` points are shown, so that each has a line of its own."""
    return next((step for step in (1, 2, 5, 10, 20, 50) if count / step * 1.15 * size <= room), 100)


def cut(names: Sequence[str], most: int) -> list[str]:
    """Names truncated to at most `most` visible letters each; numbered if two would become equal."""
    found = [_cut(name, most) for name in names]
    if len(set(found)) < len(set(names)):
        found = [_cut(f"{place} {name}", most) for place, name in enumerate(names)]
    return found


def _cut(name: str, most: int) -> str:
    text = visible(name)
    return text if len(text) <= most else f"{text[: max(1, most - 1)].rstrip()}…"


def place_square(figure: Any, axes: Any, beside: Any) -> None:
    """Place square axes and, to their right, others as high but narrow, so that they fill a figure's width.

    The figure's height becomes what they need. Labels must be set before, but not what depends on the side.
    """
    renderer, scale = figure.canvas.get_renderer(), 72 / figure.dpi  # points

    def margins(some: Any) -> tuple[float, float, float, float]:
        """How far labels reach beyond axes: to the left, right, below, and above."""
        inner, outer = some.get_window_extent(renderer), some.get_tightbbox(renderer)
        found = (inner.x0 - outer.x0, outer.x1 - inner.x1, inner.y0 - outer.y0, outer.y1 - inner.y1)
        left, right, below, above = (scale * max(0.0, one) + PAD for one in found)
        return left, right, below, above

    left, right, below, above = margins(axes)
    before, after, *_ = margins(beside)
    width = 72 * figure.get_figwidth()
    gap = max(right, BESIDE) + before
    side = max(72.0, width - left - gap - BESIDE - after)
    high = side + below + above
    figure.set_figheight(high / 72)
    axes.set_position((left / width, below / high, side / width, side / high))
    begin, shrunk = left + side + gap, (1 - SHRUNK) / 2
    beside.set_position((begin / width, (below + shrunk * side) / high, BESIDE / width, SHRUNK * side / high))
