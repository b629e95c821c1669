"""Learning curves beyond their largest n (`analyses.extrapolation`): rows, notes, broken lines."""

from typing import Any

from cntk_bench.report.rows import count, name_of
from cntk_bench.text import short

LABEL = "extrapolated"
SAID = (
    "Extrapolated, not measured: error(n) = {law}, the law of Cortes et al. 1994 and Hestness et al. 2017 "
    "(arXiv:1712.00409), fitted to n = {sizes} by least squares weighted with the standard errors. Its s.e. "
    "comes from {count:,} resamples of the {over}, the same for all n, and does not include {missing}whether "
    "the law holds that far. lowest, highest: over the laws with c >= 0 and with c = 0{fewer}, and a "
    "parabola on logarithmic axes if the error falls faster than a power."
)


def asked(results: list[dict]) -> list[dict]:
    """Those results that were to be extrapolated."""
    return [facts for facts in results if "extrapolation" in facts]


def found(results: list[dict]) -> list[dict]:
    """Those of the results that were extrapolated."""
    return [facts for facts in asked(results) if not facts["extrapolation"]["refused"]]


def row(beyond: dict) -> dict[str, Any]:
    """The entries of a table's row for the size that was not measured."""
    return {
        "n": beyond["train"],
        "kind": "extrapolated",
        "accuracy": beyond["accuracy"],
        "s.e.": beyond["standard_error"],
        "lowest": beyond["lowest"],
        "highest": beyond["highest"],
        "published": beyond["published"],
    }


def refusals(results: list[dict]) -> list[str]:
    """Why cells that were to be extrapolated were not, a line for each."""
    return [
        f"{name_of(facts)} is not extrapolated: {short(facts['extrapolation']['refused'], 200)}"
        for facts in asked(results)
        if facts["extrapolation"]["refused"]
    ]


def notes(results: list[dict]) -> list[str]:
    """What a reader must know of extrapolated accuracies."""
    said = [f"{line}." for line in refusals(results)]
    several: dict[str, None] = {}
    for facts in found(results):
        beyond = facts["extrapolation"]
        alone = beyond["over"] == "test images"
        several[
            SAID.format(
                law=beyond["law"],
                sizes=", ".join(map(count, beyond["sizes"])),
                count=beyond["resamples"],
                over=beyond["over"],
                fewer=", also without the smallest n" if _without_smallest(beyond) else "",
                missing="what other training images would change, or " if alone else "",
            )
        ] = None
    said += several
    for facts in found(results):
        beyond = facts["extrapolation"]
        check, floor = beyond["check"], f", c = {beyond['c']:.2f}" if "c" in beyond["law"] else ""
        said.append(
            f"{name_of(facts)}: b = {beyond['b']:.3f}{floor}; from the smaller n the law predicts "
            f"{check['predicted']:.2f} for n = {count(check['train'])}, where {check['measured']:.2f} was "
            "measured."
        )
    return said


def _without_smallest(beyond: dict) -> bool:
    """Whether laws were also fitted without the smallest sizes."""
    return any(choice["from"] > beyond["sizes"][0] for choice in beyond["choices"])


def dashed(axes: Any, facts: dict, colour: str, strength: float, marker: str) -> None:
    """Continue a curve: broken, with a band of one standard error, and a hollow marker at the end."""
    beyond = facts["extrapolation"]
    path = beyond["path"]
    sizes, values, errors = ([one[key] for one in path] for key in ("train", "accuracy", "standard_error"))
    axes.plot(sizes, values, color=colour, alpha=strength, linestyle="--", linewidth=1.0,
              label=f"{facts['column']}, depth {facts['depth']}, {LABEL}")  # fmt: skip
    axes.fill_between(
        sizes,
        [value - error for value, error in zip(values, errors, strict=True)],
        [value + error for value, error in zip(values, errors, strict=True)],
        color=colour,
        alpha=0.15 * strength,
        linewidth=0,
    )
    axes.plot(
        [beyond["train"]],
        [beyond["accuracy"]],
        color=colour,
        alpha=strength,
        marker=marker,
        markerfacecolor="white",
        linestyle="none",
    )
