"""Finite networks against width, as a table and a figure (`analyses.converge`)."""

from functools import partial
from pathlib import Path
from typing import Any

from cntk_bench.report import looks, style
from cntk_bench.report.axes import dash, decades, dress, finish, labelled
from cntk_bench.report.listing import Listing, written
from cntk_bench.report.rows import count
from cntk_bench.report.style import inches, own_settings
from cntk_bench.system.files import write_atomic
from cntk_bench.text import short

# Measure: its head in the table, and the words of its axis.
NAMES = {
    "error": ("NTK error", "NTK at initialisation:\nrelative error"),
    "nngp_error": ("NNGP error", "NNGP kernel at initialisation:\nrelative error"),
    "drift": ("drift", "NTK over training:\nrelative change"),
    "movement": ("movement", "weights over training:\nrelative change"),
    "layer": ("largest layer", "the layer that changes most:\nrelative change"),
    "kappa": ("kappa", "lazy-training kappa\nat initialisation"),
}
LIMITS = {"V": "CNTK-V", "GAP": "CNTK-GAP", "FC": "FC-NTK"}  # of a kind: the column of its kernel
LEAST = 1.8  # inches of a panel


def measured(result: dict) -> list[str]:
    """The measures that at least one network has."""
    return [name for name in NAMES if any(row[name] is not None for row in result["means"])]


def listing(result: dict) -> Listing:
    """The table: for each kind and depth a row for each width, then slopes and what is expected of them."""
    shown = measured(result)
    forms = {"kind": "s", "depth": "s", "width": "s", "networks": "s"} | {
        NAMES[name][0]: "s" for name in shown
    }
    rows: list[dict] = []
    doubtful = set()
    for kind, depth in cells(result):
        head = {"kind": kind, "depth": str(depth)}
        for row in _of(result["means"], kind, depth):
            numbers = {NAMES[name][0]: _number(row[name], row[f"{name}_deviation"]) for name in shown}
            if row["diverged"]:
                doubtful.add(len(rows))
            rows.append(head | {"width": count(row["width"]), "networks": str(row["networks"])} | numbers)
        slopes = {slope["measure"]: slope for slope in _of(result["slopes"], kind, depth)}
        for word, text in (("slope", _slope), ("expected", _expected)):
            cells_ = {NAMES[name][0]: text(slopes.get(name)) for name in shown}
            if word == "slope" and any(slopes[name]["doubt"] for name in shown if name in slopes):
                doubtful.add(len(rows))
            rows.append(head | {"width": word, "networks": ""} | cells_)
    return Listing(title(result), forms, rows, tuple(notes(result)), frozenset(doubtful))


def title(result: dict) -> str:
    """The run and its images, in a line."""
    data = result["data"]
    return (
        f"{short(result['name'])}: finite networks against their infinite-width limits, "
        f"{short(data['name'])}, {count(data['images'])} images"
    )


def notes(result: dict) -> list[str]:
    """What a reader must know to interpret the numbers."""
    how = result["made"]["settings"]["converge"]
    said = [
        "Means over networks +- their standard deviation; slopes of log(mean) against log(width), by least "
        "squares, +- one standard error."
    ]
    trained: dict[tuple, int] = {}  # more than the config says, where an earlier call has trained more
    for item in result["networks"]:
        of = item["kind"], item["depth"], item["width"]
        trained[of] = trained.get(of, 0) + item["trained"]
    low, high = min(trained.values()), max(trained.values())
    steps, iterations = (how[key] if high else 0 for key in ("steps", "iterations"))
    if not all(item["trained"] for item in result["networks"]) and (steps or iterations):
        some = str(low) if low == high else f"{low} to {high}"
        have = "network has" if low == high == 1 else "networks have"
        said.append(f"At each width, {some} {have} all measures; the others have only the errors.")
    if steps:
        said.append(
            f"Training: {steps} steps of full-batch gradient descent at rate {how['rate']:g} / (largest "
            "eigenvalue of the exact kernel), the same time for every width."
        )
    if iterations:
        said.append(
            "kappa = |f - y| |D2f| / |Df|^2 (Chizat and Bach); |D2f|: a lower bound, by power iteration."
        )
    lost = sum(row["diverged"] for row in result["means"])
    if lost:
        said.append(
            f"? Not to be trusted: training of {lost} network{'s' * (lost != 1)} failed (it diverged, or no "
            f"output depended on a weight); drift and movement leave {'it' if lost == 1 else 'them'} out."
        )
    return said


def cells(result: dict) -> list[tuple[str, int]]:
    """(kind, depth) of what was measured, in order."""
    return list(dict.fromkeys((row["kind"], row["depth"]) for row in result["means"]))


def write(result: dict, folder: Path) -> None:
    """Write converge.txt, converge.md and the figure as converge.png, .svg and .pdf."""
    table = listing(result)
    write_atomic(folder / "converge.txt", written(table))
    write_atomic(folder / "converge.md", written(table, "markdown"))
    words = title(result), note(result)
    style.save(folder / "converge", partial(figure, result, words=words), ("png", "svg", "pdf"))


@own_settings()
def figure(result: dict, *, width: float | str = "page", words: tuple[str, str] | None = None) -> Any:
    """Every measure against width, log-log, with the deviation between networks, and the slope expected.

    Parameters
    ----------
    result : dict
        Of `analyses.converge.converge`.
    width, words
        As for `depth.figure`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    shown = measured(result)
    size = inches(width)
    across = min(3, len(shown), max(1, int(size / LEAST)))
    down = -(-len(shown) // across)
    made = Figure(figsize=(size, down * (0.3 + min(2.2, 0.85 * size / across))), layout="constrained")
    panels = made.subplots(down, across, squeeze=False).flatten()
    for axes, name in zip(panels, shown, strict=False):
        _panel(axes, result, name)
    for axes in panels[len(shown) :]:
        axes.remove()
    finish(made, list(panels[: len(shown)]), labelled(panels[: len(shown)]), words)
    return made


def note(result: dict) -> str:
    """What a reader must know of the figure."""
    said = "Bars: standard deviation over networks. Grey: the slope expected for large widths."
    return " ".join([said, *notes(result)])


def _panel(axes: Any, result: dict, name: str) -> None:
    depths = list(dict.fromkeys(depth for _, depth in cells(result)))
    for kind, depth in cells(result):
        rows = [row for row in _of(result["means"], kind, depth) if row[name]]
        if not rows:
            continue
        widths, means = [row["width"] for row in rows], [row[name] for row in rows]
        spread = [row[f"{name}_deviation"] or 0 for row in rows]
        colour, marker, _ = looks.of(LIMITS[kind])
        below = [
            min(s, 0.9 * m) for s, m in zip(spread, means, strict=True)
        ]  # a logarithm has no place for 0
        axes.errorbar(
            widths,
            means,
            (below, spread),
            label=f"{kind}, depth {depth}",
            color=colour,
            marker=marker,
            elinewidth=0.8,
            linestyle=dash(depths, depth),
        )
        slope = next((s for s in _of(result["slopes"], kind, depth) if s["measure"] == name), None)
        if slope and slope["expected"] is not None:  # through the last mean
            line = [means[-1] * (width / widths[-1]) ** slope["expected"] for width in widths]
            axes.plot(widths, line, color="0.55", linewidth=1, linestyle=(0, (4, 2)), zorder=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("width")
    axes.set_title(NAMES[name][1])
    decades(axes.yaxis)
    measured_at = sorted({row["width"] for row in result["means"]})
    axes.set_xticks(measured_at, [f"{tick:g}" for tick in measured_at])
    axes.set_xticks([], minor=True)
    dress(axes)


def _of(rows: list[dict], kind: str, depth: int) -> list[dict]:
    return [row for row in rows if (row["kind"], row["depth"]) == (kind, depth)]


def _number(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.3g}" if deviation is None else f"{mean:.3g} +- {deviation:.1g}"


def _slope(slope: dict | None) -> str:
    if slope is None or slope["slope"] is None:
        return "-"
    error = slope["standard_error"]
    return f"{slope['slope']:.2f}" if error is None else f"{slope['slope']:.2f} +- {error:.2f}"


def _expected(slope: dict | None) -> str:
    return "-" if slope is None or slope["expected"] is None else f"{slope['expected']:g}"
