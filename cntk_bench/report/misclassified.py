"""A sample of misclassified images as a figure, each with its true and its predicted class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.report.axes import cut, letters, surround, wrap
from cntk_bench.report.style import inches, own_settings

MOST = 24  # images
LEAST_SIDE = 0.62  # inches of an image and what is around it
MOST_SIDE = 1.1
FONT = 6.0
NOTE = (
    "True class → predicted class, and the margin: output of the predicted class minus that of the true one."
)


def sample(outputs: Any, true: Any, most: int = MOST) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which mistakes to show: some that stand for all, from the gravest to the slightest.

    Mistakes are ordered by their margin, the largest output less that of the true class, and taken at equal
    distances in that order, the first and the last among them.

    Parameters
    ----------
    outputs : array-like (m, k), float
        For each image, an output for each class; the largest decides.
    true : array-like (m,), int
        True classes, 0 .. k - 1.
    most : int
        How many are taken at most.

    Returns
    -------
    which, predicted, margins : array (s,)
        Places among the m images, int64, predicted classes, int64, and margins, float64, which fall.

    Raises
    ------
    UserError
        If shapes or classes do not fit together, or an output is not finite.
    """
    scores, classes = np.asarray(outputs, np.float64), np.asarray(true)
    if scores.ndim != 2 or classes.shape != scores.shape[:1] or classes.dtype.kind not in "iu":
        raise UserError(f"outputs {scores.shape} and classes {classes.shape}: give (m, k) and (m,) integers")
    if classes.size and not (0 <= classes.min() and classes.max() < scores.shape[1]):
        raise UserError(f"a true class is none of 0 to {scores.shape[1] - 1}, of which there are outputs")
    if not np.isfinite(scores).all():
        raise UserError("an output is not finite: no class is predicted")
    predicted = scores.argmax(1)
    wrong = np.flatnonzero(predicted != classes)
    margins = scores[wrong, predicted[wrong]] - scores[wrong, classes[wrong]]
    order = np.argsort(-margins, kind="stable")
    places = np.unique(np.linspace(0, max(0, len(order) - 1), min(most, len(order))).round().astype(int))
    taken = order[places]
    return wrong[taken], predicted[wrong[taken]], margins[taken]


@own_settings()
def figure(
    images: Any,
    true: Sequence[int] | np.ndarray,
    predicted: Sequence[int] | np.ndarray,
    margins: Sequence[float] | np.ndarray,
    names: Sequence[str] | None = None,
    *,
    width: float | str = "text",
    words: tuple[str, str] | None = None,
) -> Any:
    """Draw images in rows, with the true class, an arrow to the predicted one, and the margin below each.

    Parameters
    ----------
    images : array-like (s, P, Q), (s, 1, P, Q) or (s, 3, P, Q)
        uint8, or floats from 0 to 1; other floats are scaled, all alike, from the smallest to the largest.
    true, predicted : sequence of int (s,)
        Classes.
    margins : sequence of float (s,)
        By how much the output of the predicted class exceeds that of the true one (`sample`).
    names : sequence of str, optional
        Of the classes; by default their numbers.
    width : float or str
        Inches, or a name of `style.WIDTHS`; a figure of few images is narrower.
    words : (str, str), optional
        Title above, and note below.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    UserError
        If shapes do not fit together, there are no images, or a class has no name.
    """
    from matplotlib.figure import Figure

    pictures = _pictures(images)
    count, size = len(pictures), inches(width)
    facts = [np.asarray(array) for array in (true, predicted, margins)]
    if count == 0 or any(array.shape != (count,) for array in facts):
        raise UserError(
            f"{count} images, and not as many classes and margins: give as many, and at least one"
        )
    most = max(1, int(size / LEAST_SIDE))
    across = -(-count // -(-count // most))  # rows of about as many
    down = -(-count // across)
    side = min(size / across, MOST_SIDE)
    called = _names(names, facts[0], facts[1], letters(72 * side, FONT) - 2)
    below = 3.7 * FONT / 72  # inches for three lines
    note = wrap(NOTE, 72 * side * across, FONT)
    foot = (1.3 * len(note.splitlines()) + 0.6) * FONT / 72
    high = down * (side + below) + foot
    made = Figure(figsize=(side * across, high))
    for place, picture in enumerate(pictures):
        row, col = divmod(place, across)
        top = high - row * (side + below)  # inches from below
        box = (col + 0.04) / across, (top - 0.98 * side) / high, 0.92 / across, 0.94 * side / high
        axes: Any = made.add_axes(box)
        axes.imshow(picture, "gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
        axes.set_axis_off()
        right, wrong = (called[int(array[place])] for array in facts[:2])
        text = f"{right}\n→ {wrong}\n{facts[2][place]:+.2f}"
        made.text((col + 0.5) / across, (top - 1.01 * side) / high, text, fontsize=FONT, ha="center",
                  va="top", linespacing=1.05)  # fmt: skip
    made.text(0.01, 0.3 * FONT / 72 / high, note, fontsize=FONT, va="bottom", color="0.35")
    surround(made, words)
    return made


def _pictures(images: Any) -> np.ndarray:
    """(s, P, Q) or (s, P, Q, 3), float64 from 0 to 1."""
    array = np.asarray(images)
    if array.ndim == 4 and array.shape[1] in (1, 3):
        array = array[:, 0] if array.shape[1] == 1 else array.transpose(0, 2, 3, 1)
    elif array.ndim != 3:
        raise UserError(f"images of shape {array.shape}: give (s, P, Q), (s, 1, P, Q) or (s, 3, P, Q)")
    if array.dtype == np.uint8:
        return array / 255
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise UserError("an image holds NaN or infinity: give finite pixels")
    low, high = (array.min(), array.max()) if array.size else (0.0, 1.0)
    if low >= 0 and high <= 1:
        return array
    return (array - low) / (high - low or 1)


def _names(names: Sequence[str] | None, true: np.ndarray, predicted: np.ndarray, most: int) -> dict[int, str]:
    """The classes that occur -> their names, as long as they have room."""
    used = sorted({int(label) for label in (*true, *predicted)})
    if names is None:
        return {label: str(label) for label in used}
    if used and not 0 <= used[0] <= used[-1] < len(names):
        nameless = used[0] if used[0] < 0 else used[-1]
        raise UserError(f"class {nameless} has no name: {len(names)} names are given")
    return dict(zip(used, cut([names[label] for label in used], max(3, most)), strict=True))
