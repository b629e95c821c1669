"""What a table says: its rows, its columns in groups, its title and its notes."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.report import networks
from cntk_bench.report.published import ALL, FINITE, Run, published, sizes
from cntk_bench.text import short

MISSING = "-"
MOST = 2000  # cells of a table
WIDEST = 40  # characters of a column's name
PUBLISHED_ONLY = "published only"
WITHOUT_DEPTHS = "without depths"
DOUBTED = "?"  # beside an accuracy that cannot be trusted
# What a cell may say, and how it is written.
FORMS = {
    "accuracy": ".2f",
    "standard_error": ".2f",
    "spread": ".2f",
    "repeats": "d",
    "train_accuracy": ".2f",
    "rate": ".3g",
    "published": ".2f",
    "difference": "+.2f",
    "ridge": ".3g",
}
HEADS = {"standard_error": "s.e.", "train_accuracy": "train"}


def rows(record: dict) -> list[dict]:
    """One row for each column and depth, in the order of the record.

    Parameters
    ----------
    record : dict
        A record with solutions; anybody may have written it.

    Returns
    -------
    list of dict
        column : str
        depth : int or None
            None for a column without depths.
        accuracy : float or None
            Measured test accuracy in percent; None where there is none, for every network failed.
        standard_error : float or None
            Of the accuracy, in percent.
        trusted : bool
        published : float or None
            Test accuracy in percent that was published for the same data and sizes.
        difference : float or None
            accuracy - published; None where the accuracy is not trusted.
        source : str or None
            Where it was published.
        n_train, n_test : int
            Images used.
        ridge : float or None
            Relative to the mean diagonal of the Gram matrix.
        spread : float or None
            Standard deviation of the accuracy between repetitions (seeds, draws), in percent.
        repeats : int or None
            How many repetitions there are; None where the cell is of one fixed prediction.
        train_accuracy : float or None
            Accuracy on the training images that was reached, in percent; of trained networks.
        rate : float or None
            Learning rate that is shown; of trained networks.

    Raises
    ------
    UserError
        If nothing has been solved yet, or no run can have written the record.
    """
    _check(record)
    solutions, data = record["solutions"], record["data"]
    found = []
    for solution in solutions:
        known = published(run(data), solution["column"], solution["depth"])
        accuracy, trusted = number(solution["accuracy"]), is_trusted(solution)
        difference = None
        if known is not None and trusted and accuracy is not None:
            difference = round(accuracy - known[0], 2)
        found.append(
            {
                "column": short(solution["column"], WIDEST),
                "depth": solution["depth"],
                "accuracy": accuracy,
                "standard_error": number(solution.get("standard_error")),
                "trusted": trusted,
                "published": known[0] if known else None,
                "difference": difference,
                "source": known[1] if known else None,
                "n_train": data["n_train"],
                "n_test": data["n_test"],
                "ridge": number(solution.get("ridge")),
                "spread": number(solution.get("spread")),
                "repeats": _length(solution.get("accuracies")),
                "train_accuracy": number(solution.get("train_accuracy")),
                "rate": number(solution.get("rate")),
            }
        )
    return found


def _check(record: dict) -> None:
    """Refuse a record that a table cannot show."""
    try:
        data, solutions = record["data"], record["solutions"]
        if not solutions:
            raise UserError(f"run {short(record['name'])} has no accuracies yet: solve it first")
        if len(solutions) > MOST:
            raise UserError(
                f"run {short(record['name'])} has {len(solutions)} cells: a table has at most {MOST}"
            )
        cells = [(short(s["column"], WIDEST), s["depth"], s["accuracy"]) for s in solutions]
        depths = [depth for _, depth, _ in cells if depth is not None]
        counts = [data["n_train"], data["n_test"], *depths]
        texts = [record["name"], data["name"], data["preprocess"], *(s["column"] for s in solutions)]
        sound = (
            all(type(count) is int and 0 < count < 10**9 for count in counts)
            and all(isinstance(text, str) for text in texts)
            and all(isinstance(mapping, dict) for mapping in [data, *solutions])
        )
        twice = len({cell[:2] for cell in cells}) < len(cells)
    except (KeyError, TypeError):  # not there, or not what it should be
        sound = twice = False
    if not sound or twice:
        problem = "it has a cell twice" if twice else "an entry is missing or impossible"
        raise UserError(f"the record cannot be shown as a table ({problem}): solve the run again")


def is_trusted(solution: dict) -> bool:
    """Whether an accuracy may be believed; anything but true is a doubt."""
    return solution.get("trusted", True) is True


def run(data: Mapping[str, Any]) -> Run:
    """What of a record's data decides which published numbers are alike."""
    used = data.get("classes_used")
    if used is None and data.get("classes", len(ALL)) == len(ALL):
        classes = ALL
    elif isinstance(used, list) and all(type(label) is int for label in used):
        classes = tuple(sorted(used))
    else:
        classes = ()  # nobody knows which: like nothing
    return Run(data["name"], data["n_train"], data["n_test"], classes)


def number(value: Any) -> float | None:
    """A finite number, or None for whatever else stands in its place."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:
        return None


def _length(values: Any) -> int | None:
    return len(values) if isinstance(values, list) else None


def cell_name(solution: dict) -> str:
    """Which cell a solution fills: its column, and its depth where it has one."""
    depth = solution["depth"]
    return short(solution["column"], WIDEST) + ("" if depth is None else f" at depth {depth}")


def cell(value: float | None, form: str) -> str:
    """A number as text; MISSING for None."""
    return MISSING if value is None else short(format(value, form), 16)


Groups = list[tuple[str, dict[str, list[str]]]]  # of a table's columns: (title, {head: cells})


def grids(record: dict) -> list[Groups]:
    """The tables: of the columns that have depths, and of those that have none; at least one."""
    return [found for found in (grid(record), without_depths(record)) if found]


def grid(record: dict) -> Groups:
    """Depth by column, as groups with a cell for each depth; the first holds the depths. Empty without."""
    table = {(row["column"], row["depth"]): row for row in rows(record) if row["depth"] is not None}
    if not table:
        return []
    depths = sorted({depth for _, depth in table})
    groups = [("", {"depth": [str(depth) for depth in depths]})]
    alike = len(_ridges(table.values())) == 1  # the title says it
    for column in dict.fromkeys(column for column, _ in table):
        cells = [table.get((column, depth), {}) for depth in depths]
        groups.append((column, _group(cells, ("ridge",) if alike else ())))
    finite = {name: [_published(record, name, depth) for depth in depths] for name in FINITE}
    finite = {name: shown for name, shown in finite.items() if name not in dict(groups)}
    if any(set(shown) != {MISSING} for shown in finite.values()):
        groups.append((PUBLISHED_ONLY, finite))
    return groups


def without_depths(record: dict) -> Groups:
    """The columns that have no depth, a line for each: the same number beside every depth would mislead."""
    cells = [row for row in rows(record) if row["depth"] is None]
    heads = {"column": [row["column"] for row in cells]}
    return [(WITHOUT_DEPTHS, heads | _group(cells))] if cells else []


def _group(cells: list[dict], without: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Cells as text by head, of what some of them have."""
    shown = {HEADS.get(key, key): [cell(c.get(key), form) for c in cells]
             for key, form in FORMS.items() if key not in without}  # fmt: skip
    shown["accuracy"] = [
        text + DOUBTED * (c.get("trusted") is False and text != MISSING)
        for text, c in zip(shown["accuracy"], cells, strict=True)
    ]
    return {head: texts for head, texts in shown.items() if head == "accuracy" or set(texts) != {MISSING}}


def _ridges(table: Iterable[dict]) -> set[float | None]:
    """The ridges of a table; those columns that have none do not count beside those that have one."""
    found = {row["ridge"] for row in table}
    return found - {None} or found


def _published(record: dict, column: str, depth: int) -> str:
    known = published(run(record["data"]), column, depth)
    return cell(known[0] if known else None, ".2f")


def title(record: dict) -> str:
    """Name, data, sizes and ridge, in a line."""
    table, data = rows(record), record["data"]
    text = (
        f"{short(record['name'].strip())}: {short(data['name'])}{_classes(data)}, "
        f"{count(data['n_train'])} training and {count(data['n_test'])} test images, "
        f"preprocess {short(data['preprocess'])}"
    )
    ridges = _ridges(row for row in table if row["depth"] is not None)  # else beside the column
    if len(ridges) == 1:
        text += f", ridge {cell(ridges.pop(), '.3g')}"
    paths = [s.get("path") for s in record["solutions"] if s["depth"] is not None]
    tried = max((len(path) for path in paths if isinstance(path, list)), default=0)
    return f"{text} (best of {tried} by leave-one-out)" if tried > 1 else text


def _classes(data: dict) -> str:
    """Which classes were used, where not all were: accuracies on two classes are no accuracies on ten."""
    used = data.get("classes_used")
    return (
        f" (classes {short(', '.join(map(str, used[:40])), 60)})" if isinstance(used, list) and used else ""
    )


def count(value: int) -> str:
    """A number of images with its thousands told apart."""
    return f"{value:,}"


def notes(record: dict) -> list[str]:
    """What a reader must know to read the numbers rightly."""
    table, data = rows(record), record["data"]
    found = ["Accuracies in percent; ridge relative to the mean diagonal."]
    if any(row["standard_error"] is not None for row in table):
        found[0] = (
            f"Accuracies in percent; s.e.: their binomial standard errors over {count(data['n_test'])} test "
            "images, in percentage points. Ridge relative to the mean diagonal."
        )
    if any(row["repeats"] is not None for row in table):
        found.append(
            "spread: standard deviation of the accuracy between the repetitions (seeds or draws) counted "
            "beside it, in percentage points."
        )
    if any(row["train_accuracy"] is not None for row in table):
        found.append("train: accuracy on the training images that was reached, in percent.")
    sources = list(dict.fromkeys(row["source"] for row in table if row["source"]))
    if sources:
        found.append(
            f"Published, for as many training and test images: {'; '.join(sources)}. difference = accuracy - "
            "published. Both accuracies are for the same test images, so their errors are correlated: s.e. "
            "alone does not say whether a difference is significant."
        )
    else:
        at = sizes(run(data), tuple(dict.fromkeys(row["column"] for row in table)))
        if at:
            known = ", ".join(f"{train:,} / {test:,}" for train, test in at)
            found.append(f"Published for other numbers of training / test images, not comparable: {known}.")
    shown = dict(grid(record)).get(PUBLISHED_ONLY)
    if shown:
        one = len(shown) == 1
        found.append(
            f"{' and '.join(shown)}: {'a ' * one}trained finite network{'s' * (not one)}, published only, "
            "not computed here."
        )
    return found + networks.notes(record["solutions"]) + _warnings(record["solutions"])


def _warnings(solutions: list[dict]) -> list[str]:
    def cells(chosen: list[dict]) -> str:
        return ", ".join(map(cell_name, chosen))

    found = []
    for s in solutions:
        if isinstance(s.get("note"), str):
            found.append(f"{cells([s])}: {short(s['note'], 200)}.")
    for s in solutions:
        if not is_trusted(s):
            doubt = short(s.get("doubt") or "no reason given", 200)
            what = f"{DOUBTED} Not to be trusted" if s["accuracy"] is not None else f"{MISSING} No accuracy"
            found.append(f"{what}: {cells([s])}: {doubt}.")
    jittered = [s for s in solutions if number(s.get("jitter"))]
    if jittered:
        most = max(float(s["jitter"]) for s in jittered)
        found.append(
            f"The solver had to add jitter to the diagonal of {cells(jittered)}, {most:.0e} at most."
        )
    for end, remedy in (("largest", "larger"), ("smallest", "smaller")):
        edge = [s for s in solutions if s.get("edge") == end]
        if edge:
            found.append(
                f"The {end} ridge tried is the best for {cells(edge)}: add {remedy} ones to solve.ridge."
            )
    return found
