"""What a column looks like in every figure: colour, marker and line, by its name alone.

Colours are told apart by the colour-blind, too, and no figure relies on them alone: markers differ, and of
lines without markers their dashes.
"""

import re
from typing import NamedTuple
from zlib import crc32

Line = str | tuple[int, tuple[float, ...]]  # as Matplotlib has it


class Style(NamedTuple):
    """colour : as #RRGGBB.  marker, line : as Matplotlib has them."""

    colour: str
    marker: str
    line: Line = "-"


# Okabe and Ito's palette for convolutional networks; of Tol's for fully connected ones.
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
LINES: tuple[Line, ...] = ((0, (8, 1)), (0, (3, 1)), (0, (6, 1, 1, 1, 1, 1)))  # no whole one
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
