"""The Gaussian process posterior as tables and a figure: coverage and calibration (`runs.posterior`)."""

from pathlib import Path
from typing import Any

from cntk_bench.report.listing import Listing
from cntk_bench.report.plot import dress, image, save, write_around
from cntk_bench.report.rows import DOUBTED, cell_name, count
from cntk_bench.report.style import style
from cntk_bench.text import short

SHOWN = (0.5, 0.9, 0.95)  # levels of the intervals in the table
EDGES = {
    "largest": "the likeliest ridge is the largest tried: to this kernel the targets look like noise",
    "smallest": "the likelihood rises further below the ridge, where errors of stored kernels decide it",
}


def listing(results: list[dict]) -> Listing:
    """The table: a row for each cell."""
    forms = {
        "column": "s",
        "depth": "d",
        "ridge": ".3g",
        "scale": ".3g",
        "log p(y)": ".4f",
        "accuracy": ".2f",
        "s.e.": ".2f",
        "NLL": ".4f",
        **{_head(level): ".2f" for level in SHOWN},
        "ECE": ".2f",
        "log loss": ".4f",
    }
    rows = [
        {
            "column": facts["column"],
            "depth": facts["depth"],
            "ridge": facts["ridge"],
            "scale": facts["scale"],
            "log p(y)": facts["log_likelihood"],
            "accuracy": facts["accuracy"],
            "s.e.": facts["standard_error"],
            "NLL": facts["nll"],
            **{_head(one["level"]): 100 * one["observed"] for one in facts["coverage"]},
            "ECE": 100 * facts["ece"],
            "log loss": facts["log_loss"],
        }
        for facts in results
    ]
    doubtful = frozenset(place for place, facts in enumerate(results) if facts["doubt"])
    return Listing(title(results[0]), forms, rows, tuple(notes(results)), doubtful)


def calibration(facts: dict) -> Listing:
    """The calibration table of one cell: how often the likeliest class is right, by its probability."""
    forms = {"probability": "s", "images": "d", "mean": ".2f", "right": ".2f"}
    rows: list[dict[str, Any]] = [
        {
            "probability": f"{100 * one['low']:.1f} - {100 * one['high']:.1f}",
            "images": one["count"],
            "mean": 100 * one["confidence"],
            "right": 100 * one["accuracy"],
        }
        for one in facts["reliability"]
    ]
    name = f"{cell_name(facts)}: probability of the likeliest class, in percent"
    return Listing(name, forms, rows)


def title(facts: dict) -> str:
    """The data, in a line."""
    data = facts["data"]
    return (
        f"{short(facts['run'])}: Gaussian process posterior, {short(data['name'])}, "
        f"{count(data['n_train'])} training and {count(data['n_test'])} test images"
    )


def notes(results: list[dict]) -> list[str]:
    """What a reader must know to read the numbers rightly."""
    chosen = "of maximum likelihood" if results[0]["chosen"] == "likelihood" else "as given"
    said = [
        f"ridge: variance of the noise on targets, relative to the prior's mean variance, {chosen}; scale: "
        "of the prior, of maximum likelihood; log p(y): log likelihood of the training targets, and NLL: "
        "negative log likelihood of the test targets, both per image and class.",
        "50 %, 90 %, 95 %: the share in percent of test targets within the central intervals of that "
        "probability; targets have two values, so even a good fit need not cover as a normal variable does.",
        "ECE: expected calibration error in percentage points, and log loss: mean of -log, both of the "
        "probability that a class's function is the largest. The test images choose nothing.",
    ]
    for facts in results:
        if facts["edge"]:
            said.append(f"{cell_name(facts)}: {EDGES[facts['edge']]}.")
        if facts["floored"]:
            said.append(
                f"{cell_name(facts)}: the variance of {facts['floored']:.3g} % of the test images is not "
                "larger than its error from stored kernels; the error stands in its place."
            )
        if facts["doubt"]:
            said.append(f"{DOUBTED} Not to be trusted: {cell_name(facts)}: {facts['doubt']}.")
    return said


def draw(facts: dict, path: str | Path) -> bool:
    """Calibration of one cell: class probabilities against how often they are right; interval coverage.

    Parameters
    ----------
    facts : dict
        Of `runs.posterior.infer`.
    path : path-like
        A file ending in .png, .svg or .pdf.

    Returns
    -------
    bool
        Whether there is a figure (`plot.save`).
    """
    return save(path, lambda kind: _drawn(facts, kind))


def _drawn(facts: dict, kind: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.8), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    colour, marker, _ = style(facts["column"])
    bins = facts["reliability"]
    total = sum(one["count"] for one in bins)
    left.bar(
        [one["low"] for one in bins],
        [one["count"] / total for one in bins],
        [one["high"] - one["low"] for one in bins],
        align="edge",
        color="0.85",
        label="share of test images",
    )
    left.errorbar(
        [one["confidence"] for one in bins],
        [one["accuracy"] for one in bins],
        [(one["accuracy"] * (1 - one["accuracy"]) / one["count"]) ** 0.5 for one in bins],
        color=colour,
        marker=marker,
        capsize=3,
        elinewidth=1,
        label=f"{cell_name(facts)}, ECE {100 * facts['ece']:.2f} points",
    )
    left.set_xlabel("probability of the likeliest class")
    left.set_ylabel("share of it that is right")
    right.plot(
        [one["level"] for one in facts["coverage"]],
        [one["observed"] for one in facts["coverage"]],
        color=colour,
        marker=marker,
        markersize=4,
        label=f"{cell_name(facts)}, targets",
    )
    right.set_xlabel("probability of the central interval")
    right.set_ylabel("share of test targets within it")
    for axes in (left, right):
        axes.plot([0, 1], [0, 1], color="0.3", linewidth=1, linestyle="--", label="as they should be")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        dress(axes)
        axes.legend(loc="upper left", frameon=False, fontsize=8)
    write_around(figure, title(facts), " ".join(["Bars: one standard error.", *notes([facts])]))
    return image(figure, kind)


def _head(level: float) -> str:
    return f"{100 * level:g} %"
