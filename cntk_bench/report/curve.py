"""Learning curves as a table and a figure: accuracy against the training images (`analyses.curve`)."""

from typing import Any

from cntk_bench.report import extrapolation, looks
from cntk_bench.report.axes import apart, decades, dress, finish, labelled, mark_doubted, percents
from cntk_bench.report.caveats import caveats, uninformative
from cntk_bench.report.listing import Listing
from cntk_bench.report.published import RIDGELESS
from cntk_bench.report.rows import DOUBTED, count, draws
from cntk_bench.report.style import inches, own_settings
from cntk_bench.text import exact, short

PUBLISHED = "published"
ELSEWHERE = "published at other sizes"  # as many training images, other test images
RING: dict[str, Any] = {"marker": "o", "markersize": 8, "markerfacecolor": "none", "linestyle": "none"}
MOST_NAMED = 12  # sizes that all have ticks; else powers of ten


def listing(results: list[dict]) -> Listing:
    """The table of all cells: a row for each cell and size, measured or extrapolated."""
    forms = {"column": "s", "depth": "d", "n": "d", "accuracy": ".2f", "s.e.": ".2f"}
    points = [point for facts in results for point in facts["points"]]
    beyond = [facts["extrapolation"] for facts in extrapolation.found(results)]
    if extrapolation.asked(results):
        forms = {"column": "s", "depth": "d", "n": "d", "kind": "s", "accuracy": ".2f", "s.e.": ".2f"}
    if _draws(results[0]) > 1:
        forms["spread"] = ".2f"
    if beyond:
        forms |= {"lowest": ".2f", "highest": ".2f"}
    if any(one["published"] is not None for one in [*points, *beyond]):
        forms["published"] = ".2f"
    if any(_elsewhere(point) for point in points):
        forms[ELSEWHERE] = ".2f"
    if any(_its_spread(point) is not None for point in points):
        forms["its spread"] = ".2f"
    if any(facts["ridge"] for facts in results):
        forms["ridge"] = ".4g"
    rows: list[dict] = []
    doubtful = []
    for facts in results:
        doubtful += [len(rows) + place for place, point in enumerate(facts["points"]) if point["doubt"]]
        rows += [_row(facts, point) for point in facts["points"]]
        if facts in extrapolation.found(results):
            doubtful += [len(rows)] if facts["extrapolation"]["doubt"] else []
            rows.append(_cell(facts) | extrapolation.row(facts["extrapolation"]))
    return Listing(title(results), forms, rows, tuple(notes(results)), frozenset(doubtful), "accuracy")


def _cell(facts: dict) -> dict[str, Any]:
    return {"column": facts["column"], "depth": facts["depth"]}


def _row(facts: dict, point: dict) -> dict[str, Any]:
    return _cell(facts) | {
        "n": point["train"],
        "kind": "measured",
        "accuracy": point["accuracy"],
        "s.e.": point["standard_error"],
        "spread": point.get("spread"),
        "published": point["published"],
        ELSEWHERE: _elsewhere(point).get("accuracy"),
        "its spread": _its_spread(point),
        "ridge": point["ridge"],
    }


def _draws(facts: dict) -> int:
    return draws(facts["data"])


def _elsewhere(point: dict) -> dict[str, Any]:
    """What was published for the same number of training images but other test images; may be empty."""
    return point.get("elsewhere") or {}


def _has_published(facts: dict) -> bool:
    """Whether something published stands beside one of a cell's points, measured or extrapolated."""
    beyond = [facts["extrapolation"]] if extrapolation.found([facts]) else []
    return any(one["source"] or _elsewhere(one) for one in [*facts["points"], *beyond])


def _its_spread(point: dict) -> float | None:
    """The published deviation between draws of the accuracy that is shown beside a point."""
    return _elsewhere(point).get("spread") if _elsewhere(point) else point.get("published_spread")


def alike(results: list[dict]) -> list[list[dict]]:
    """Results in groups that can share a table: with as many draws, training and test images each."""
    groups: dict[tuple, list[dict]] = {}
    for facts in results:
        data = facts["data"]
        groups.setdefault((data["n_train"], data["n_test"], _draws(facts)), []).append(facts)
    return list(groups.values())


def title(results: list[dict]) -> str:
    """The data and the ridge, in a line."""
    facts = results[0]
    data, ridges = facts["data"], sorted({one["ridge"] for one in results})
    several = f"each of {count(_draws(facts))} draws of " if _draws(facts) > 1 else ""
    return (
        f"{short(facts['run'])}: learning curves on the first n of {several}{count(data['n_train'])} "
        f"training images, {short(data['name'])}, {count(data['n_test'])} test images, "
        f"ridge {' or '.join(map(exact, ridges))}"
    )


def notes(results: list[dict]) -> list[str]:
    """What a reader must know to interpret the numbers."""
    points = [point for facts in results for point in facts["points"]]
    scores = ((point["accuracy"], point["standard_error"]) for point in points)
    said = _of_sets(results[0]) + caveats(results)
    said += uninformative(scores, results[0]["data"]["n_test"])
    if any(facts["ridge"] for facts in results):
        said.append(
            "The absolute ridge is that of all images, for every n; ridge: relative to the mean diagonal of "
            "the first n images."
        )
    jitter = max(facts["jitter"] for facts in results)
    if jitter:
        said.append(
            f"The solver had to add jitter to the diagonal, {jitter:.0e} at most, the same for every n."
        )
    said += extrapolation.notes(results)
    beyond = [facts["extrapolation"] for facts in extrapolation.found(results)]
    sources = dict.fromkeys(one["source"] for one in [*points, *beyond] if one["source"])
    said += [f"Published for the same numbers of images: {source}." for source in sources]
    others = [_elsewhere(point) for point in points if _elsewhere(point)]
    for n_test, source in dict.fromkeys((one["n_test"], one["source"]) for one in others):
        said.append(
            f"{ELSEWHERE}: for as many training images but {count(n_test)} test images, here "
            f"{count(results[0]['data']['n_test'])}, so no difference is shown, and "
            f"a spread is larger with fewer test images: {source}."
        )
    if any(_its_spread(point) is not None for point in points):
        said.append("its spread: the published standard deviation over draws.")
    if any(facts["ridge"] and _has_published(facts) for facts in results):
        said.append(RIDGELESS)
    doubts = dict.fromkeys(one["doubt"] for one in [*points, *beyond] if one["doubt"])
    return said + [f"{DOUBTED} Not to be trusted: {doubt}." for doubt in doubts]


def _of_sets(facts: dict) -> list[str]:
    """Notes on the training sets, of one draw or several, and on the errors of the accuracies."""
    data, several = facts["data"], _draws(facts)
    whole = several == 1 or data["n_train"] % data["classes"] == 0
    by_class = "are as balanced over the classes as the data allow"
    if not whole:
        by_class = (
            f"may have two more of one class than of another, and more if a class runs out, since "
            f"{count(data['n_train'])} is no multiple of {data['classes']} classes"
        )
    if data.get("order") == "random":
        by_class = "are taken at random, not by classes"
    if several == 1:
        return [
            f"Accuracies in percent, with their binomial standard errors. The first n images {by_class}; "
            "they are nested, and the test images are the same, so errors are correlated."
        ]
    return [
        f"Accuracies in percent, means over {count(several)} draws; s.e.: binomial standard error over the "
        "test images, which all draws share; spread: standard deviation over draws, dividing by one less "
        "than their number.",
        f"The first n images of a draw {by_class}. Draws have no images in common; the sets of one draw "
        "are nested, so errors are correlated.",
    ]


@own_settings()
def figure(results: list[dict], *, width: float | str = "page", words: tuple[str, str] | None = None) -> Any:
    """Accuracy against n, a line per cell, with bars of one standard error; published accuracies as rings.

    Of several draws the bars are of one deviation between draws. An extrapolation is a broken line.

    Parameters
    ----------
    results : list of dict
        Of `analyses.curve.follow`, one for each cell.
    width, words
        As for `depth.figure`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    size = inches(width)
    made = Figure(figsize=(size, 0.36 * size + 0.75), layout="constrained")
    axes: Any = made.add_subplot()
    depths = sorted({facts["depth"] for facts in results})
    for facts in results:
        look = looks.of(facts["column"])
        # Deeper is paler.
        strength = 1 - 0.7 * depths.index(facts["depth"]) / len(depths)
        label = cell_label(facts, results)
        _measured(axes, facts, strength, label)
        if facts in extrapolation.found(results):
            extrapolation.dashed(axes, facts, look.colour, strength, look.marker)
            if facts["extrapolation"]["doubt"]:
                mark_doubted(axes, facts["extrapolation"]["train"], facts["extrapolation"]["accuracy"])
        _published(axes, facts, strength, label)
        for point in facts["points"]:
            if point["doubt"]:
                mark_doubted(axes, point["train"], point["accuracy"])
    axes.set_xscale("log")
    sizes = {point["train"] for facts in results for point in facts["points"]}
    sizes |= {facts["extrapolation"]["train"] for facts in extrapolation.found(results)}
    shown = apart(sorted(sizes), 72 * (0.88 * size - 0.5))
    decades(axes.xaxis)
    if len(sizes) <= MOST_NAMED:
        axes.set_xticks(shown, [count(size) for size in shown])
        axes.set_xticks([], minor=True)
    axes.set_xlabel("training images n")
    bar = "s.e." if _draws(results[0]) == 1 else "s.d. of draws"
    axes.set_ylabel("test accuracy (%)" if words else f"test accuracy ± {bar} (%)")
    percents(axes.yaxis)
    dress(axes)
    finish(made, [axes], _handles(results, axes), words)
    return made


def note(results: list[dict]) -> str:
    """What a reader must know of the figure."""
    bars = "Bars: one standard error."
    if _draws(results[0]) > 1:
        bars = "Bars: one standard deviation over draws."
    return " ".join([bars, *notes(results)])


def _handles(results: list[dict], axes: Any) -> dict[str, Any]:
    """The legend's entries: one for each cell, and one each for what was published and extrapolated."""
    from matplotlib.lines import Line2D

    found = labelled([axes])
    labels = [cell_label(facts, results) for facts in results]
    kept = {label: found[label] for label in labels if label in found}
    for what, look in ((extrapolation.LABEL, {"linestyle": "--", "linewidth": 1.0}), (PUBLISHED, RING),
                       (ELSEWHERE, RING)):  # fmt: skip
        if any(label.endswith(f", {what}") for label in found):
            kept[what] = Line2D([], [], color="0.35", **look)
    return kept


def _measured(axes: Any, facts: dict, strength: float, label: str) -> None:
    """The line of a cell, with its bars."""
    look, points = looks.of(facts["column"]), facts["points"]
    axes.errorbar(
        [point["train"] for point in points],
        [point["accuracy"] for point in points],
        [point["spread" if _draws(facts) > 1 else "standard_error"] for point in points],
        label=label,
        color=look.colour,
        alpha=strength,
        marker=look.marker,
        linestyle=look.line,
        elinewidth=0.8,
    )


def _published(axes: Any, facts: dict, strength: float, label: str) -> None:
    """Rings where something was published, with bars of its deviation between draws where it has one."""
    beyond = [facts["extrapolation"]] if extrapolation.found([facts]) else []
    for place, what in (("published", PUBLISHED), ("elsewhere", ELSEWHERE)):
        known = []
        for one in [*facts["points"], *beyond]:
            value = _elsewhere(one).get("accuracy") if place == "elsewhere" else one["published"]
            if value is not None:
                known.append((one["train"], value, _its_spread(one)))
        if known:
            sizes, values, spreads = zip(*known, strict=True)
            barred = any(spread is not None for spread in spreads)
            axes.errorbar(
                sizes,
                values,
                [spread or 0.0 for spread in spreads] if barred else None,
                label=f"{label}, {what}",
                color=looks.of(facts["column"]).colour,
                alpha=strength,
                elinewidth=0.8,
                **RING,
            )


def cell_label(facts: dict, results: list[dict]) -> str:
    """A cell in a legend of all results, with its ridge where that is not the ridge of all."""
    several = len({one["ridge"] for one in results}) > 1
    ridge = f", ridge {exact(facts['ridge'])}" if several else ""
    return f"{facts['column']}, depth {facts['depth']}{ridge}"
