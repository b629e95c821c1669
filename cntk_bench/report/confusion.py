"""The confusion matrix as a figure: which classes are taken for which."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.report.axes import cut, every, place_square, surround
from cntk_bench.report.rows import cell
from cntk_bench.report.style import inches, own_settings

MOST = 1000  # classes
SMALLEST = 4.5  # points: letters that can still be read
LETTERS = 14  # of a class's name
GAMMA = 0.5  # of the colour scale: otherwise mistakes, which are few beside what is right, would not be seen


def counted(true: Any, predicted: Any, classes: int) -> np.ndarray:
    """How many images of each class were taken for which.

    Parameters
    ----------
    true, predicted : array-like (m,), int
        Classes, 0 .. classes - 1.
    classes : int

    Returns
    -------
    array (classes, classes), int64
        Rows are true classes, columns predicted ones.

    Raises
    ------
    UserError
        If the arrays differ in length, or a class is not within 0 .. classes - 1.
    """
    both = [np.asarray(array) for array in (true, predicted)]
    if both[0].ndim != 1 or both[0].shape != both[1].shape:
        raise UserError(f"classes of shapes {both[0].shape} and {both[1].shape}: give as many of both, (m,)")
    for array in both:
        if array.dtype.kind not in "iu" or array.size and not (0 <= array.min() and array.max() < classes):
            raise UserError(f"a confusion matrix of {classes} classes needs integers from 0 to {classes - 1}")
    places = both[0].astype(np.int64) * classes + both[1].astype(np.int64)
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


@own_settings()
def figure(
    counts: Any,
    names: Sequence[str] | None = None,
    *,
    percent: bool = True,
    width: float | str = "text",
    words: tuple[str, str] | None = None,
) -> Any:
    """Draw a confusion matrix, a row for each true class.

    Cells show their numbers if these can be read; a colour bar explains the colours, whose scale is that of
    the square root. A cell without images is empty, and a class without any is hatched.

    Parameters
    ----------
    counts : array-like (k, k), int
        Rows are true classes, columns predicted ones (`counted`).
    names : sequence of str, optional
        Of the classes; by default their numbers.
    percent : bool
        Of each true class's images, instead of counts.
    width : float or str
        Inches, or a name of `style.WIDTHS`.
    words : (str, str), optional
        Title above, and note below.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    UserError
        If counts are no square array of at least 0, or there are not as many names.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    table = np.asarray(counts)
    _require(table, names)
    k, size = len(table), inches(width)
    labels = cut(names if names is not None else [str(i) for i in range(k)], LETTERS)
    totals = table.sum(1, keepdims=True)
    shown = 100 * table / np.maximum(totals, 1) if percent else table.astype(np.float64)
    made = Figure(figsize=(size, 0.86 * size))
    FigureCanvasAgg(made)  # whose renderer measures labels
    axes: Any = made.add_axes((0.2, 0.2, 0.6, 0.6))
    beside: Any = made.add_axes((0.85, 0.2, 0.02, 0.6))
    norm = PowerNorm(GAMMA, 0, 100 if percent else max(1, table.max()))
    picture = axes.imshow(shown, "Blues", norm=norm, interpolation="nearest", aspect="auto")
    for row in np.flatnonzero(totals[:, 0] == 0):
        axes.axhspan(row - 0.5, row + 0.5, facecolor="none", edgecolor="0.6", hatch="////", linewidth=0)
    bar = made.colorbar(picture, cax=beside)
    bar.outline.set_visible(False)
    bar.set_label("% of the true class" if percent else "test images")
    if percent:
        bar.set_ticks([0, 1, 5, 10, 25, 50, 100])
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    side = 72 * (0.86 * size - 0.6 - 0.06 * max(map(len, labels))) / k  # of a cell, in points, about
    _label(axes, labels, side)
    place_square(made, axes, beside)
    side = 72 * axes.get_window_extent().width / made.dpi / k
    _write(axes, shown, table, percent, norm, side)
    surround(made, words)
    return made


def _require(table: np.ndarray, names: Sequence[str] | None) -> None:
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not 2 <= len(table) <= MOST:
        raise UserError(f"confusion matrix of shape {table.shape}: give k x k counts, of 2 to {MOST} classes")
    if table.dtype.kind not in "iu" or table.min() < 0:
        raise UserError("a confusion matrix holds integers of at least 0: give counts")
    if names is not None and len(names) != len(table):
        raise UserError(f"{len(names)} names for {len(table)} classes: give one each")


def _label(axes: Any, labels: list[str], side: float) -> None:
    """Names of the classes, as many as have room."""
    k, font = len(labels), float(np.clip(0.6 * side, SMALLEST, 7))
    shown = range(0, k, every(k, k * side, font))
    names = [labels[i] for i in shown]
    across = max(map(len, names)) * 0.6 * font > side * (shown.step) - 2
    axes.set_xticks(shown, names, rotation=90 if across else 0, fontsize=font)
    axes.set_yticks(shown, names, fontsize=font)
    axes.tick_params(length=0 if shown.step == 1 else 2, pad=2)
    axes.spines[:].set_linewidth(0.4)


def _write(axes: Any, shown: np.ndarray, table: np.ndarray, percent: bool, norm: Any, side: float) -> None:
    """The numbers of cells that hold any images, where they can be read."""
    places = [(i, j) for i, j in np.argwhere(table > 0)]
    for form in (".1f", ".0f") if percent else (".0f",):
        texts = [_text(shown[at], form) if percent else format(shown[at], form) for at in places]
        font = min(7.0, 0.5 * side, side / (0.68 * max(map(len, texts), default=1)))
        if font >= SMALLEST + (1.0 if form == ".1f" else 0.0):  # decimals only where they cost no size
            break
    else:
        return
    for (i, j), text in zip(places, texts, strict=True):
        axes.text(j, i, text, ha="center", va="center", fontsize=font,
                  color="white" if norm(shown[i, j]) > 0.6 else "0.1")  # fmt: skip


def _text(share: float, form: str) -> str:
    """A percentage above 0 as text, never "0"; and "100" only if it is, for otherwise there are mistakes."""
    text = cell(share, form)
    if float(text) == 0:
        return "<1" if form == ".0f" else "<0.1"
    return ">99" if text == "100" and share < 100 else text
