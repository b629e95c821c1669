"""Paired tests as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from cntk_bench.regression.paired import DRAWS, IMAGES, LEVEL, MCNEMAR, NONE
from cntk_bench.report.compared import texts
from cntk_bench.report.listing import Listing
from cntk_bench.report.rows import DOUBTED, MISSING, cell_name, count
from cntk_bench.text import short

FORMS = {
    "images": "d",
    "difference": "+z.2f",
    "s.e.": ".2f",
    "low": "+z.2f",
    "high": "+z.2f",
    "only first": "d",
    "only second": "d",
    "draws": "d",
    "s.e., images": ".2f",
    "test": "s",
    "p": ".2g",
    "p, Holm": ".2g",
    "significant": "s",
}

SMALLEST = 1e-300  # of the p-values that are told


def listing(pairs: Sequence[dict], considered: int) -> Listing:
    """The table of some pairs (`comparisons.pairs.compare`) out of the number `considered`."""
    table = [_row(pair) for pair in pairs]
    absent: set[str] = set()
    if all(pair["draws"] is None for pair in pairs):
        absent |= {"draws", "s.e., images"}
    if all(pair["only_first"] is None for pair in pairs):
        absent |= {"only first", "only second"}
    forms = FORMS | {head: _digits([row[head] for row in table]) for head in ("p", "p, Holm")}
    heads = ["run", "depth", "first", "second"]
    for head in ("run", "depth"):
        if len({row[head] for row in table}) == 1 and table[0][head] in ("", MISSING):
            heads.remove(head)
    runs = {row["run"] for row in table}
    above: tuple[str, ...] = ()
    if len(runs) == 1 and "run" in heads:
        heads.remove("run")
        above = (f"Solve: {runs.pop()}",)
    return Listing(
        f"Paired comparisons: {count(len(pairs))}",
        dict.fromkeys(heads, "s") | {head: form for head, form in forms.items() if head not in absent},
        table,
        tuple(_notes(pairs, considered)),
        frozenset(place for place, pair in enumerate(pairs) if pair["doubt"]),
        "difference",
        above,
    )


def _row(pair: Mapping) -> dict[str, Any]:
    first, second = pair["first"], pair["second"]
    together = [name for name in first["runs"] if name in second["runs"]]
    same_depth = first["depth"] == second["depth"]
    runs = together[:1] or [first["runs"][0], second["runs"][0]]
    return {
        "run": short(", ".join(dict.fromkeys(runs)), 80),
        "depth": MISSING if not same_depth or first["depth"] is None else str(first["depth"]),
        "first": _side(first, second, same_depth),
        "second": _side(second, first, same_depth),
        "images": pair["images"],
        "difference": pair["difference"],
        "s.e.": pair["error"],
        "low": pair["low"],
        "high": pair["high"],
        "only first": pair["only_first"],
        "only second": pair["only_second"],
        "draws": pair["draws"],
        "s.e., images": pair["error_images"],
        "test": pair["test"],
        "p": _probability(pair["p"]),
        "p, Holm": _probability(pair["p_holm"]),
        "significant": MISSING if pair["p"] is None else "yes" if pair["significant"] else "no",
    }


def _probability(p: float | None) -> float | str | None:
    """A p-value; one that is too small for float64, which has it as 0 or with fewer digits, as a text."""
    return f"<{SMALLEST:.0e}" if p is not None and p < SMALLEST else p


def _digits(values: Sequence[Any]) -> str:
    """The form of p-values: as few digits, at least 2, as tell each of them from the level of the tests."""
    others = [p for p in values if isinstance(p, float) and p != LEVEL]
    forms = [f".{digits}g" for digits in range(2, 18)]  # 17 tell any two numbers apart
    return next(form for form in forms if all(format(p, form) != format(LEVEL, form) for p in others))


def _side(side: Mapping, other: Mapping, same_depth: bool) -> str:
    name = cell_name(side["column"], None if same_depth else side["depth"])
    there = other["settings"]
    pairs = {key: (value, there.get(key, value)) for key, value in side["settings"].items()}
    settings = [f"{key}={texts(pair)[0]}" for key, pair in pairs.items()]
    return " ".join([name, *settings])


def _notes(pairs: Sequence[dict], considered: int) -> list[str]:
    tests = {pair["test"] for pair in pairs}
    said = [
        "difference: accuracy of the first minus that of the second, in percentage points, on the test "
        "images that both have; low, high: its 95 % confidence interval, for this pair alone."
    ]
    if MCNEMAR in tests:
        said.append(
            "McNemar: exact test on the images that only one of the two classifies correctly (only first, "
            "only second); s.e. over images; interval of Bonett and Price. It is about these training "
            "images, which both share, not about others."
        )
    if DRAWS in tests:
        said.append(
            "t, draws: Student's t over the draws, which share the test images: s.e., interval and p account "
            "for other training images, with these test images; other test images add s.e., images."
        )
    if IMAGES in tests:
        said.append(
            "t, images: Student's t over images, of correctness averaged over the repeats: it is about the "
            "networks that were trained, and these training images, which both share, not about others."
        )
    if NONE in tests:
        said.append(
            "none: not tested, as the two are not known to have the same training images, or several draws "
            "of them in common: how much the difference depends on the choice of images is unknown; s.e. "
            "over test images alone."
        )
    if any(pair["error"] is None for pair in pairs):
        said.append(
            "No s.e.: there is one image, or the difference is the same for all images, or draws, so that "
            "how much it varies is unknown; Student's t then has no p, either."
        )
    if known := sum(pair["p"] is not None for pair in pairs):
        holm = f"p with Holm's correction for the {count(known)} tests here"
        alone = "p itself, as there is one test"
        said.append(f"p, Holm: {alone if known == 1 else holm}; significant: below {LEVEL}.")
    if considered > len(pairs):
        said.append(
            f"{count(considered - len(pairs))} more could not be paired: predictions, or common test "
            "images, are missing."
        )
    doubts = dict.fromkeys(pair["doubt"] for pair in pairs if pair["doubt"])
    return said + [f"{DOUBTED} Not tested: {short(doubt, 200)}." for doubt in doubts]
