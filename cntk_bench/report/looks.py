"""What a column looks like in every figure: its colour, marker and line, which depend on its name alone.

The colour-blind can tell the colours apart, too, and no figure relies on them alone: markers differ, and the
dashes of lines without markers.
"""

import re
from typing import NamedTuple
from zlib import crc32

Line = str | tuple[int, tuple[float, ...]]  # as Matplotlib has it


class Look(NamedTuple):
    """colour : as #RRGGBB.  marker, line : as Matplotlib has them."""

    colour: str
    marker: str
    line: Line = "-"


# Okabe and Ito's palette for convolutional networks; colours of Tol's for fully connected ones.
COLUMNS = {
    "CNTK-V": Look("#0072B2", "o"),
    "CNTK-GAP": Look("#D55E00", "s"),
    "CNN-GP-V": Look("#56B4E9", "D"),
    "CNN-GP-GAP": Look("#E69F00", "^"),
    "CNN-V": Look("#009E73", "v"),
    "CNN-GAP": Look("#CC79A7", "<"),
    "FC-NTK": Look("#882255", "*"),
    "FC-NNGP": Look("#999933", "d"),
    "FC-NN": Look("#332288", ">"),
    # Lines across the figure, without markers there.
    "RBF": Look("#000000", "1", ":"),
    "LAPLACE": Look("#8B4513", "2", (0, (6, 2))),
    "LINEAR": Look("#7F7F7F", "3", (0, (1, 4))),
    "SKLEARN-GP": Look("#6A3D9A", "4", (0, (6, 2, 1, 2))),
    "GPYTORCH-GP": Look("#3F7FBF", "+", (0, (6, 2, 1, 2, 1, 2))),
}
# Tol's muted palette: for the windows of LAP, for networks' curves, and for columns of other packages.
PALETTE = "#332288 #88CCEE #44AA99 #117733 #999933 #DDCC77 #CC6677 #882255 #AA4499".split()
# Markers of LAP by half-width c modulo 4; the colour is of c / 4, rounded down. So all up to 35 differ.
WINDOWS = {"CNTK": "XxpH", "CNN-GP": "P+h8"}
# Of fully connected kernels with biases, and of columns that are not known here.
MARKERS = "pHh8x"
LINES: tuple[Line, ...] = ((0, (8, 1)), (0, (3, 1)), (0, (6, 1, 1, 1, 1, 1)))  # no solid one
FLIP, FLIPPED, SHADE = "-FLIP", (0, (4, 1, 1, 1)), 0.6


def of(column: str) -> Look:
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
    return Look(_darker(found.colour), found.marker, FLIPPED)


def _derived(column: str) -> Look:
    window = re.fullmatch(r"(CNTK|CNN-GP)-LAP(\d{1,4})", column)
    if window:
        four, place = divmod(int(window[2]), 4)
        return Look(PALETTE[four % len(PALETTE)], WINDOWS[window[1]][place])
    number = crc32(column.encode(errors="replace"))
    biased = re.fullmatch(r"(FC-NTK|FC-NNGP)-B[\d.]{1,9}", column)
    number, place = divmod(number, len(PALETTE))
    number, marker = divmod(number, len(MARKERS))
    colour = COLUMNS[biased[1]].colour if biased else PALETTE[place]
    return Look(colour, MARKERS[marker], LINES[number % len(LINES)])


def _darker(colour: str) -> str:
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(SHADE * part):02X}" for part in parts)
