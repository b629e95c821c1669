"""The ridges tried, as a figure: leave-one-out accuracy, which sees no test image, beside test accuracy."""

from collections.abc import Sequence
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.report import looks
from cntk_bench.report.axes import dress, finish, mark_doubted, percents, power
from cntk_bench.report.findings import RidgePath, Tried
from cntk_bench.report.rows import DOUBTED, cell
from cntk_bench.report.style import inches, own_settings
from cntk_bench.text import short

ACROSS = 3  # panels in a row
FORMS = (".4g", ".2f", ".2f", ".2f", ".2f")  # of error, accuracies and their standard errors
HEADS = ["ridge", "leave-one-out error", "leave-one-out accuracy", "s.e.", "test accuracy", "s.e.", ""]
JITTERED = "with jitter"
FAINTEST = 0.3  # of the deepest of several depths


@own_settings()
def figure(
    paths: Sequence[RidgePath], *, width: float | str = "text", words: tuple[str, str] | None = None
) -> Any:
    """Draw accuracy against ridge, a panel for each column, deeper cells paler.

    Test accuracies are markers joined by lines, with bars of one standard error; leave-one-out accuracies are
    broken lines. The ridge chosen, by leave-one-out error, is ringed. Where the solver had to add jitter to
    the ridge, the marker is hollow. Ridges stand at equal distances: 0 has no place on a logarithmic axis.

    Parameters
    ----------
    paths : sequence of RidgePath
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
        If there are none.
    """
    from matplotlib.figure import Figure

    if not paths:
        raise UserError("no ridges to draw: give at least one cell's")
    columns = list(dict.fromkeys(path.column for path in paths))
    across = min(ACROSS, len(columns))
    down = -(-len(columns) // across)
    size = inches(width)
    high = (0.62 * size if across == 1 else 1.15 * size / across) * down + 0.5
    made = Figure(figsize=(size, high), layout="constrained")
    panels = made.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    ridges = sorted({tried.ridge for path in paths for tried in path.tried})
    for place, axes in enumerate(panels.flat):
        if place >= len(columns):
            axes.set_axis_off()
            continue
        column = columns[place]
        own = sorted((path for path in paths if path.column == column), key=lambda path: path.depth or 0)
        for i, path in enumerate(own):
            strength = 1 - (1 - FAINTEST) * i / max(1, len(own) - 1)
            _draw(axes, path, ridges, strength)
        depths = f", depths {own[0].depth} to {own[-1].depth}" if len(own) > 1 else ""
        axes.set_title(f"{short(column, 24)}{depths}", loc="left")
        axes.set_xticks(range(len(ridges)), list(map(power, ridges)), rotation=90)
        axes.tick_params("x", labelbottom=place + across >= len(columns))
        dress(axes)
    percents(panels[0, 0].yaxis)  # which all share
    below = made.supxlabel("ridge, relative to the mean diagonal", fontsize=8, y=0)  # placed by `finish`
    made.supylabel("accuracy (%)" if words else "accuracy ± s.e. (%)", fontsize=8)
    finish(made, list(panels.flat)[: len(columns)], _legend(is_jittered(paths)), words, below)
    return made


def _draw(axes: Any, path: RidgePath, ridges: list[float], strength: float) -> None:
    look = looks.of(path.column)
    how = {"color": look.colour, "alpha": strength}
    for key, shape in (("loo_accuracy", {"linestyle": (0, (4, 2)), "linewidth": 1}),
                       ("accuracy", {"linestyle": "-", "marker": look.marker})):  # fmt: skip
        known = [(ridges.index(one.ridge), getattr(one, key)) for one in path.tried]
        known = [(x, y) for x, y in known if y is not None]
        if known:
            axes.plot(*zip(*known, strict=True), **how, **shape)
    measured = [one for one in path.tried if one.accuracy is not None and one.standard_error]
    axes.errorbar(
        [ridges.index(one.ridge) for one in measured],
        [one.accuracy for one in measured],
        [one.standard_error for one in measured],
        fmt="none",
        elinewidth=0.8,
        ecolor=look.colour,
        alpha=strength,
    )
    for one in path.tried:
        value = _value(one)
        if value is None:
            continue
        x = ridges.index(one.ridge)
        if one.jitter:
            axes.plot([x], [value], marker=look.marker, markerfacecolor="white", linestyle="none", **how)
        if one.ridge == path.chosen:
            axes.plot([x], [value], marker="o", markersize=10, markerfacecolor="none", **how)
        if one.doubt:
            mark_doubted(axes, x, value)


def _value(one: Tried) -> float | None:
    return one.accuracy if one.accuracy is not None else one.loo_accuracy


def is_jittered(paths: Sequence[RidgePath]) -> bool:
    """Whether the solver had to add jitter to one of the ridges."""
    return any(one.jitter for path in paths for one in path.tried)


def _legend(jittered: bool) -> dict[str, Any]:
    from matplotlib.lines import Line2D

    grey = "0.25"
    handles = {
        "test images": Line2D([], [], color=grey, marker="o"),
        "leave-one-out": Line2D([], [], color=grey, linestyle=(0, (4, 2)), linewidth=1),
        "chosen": Line2D([], [], color=grey, marker="o", markersize=10, markerfacecolor="none",
                         linestyle="none"),
    }  # fmt: skip
    if jittered:
        handles[JITTERED] = Line2D([], [], color=grey, marker="o", markerfacecolor="white", linestyle="none")
    return handles


def heads(path: RidgePath) -> list[str]:
    """The heads of `cells`: `HEADS`, and after the ridge its jitter, if there is any."""
    return [*HEADS[:1], *(["jitter"] if is_jittered([path]) else []), *HEADS[1:]]


def cells(path: RidgePath) -> list[list[str]]:
    """A path as rows of text, one for each ridge (`heads`)."""
    rows = []
    jittered = is_jittered([path])
    for one in path.tried:
        values = (one.error, one.loo_accuracy, one.loo_standard_error, one.accuracy, one.standard_error)
        texts = [cell(value, form) for value, form in zip(values, FORMS, strict=True)]
        texts[3] += DOUBTED * (one.doubt is not None and one.accuracy is not None)
        jitter = [f"{one.jitter:.0e}" if one.jitter else "0"] if jittered else []
        rows.append([f"{one.ridge:g}", *jitter, *texts, "chosen" if one.ridge == path.chosen else ""])
    return rows
