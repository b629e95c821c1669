"""Several solves in one table: settings that differ are columns, those shared by all stand once above it."""

from collections.abc import Mapping, Sequence
from typing import Any

from cntk_bench.report.listing import Listing
from cntk_bench.report.rows import DOUBTED, HEADS, count, name_of
from cntk_bench.text import exact, short, visible

MOST_WORDS = 60  # characters of a setting's value
MOST_DIGITS = 300  # of a value that would otherwise read like another
MOST_NAMED = 3  # solves that a row names
MOST_MAKERS = 10  # lines of who made which
# What a row may have beside its settings: head -> format.
NUMBERS = {
    "ridge": ".3g",
    "accuracy": ".2f",
    "standard_error": ".2f",
    "spread": ".2f",
    "repeats": "d",
    "published": ".2f",
    "difference": "+z.2f",
    "difference_error": ".2f",
    "loo_error": ".5f",
    "compute_seconds": ".1f",
    "solve_seconds": ".2f",
}
SHOWN = HEADS | {
    "difference_error": "its s.e.",
    "loo_error": "loo error",
    "compute_seconds": "compute, s",
    "solve_seconds": "solve, s",
}
AROUND = ("machine", "version", "commit", "device")  # circumstances, which should change no number


def listing(rows: Sequence[dict], loo: bool = False) -> Listing:
    """The table of a comparison.

    Parameters
    ----------
    rows : sequence of dict
        As `comparisons.table.rows` has them; one at least.
    loo : bool
        Whether leave-one-out errors are shown, by which a setting may be chosen.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row["settings"]))
    varying = [key for key in keys if len(_values(rows, key)) > 1]
    if "solve.ridge" in varying and _said_by_ridges(rows):
        varying.remove("solve.ridge")
    said = {key: _texts(rows, key) for key in varying}
    table = [_row(row, {key: said[key][place] for key in varying}) for place, row in enumerate(rows)]
    numbers = {
        SHOWN.get(key, key): form
        for key, form in NUMBERS.items()
        if (key != "loo_error" or loo) and any(line[SHOWN.get(key, key)] is not None for line in table)
    }
    text = ["run", "column", "depth", *varying]
    if all(row["depth"] is None for row in rows):
        text.remove("depth")
    forms = dict.fromkeys(text, "s") | numbers
    solves = list(dict.fromkeys(name for row in rows for name in row["runs"]))
    alone = "one solve" if len(solves) == 1 else f"{count(len(solves))} solves"
    return Listing(
        f"Comparison of {alone}",
        forms,
        table,
        tuple(_notes(rows, numbers)),
        frozenset(place for place, row in enumerate(rows) if not row["trusted"]),
        "accuracy",
        tuple(_shared(rows)),
    )


def _values(rows: Sequence[dict], key: str) -> set[str]:
    """The distinct values of a setting in the rows, with all their digits."""
    return {words(row["settings"][key], whole=True) for row in rows if key in row["settings"]}


def _texts(rows: Sequence[dict], key: str) -> list[str]:
    """A setting of each row, as `told`; a dash where a row does not have it."""
    there = [place for place, row in enumerate(rows) if key in row["settings"]]
    said = dict(zip(there, texts([rows[place]["settings"][key] for place in there]), strict=True))
    return [said.get(place, "-") for place in range(len(rows))]


def _said_by_ridges(rows: Sequence[dict]) -> bool:
    """Whether the rows' own column of ridges shows those that were asked for, each as a different text."""
    asked = [(row["settings"].get("solve.ridge"), row["ridge"]) for row in rows]
    if not all(one is None or isinstance(one, int | float) and one == ridge for one, ridge in asked):
        return False
    ridges = {one for one, _ in asked if one is not None}
    return len({format(one, NUMBERS["ridge"]) for one in ridges}) == len(ridges)


def _row(row: Mapping, varying: Mapping[str, str]) -> dict:
    found: dict[str, Any] = {
        "run": _named(row["runs"]),
        "column": short(row["column"], 40),
        "depth": "-" if row["depth"] is None else str(row["depth"]),
    }
    found |= varying
    for key in NUMBERS:
        value = row[key]
        if isinstance(value, list):  # one for each of several solves that are alike
            known = [one for one in value if one is not None]
            value = sum(known) / len(known) if known else None
        found[SHOWN.get(key, key)] = value
    return found


def texts(values: Sequence[Any]) -> list[str]:
    """Settings as short texts; different ones whose short texts are equal are written with all digits."""
    brief, whole = [words(value) for value in values], [words(value, whole=True) for value in values]
    alike: dict[str, set[str]] = {}
    for few, all_of in zip(brief, whole, strict=True):
        alike.setdefault(few, set()).add(all_of)
    return [
        few if len(alike[few]) == 1 else short(all_of, MOST_DIGITS)
        for few, all_of in zip(brief, whole, strict=True)
    ]


def words(value: Any, whole: bool = False) -> str:
    """A setting or circumstance as a short text, as YAML has it; if `whole`, with all its digits."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return exact(value) if whole else f"{value:g}"
    if isinstance(value, dict):
        text = "; ".join(f"{key}: {words(one, whole)}" for key, one in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join("-" if one is None else words(one, whole) for one in value)
    else:
        text = value if isinstance(value, str) else short(value, MOST_WORDS)
    return visible(text) if whole else short(text, MOST_WORDS)


def _shared(rows: Sequence[dict]) -> list[str]:
    """A line for each section of the settings that all rows share; and who made which solves."""
    sections = {
        section: ", ".join(f"{name} {value}" for name, value in facts)
        for section, facts in shared(rows).items()
    }
    return [*(f"{section}: {said}" for section, said in sections.items()), *makers(rows)]


def shared(rows: Sequence[dict]) -> dict[str, list[tuple[str, str]]]:
    """Section -> (key, value) of the settings that all rows share, as text."""
    found: dict[str, list[tuple[str, str]]] = {}
    for key in dict.fromkeys(key for row in rows for key in row["settings"]):
        section, _, name = key.partition(".")
        value = words(next(row["settings"][key] for row in rows if key in row["settings"]))
        if len(_values(rows, key)) == 1 and value != "null":
            found.setdefault(section, []).append((name, value))
    return found


def makers(rows: Sequence[dict]) -> list[str]:
    """Who made which solves: machine, version, commit, device; one line for all that were made alike."""
    lines: list[str] = []
    made: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, *around in zip(row["runs"], *(row[key] for key in AROUND), strict=True):
            said = [f"{key} {words(value)}" for key, value in zip(AROUND, around, strict=True) if value]
            made.setdefault(", ".join(said) or "not recorded", {})[name] = None
    for place, (maker, names) in enumerate(made.items()):
        if place == MOST_MAKERS:
            return [*lines, f"made in other ways: {count(len(made) - place)} more"]
        lines.append(f"made by: {maker}" + (f" ({_named(list(names))})" if len(made) > 1 else ""))
    return lines


def _named(names: Sequence[str]) -> str:
    more = f" and {count(len(names) - MOST_NAMED)} more" if len(names) > MOST_NAMED else ""
    return short(", ".join(names[:MOST_NAMED]) + more, 80)


def _notes(rows: Sequence[dict], numbers: Mapping[str, str]) -> list[str]:
    said = ["Accuracies in percent; s.e.: their binomial standard errors over the test images."]
    if any(row["accuracy"] in (0, 100) and row["standard_error"] == 0 for row in rows):
        said[0] += (
            " One of 0 is uninformative: if n images have no error, up to min(1, 3 / n) of others may be "
            "wrong."
        )
    if "ridge" in numbers:
        said[0] += " Ridge relative to the mean diagonal."
    if "difference" in numbers:
        said.append(
            "difference: from the first row of the same column and depth, if both are for the same test "
            "images; its s.e.: paired standard error over these images, if predictions are available. "
            "--paired tests differences."
        )
    if "spread" in numbers:
        said.append("spread: standard deviation of the accuracy over the repeats.")
    if "loo error" in numbers:
        said.append(
            "loo error: mean squared leave-one-out error of the training images; comparable between rows of "
            "the same training images."
        )
    if sources := dict.fromkeys(row["source"] for row in rows if row["source"]):
        said.append(f"Published for the same numbers of images: {'; '.join(sources)}.")
    if "compute, s" in numbers:
        said.append("compute, s: time of all that the run computed; solve, s: time of the whole solve.")
    if any(len(row["runs"]) > 1 for row in rows):
        said.append("Solves with the same settings share a row; their times are averaged.")
    for row in rows:
        known = [accuracy for accuracy in row["accuracies_alike"] if accuracy is not None]
        if known and max(known) - min(known) > 0:
            said.append(
                f"{name_of(row)}: solves with the same settings, {short(', '.join(row['runs']), 80)}, have "
                f"accuracies from {min(known):.2f} to {max(known):.2f}; the first is shown."
            )
    for row in rows:
        if not row["trusted"]:
            where = f"{short(row['runs'][0], 80)}, {name_of(row)}"
            said.append(f"{DOUBTED} Not to be trusted: {where}: {short(row['doubt'], 200)}.")
    return said
