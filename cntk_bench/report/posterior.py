"""The Gaussian process posterior as tables and a figure: coverage and calibration (`analyses.posterior`)."""

from typing import Any

from cntk_bench.regression.accuracy import standard_error
from cntk_bench.report import looks
from cntk_bench.report.axes import dress, finish, labelled
from cntk_bench.report.caveats import caveats, uninformative
from cntk_bench.report.listing import Listing
from cntk_bench.report.rows import DOUBTED, count, name_of
from cntk_bench.report.style import inches, own_settings
from cntk_bench.text import short

BESIDE = 5.0  # inches in which two panels have room beside each other
LEVELS = (0.5, 0.9, 0.95)  # of the intervals in the table
EDGES = {
    "largest": "the likeliest ridge is the largest tried: to this kernel the targets look like noise",
    "smallest": "the likelihood rises further below this ridge, but there errors of stored kernels decide it",
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
        **{_head(level): ".2f" for level in LEVELS},
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
    return Listing(title(results[0]), forms, rows, tuple(notes(results)), doubtful, "accuracy")


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
    name = f"{name_of(facts)}: probability of the likeliest class, in percent"
    return Listing(name, forms, rows)


def title(facts: dict) -> str:
    """The data, in a line."""
    data = facts["data"]
    return (
        f"{short(facts['run'])}: Gaussian process posterior, {short(data['name'])}, "
        f"{count(data['n_train'])} training and {count(data['n_test'])} test images"
    )


def notes(results: list[dict]) -> list[str]:
    """What a reader must know to interpret the numbers."""
    chosen = "by maximum likelihood" if results[0]["chosen"] == "likelihood" else "as given"
    said = [
        f"ridge: noise variance of the targets, relative to the prior's mean variance, {chosen}; scale: of "
        "the prior, by maximum likelihood; log p(y): log likelihood of the training targets, and NLL: "
        "negative log likelihood of the test targets, both per image and class.",
        "50 %, 90 %, 95 %: percentage of test targets within the central interval of that probability; as "
        "targets take only two values, coverage may differ from it even for a good fit.",
        "ECE: expected calibration error in percentage points, and log loss: mean of -log p, both for the "
        "probability p that a class's function is the largest. The test images had no part in any choice.",
        *caveats(results),
        *uninformative(
            ((facts["accuracy"], facts["standard_error"]) for facts in results), results[0]["data"]["n_test"]
        ),
    ]
    for facts in results:
        if facts["edge"]:
            said.append(f"{name_of(facts)}: {EDGES[facts['edge']]}.")
        if facts["floored"]:
            said.append(
                f"{name_of(facts)}: the variance of {facts['floored']:.3g} % of the test images is not "
                "larger than its error from stored kernels; the error is used instead."
            )
        if facts["doubt"]:
            said.append(f"{DOUBTED} Not to be trusted: {name_of(facts)}: {facts['doubt']}.")
    return said


@own_settings()
def figure(facts: dict, *, width: float | str = "page", words: tuple[str, str] | None = None) -> Any:
    """Calibration of one cell: class probabilities against how often they are right; interval coverage.

    Parameters
    ----------
    facts : dict
        Of `analyses.posterior.infer`.
    width, words
        As for `depth.figure`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    size = inches(width)
    beside = size >= BESIDE
    high = 0.48 * size if beside else 1.7 * size
    made = Figure(figsize=(size, high), layout="constrained")
    left, right = made.subplots(1, 2) if beside else made.subplots(2, 1)
    colour, marker, _ = looks.of(facts["column"])
    bins = facts["reliability"]
    total = sum(one["count"] for one in bins)
    left.bar(
        [one["low"] for one in bins],
        [one["count"] / total for one in bins],
        [one["high"] - one["low"] for one in bins],
        align="edge",
        color="0.87",
        label="share of test images",
    )
    left.errorbar(
        [one["confidence"] for one in bins],
        [one["accuracy"] for one in bins],
        [standard_error(one["accuracy"], one["count"]) / 100 for one in bins],
        color=colour,
        marker=marker,
        elinewidth=0.8,
        label=name_of(facts),
    )
    left.set_title(f"expected calibration error {100 * facts['ece']:.2f} points")
    left.set_xlabel("probability of the likeliest class")
    left.set_ylabel("share that is right")
    right.plot(
        [one["level"] for one in facts["coverage"]],
        [one["observed"] for one in facts["coverage"]],
        color=colour,
        marker=marker,
        label=name_of(facts),
    )
    right.set_xlabel("probability of the central interval")
    right.set_ylabel("share of test targets within it")
    for axes in (left, right):
        axes.plot([0, 1], [0, 1], color="0.3", linewidth=0.8, linestyle="--", label="calibrated")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        dress(axes)
    finish(made, (left, right), labelled((left, right)), words)
    return made


def note(facts: dict) -> str:
    """What a reader must know of the figure."""
    return " ".join(["Bars: one standard error.", *notes([facts])])


def _head(level: float) -> str:
    return f"{100 * level:g} %"
