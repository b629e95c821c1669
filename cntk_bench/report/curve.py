"""Learning curves as a table and a figure: accuracy against the number of training images (`runs.curve`)."""

from pathlib import Path
from typing import Any

from cntk_bench.report.listing import Listing
from cntk_bench.report.plot import dress, image, mark_doubted, plain_ticks, save, write_around
from cntk_bench.report.rows import DOUBTED, count
from cntk_bench.report.style import style
from cntk_bench.text import short


def listing(results: list[dict]) -> Listing:
    """The table of all cells: a row for each cell and size."""
    forms = {"column": "s", "depth": "d", "n": "d", "accuracy": ".2f", "s.e.": ".2f"}
    if any(point["published"] is not None for facts in results for point in facts["points"]):
        forms["published"] = ".2f"
    if any(facts["ridge"] for facts in results):
        forms["ridge"] = ".4g"
    pairs = [(facts, point) for facts in results for point in facts["points"]]
    rows = [
        {
            "column": facts["column"],
            "depth": facts["depth"],
            "n": point["train"],
            "accuracy": point["accuracy"],
            "s.e.": point["standard_error"],
            "published": point["published"],
            "ridge": point["ridge"],
        }
        for facts, point in pairs
    ]
    doubtful = frozenset(place for place, (_, point) in enumerate(pairs) if point["doubt"])
    return Listing(title(results[0]), forms, rows, tuple(notes(results)), doubtful)


def title(facts: dict) -> str:
    """The data and the ridge, in a line."""
    data = facts["data"]
    return (
        f"{short(facts['run'])}: learning curves on the first n of {count(data['n_train'])} training images, "
        f"{short(data['name'])}, {count(data['n_test'])} test images, ridge {facts['ridge']:.3g}"
    )


def notes(results: list[dict]) -> list[str]:
    """What a reader must know to read the numbers rightly."""
    said = [
        "Accuracies in percent, with their binomial standard errors. The first n images are as balanced over "
        "the classes as the data allow; they are nested, and the test images the same: errors are correlated."
    ]
    if any(facts["ridge"] for facts in results):
        said.append(
            "The absolute ridge is that of all images, for every n; ridge is relative to the mean diagonal "
            "of n."
        )
    jitter = max(facts["jitter"] for facts in results)
    if jitter:
        said.append(f"The solver had to add jitter to the diagonal, {jitter:.0e} at most, for every n alike.")
    points = [point for facts in results for point in facts["points"]]
    sources = dict.fromkeys(point["source"] for point in points if point["source"])
    said += [f"Published, for as many training and test images: {source}." for source in sources]
    doubts = dict.fromkeys(point["doubt"] for point in points if point["doubt"])
    return said + [f"{DOUBTED} Not to be trusted: {doubt}." for doubt in doubts]


def draw(results: list[dict], path: str | Path) -> bool:
    """Accuracy against n, a line per cell, with bars of one standard error; published accuracies as rings.

    Parameters
    ----------
    results : list of dict
        Of `runs.curve.follow`, one for each cell.
    path : path-like
        A file ending in .png, .svg or .pdf.

    Returns
    -------
    bool
        Whether there is a figure (`plot.save`).
    """
    return save(path, lambda kind: _drawn(results, kind))


def _drawn(results: list[dict], kind: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes: Any = figure.add_subplot()
    depths = sorted({facts["depth"] for facts in results})
    for facts in results:
        look = style(facts["column"])
        # Deeper is paler.
        strength = 1 - 0.7 * depths.index(facts["depth"]) / len(depths)
        points = facts["points"]
        axes.errorbar(
            [point["train"] for point in points],
            [point["accuracy"] for point in points],
            [point["standard_error"] for point in points],
            label=f"{facts['column']}, depth {facts['depth']}",
            color=look.colour,
            alpha=strength,
            marker=look.marker,
            linestyle=look.line,
            markersize=4,
            linewidth=1.5,
            elinewidth=1,
            capsize=2,
        )
        known = [point for point in points if point["published"] is not None]
        if known:
            axes.plot(
                [point["train"] for point in known],
                [point["published"] for point in known],
                label=f"{facts['column']}, depth {facts['depth']}, published",
                color=look.colour,
                alpha=strength,
                marker="o",
                markersize=9,
                markerfacecolor="none",
                linestyle="none",
            )
        for point in points:
            if point["doubt"]:
                mark_doubted(axes, point["train"], point["accuracy"])
    axes.set_xscale("log")
    sizes = sorted({point["train"] for facts in results for point in facts["points"]})
    plain_ticks(axes.xaxis)
    if len(sizes) <= 8:
        axes.set_xticks(sizes, [count(size) for size in sizes])
        axes.set_xticks([], minor=True)
    axes.set_xlabel("training images n")
    axes.set_ylabel("test accuracy (%)")
    dress(axes)
    write_around(figure, title(results[0]), " ".join(["Bars: one standard error.", *notes(results)]))
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return image(figure, kind)
