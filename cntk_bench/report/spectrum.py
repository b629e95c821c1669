"""Eigenvalues of kernels as a figure: how fast they fall, and which of them the ridge or rounding decides."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.report import looks
from cntk_bench.report.axes import dash, decades, dress, finish, labelled
from cntk_bench.report.findings import Eigenvalues
from cntk_bench.report.style import inches, own_settings
from cntk_bench.text import short

MARKS = 8  # markers along a line
NEAR = 3.0  # times the noise: a spectrum above that needs no mark of it
FLOOR = "within the error of float32 entries"


@own_settings()
def figure(
    spectra: Sequence[Eigenvalues], *, width: float | str = "text", words: tuple[str, str] | None = None
) -> Any:
    """Draw eigenvalues against their rank, largest first, both logarithmic, a line for each kernel.

    Values are in units of their mean, trace(K) / n, so that kernels that are sums and kernels that are means
    over pixels can be compared, and a ridge is the relative one of the table. A column has its colour and
    marker, a depth its dashes. A value of 0 or less, which rounding made, has no place and is left out.
    Values within the error of the stored entries are pale, and a line shows where these begin.

    Parameters
    ----------
    spectra : sequence of Eigenvalues
        Their values may be in any order.
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
        If there are none, or one has no positive mean, or holds NaN or infinity.
    """
    from matplotlib.figure import Figure

    if not spectra:
        raise UserError("no eigenvalues to draw: give at least one kernel's")
    size = inches(width)
    made = Figure(figsize=(size, 0.62 * size + 0.4), layout="constrained")
    axes: Any = made.add_subplot()
    depths = sorted({one.depth for one in spectra if one.depth is not None})
    ridges, floors = set(), []
    for one in spectra:
        values, unit = _sorted(one)
        rank = np.arange(1, len(values) + 1)
        look = looks.of(one.column)
        line = dash(depths, one.depth) if one.depth is not None else look.line
        noise = one.noise / unit
        kept = int(np.searchsorted(-values, -noise, "left"))  # those above the noise
        positive = int(np.searchsorted(-values, 0, "left"))
        label = short(one.column, 24) + ("" if one.depth is None else f", depth {one.depth}")
        marks = np.unique(np.geomspace(1, max(1, kept), MARKS).round().astype(int) - 1)
        axes.plot(rank[:kept], values[:kept], color=look.colour, linestyle=line, marker=look.marker,
                  markevery=marks.tolist(), label=label)  # fmt: skip
        if kept < positive:
            begin = max(0, kept - 1)
            axes.plot(
                rank[begin:positive], values[begin:positive], color=look.colour, linestyle=line, alpha=0.3
            )
        if one.absolute_ridge:
            ridges.add((one.absolute_ridge / unit, look.colour))
        if values[-1] < NEAR * noise:
            floors.append(noise)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _lines(axes, ridges, floors)
    for axis in (axes.xaxis, axes.yaxis):
        decades(axis)
    axes.set_xlabel("rank of the eigenvalue")
    axes.set_ylabel("eigenvalue / mean eigenvalue")
    dress(axes)
    finish(made, [axes], labelled([axes]), words)
    return made


def _sorted(one: Eigenvalues) -> tuple[np.ndarray, float]:
    """The values in units of their mean, descending, and that mean."""
    values = np.asarray(one.values, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise UserError(f"eigenvalues of {short(one.column)}: give finite numbers, at least one, as (n,)")
    unit = float(values.mean())
    if not unit > 0:
        raise UserError(f"eigenvalues of {short(one.column)} have the mean {unit:g}: a kernel's is positive")
    return np.sort(values)[::-1] / unit, unit


def _lines(axes: Any, ridges: set[tuple[float, str]], floors: list[float]) -> None:
    """Where the ridges are, and where the error of the entries begins."""
    alike = len({f"{value:.6g}" for value, _ in ridges}) == 1
    for value, colour in sorted(ridges)[: 1 if alike else None]:
        axes.axhline(value, color="0.2" if alike else colour, linewidth=0.8, linestyle=(0, (8, 3)), zorder=1)
    if ridges:
        least = min(value for value, _ in ridges)
        axes.annotate("ridge", (0, least), (3, 2), xycoords=("axes fraction", "data"),
                      textcoords="offset points", fontsize=7, color="0.2")  # fmt: skip
    if floors:
        axes.axhspan(axes.get_ylim()[0], max(floors), color="0.5", alpha=0.12, linewidth=0, zorder=0)
        axes.annotate(FLOOR, (0.2, max(floors)), (0, -2), xycoords=("axes fraction", "data"),
                      textcoords="offset points", va="top", fontsize=7, color="0.35")  # fmt: skip
