"""The title above a table, and the notes below it that a reader must know."""

from collections.abc import Mapping
from typing import Any

from cntk_bench.report import networks
from cntk_bench.report.caveats import uninformative
from cntk_bench.report.grids import PUBLISHED_ONLY, grid
from cntk_bench.report.published import ENHANCED, RIDGELESS, WIDTH, sizes
from cntk_bench.report.rows import (
    DOUBTED,
    MISSING,
    alike,
    count,
    draws,
    draws_of,
    in_words,
    is_trusted,
    name_of,
    number,
    ridge_range,
    ridges,
    rows,
)
from cntk_bench.report.windows import beside, studied
from cntk_bench.text import short

LONGEST_NOTE = 600  # characters; several draws may have a note each


def title(record: dict) -> str:
    """Name, data, sizes and ridge, in a line."""
    table, data = rows(record), record["data"]
    several = f"{count(draws(data))} draws of " if draws(data) > 1 else ""
    by_chance = " taken at random, not by classes," if data.get("order") == "random" else ""
    text = (
        f"{short(record['name'].strip())}: {short(data['name'])}{_classes(data)}, "
        f"{several}{count(data['n_train'])} training and {count(data['n_test'])} test images,{by_chance} "
        f"preprocess {short(data['preprocess'])}"
    )
    used = ridges(row for row in table if row["depth"] is not None)  # columns without depths show their own
    if len(used) == 1 and (used != {None} or not several):  # otherwise the table has a column of ridges
        (ridge,) = used
        own = ", each draw with its own" if ridge is not None and ridge[0] < ridge[1] else ""
        text += f", ridge {in_words(ridge)}{own}"
    with_depths = [s for s in record["solutions"] if s["depth"] is not None]
    paths = [one.get("path") for s in with_depths for one in draws_of(s)]
    tried = max((len(path) for path in paths if isinstance(path, list)), default=0)
    return f"{text} (best of {tried} by leave-one-out)" if tried > 1 else text


def _classes(data: Mapping[str, Any]) -> str:
    """Which classes were used, where not all were: accuracies on two classes are no accuracies on ten."""
    used, names = data.get("classes_used"), data.get("class_names")
    if not isinstance(used, list) or not used:
        return ""
    told = names if isinstance(names, list) and len(names) == len(used) else used
    return f" (classes {short(', '.join(map(str, told[:40])), 60)})"


def notes(record: dict) -> list[str]:
    """What a reader must know to interpret the numbers."""
    table, data = rows(record), record["data"]
    found = ["Accuracies in percent; ridge relative to the mean diagonal."]
    if any(row["standard_error"] is not None for row in table):
        found[0] = (
            f"Accuracies in percent; s.e.: their binomial standard errors over {count(data['n_test'])} test "
            "images, in percentage points. Ridge relative to the mean diagonal."
        )
    found += uninformative(((row["accuracy"], row["standard_error"]) for row in table), data["n_test"])
    if any(row["spread"] is not None for row in table):
        found.append(
            "spread: standard deviation of the accuracy over the repeats (seeds or draws), in percentage "
            "points."
        )
    if any(row["highest_ridge"] is not None for row in table):
        found.append("A range of ridges: each draw has its own.")
    if any(row["published_spread"] is not None for row in table):
        found.append("its spread: the published standard deviation over draws.")
    if any(row["train_accuracy"] is not None for row in table):
        found.append(
            "train: accuracy on the training images at the last epoch, in percent, a mean over networks."
        )
    if any(s.get("normalize") == "unit_diagonal" for s in record["solutions"]):
        found.append("Kernels are scaled to a diagonal of one before solving.")
    fitted = data.get("fitted_on")
    if "zca" in data["preprocess"] and type(fitted) is int and fitted > data["n_train"]:
        alone = "; preprocess.statistics: subset fits it only on those used" if draws(data) == 1 else ""
        found.append(
            f"zca was fitted on {count(fitted)} unlabelled training images, more than are used{alone}."
        )
    if studied(row["column"] for row in table):
        found.append("c: half-width of the pooling window, of (2c + 1) x (2c + 1) pixels; 0: no pooling (V).")
    found += _unseen(data) + _suspect(data)
    sources = list(dict.fromkeys(row["source"] for row in table if row["source"]))
    if sources:
        found.append(
            f"Published for the same numbers of images: {'; '.join(sources)}. difference = accuracy - "
            "published. Both accuracies are for the same test images, so their errors are correlated: s.e. "
            "alone does not say whether a difference is significant." + _otherwise(table)
        )
    elif theirs := dict.fromkeys(one.source for one in beside(record).values()):
        found.append(
            f"published, for other numbers of training / test images: {'; '.join(theirs)}. Only how "
            "accuracy depends on c can be compared, not the accuracies."
        )
    else:
        at = sorted(
            {
                size
                for one in record["solutions"]
                for like in [alike(data, one)]
                for size in sizes(like, (one["column"],))
                if size != (like.n_train, like.n_test)
            }
        )
        if at:
            known = ", ".join(f"{train:,} / {test:,}" for train, test in at)
            found.append(f"Published for other numbers of training / test images, not comparable: {known}.")
    if narrow := _of_another_width(record):
        found.append(
            f"{' and '.join(narrow)}: published networks have width {WIDTH}, so none are shown beside these."
        )
    shown = dict(grid(record)).get(PUBLISHED_ONLY)
    if shown:
        one = len(shown) == 1
        found.append(
            f"{' and '.join(shown)}: {'a ' * one}trained finite network{'s' * (not one)}, published only, "
            "not computed here."
        )
    return found + networks.notes(record["solutions"]) + _warnings(record["solutions"])


def _unseen(data: Mapping[str, Any]) -> list[str]:
    """A note on classes without a training image, where the record says that there are some."""
    counts, shares, classes = (data.get(key) for key in ("unseen_classes", "seen_test_images", "classes"))
    if not (isinstance(counts, list) and isinstance(shares, list) and counts and shares):
        return []
    known = [share for share in map(number, shares) if share is not None]
    if any(type(one) is not int for one in (*counts, classes)) or len(known) < len(shares):
        return []
    some = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])
    have = "has" if some == "1" else "have"
    where, mean = ("In each draw, ", " on average") if len(counts) > 1 else ("", "")
    return [
        f"{where}{some} of {classes} classes {have} no training image; the others have "
        f"{sum(known) / len(known):.3g} % of the test images{mean}, and of the rest a prediction is right "
        "only by chance."
    ]


def _suspect(data: Mapping[str, Any]) -> list[str]:
    """Notes on test images that make an accuracy say something else than how well unknown images are told."""
    found, repeated, largest = [], data.get("repeated_test_images"), data.get("largest_pixels")
    if type(repeated) is int and repeated > 0:
        of, are = count(data["n_test"]), "is a training image" if repeated == 1 else "are training images"
        found.append(
            f"{count(repeated)} of {of} test images {are}, too: the accuracy is not that of new images."
        )
    if (
        isinstance(largest, list)
        and len(known := [one for one in map(number, largest) if one is not None]) == 2
    ):
        found.append(
            f"The largest of the first pixels is {known[0]:.3g} in training and {known[1]:.3g} in test "
            "images, as if they had different units: give both in one unit."
        )
    return found


def _of_another_width(record: dict) -> list[str]:
    """The columns of trained networks that were published, though of another width."""
    found = []
    for one in record["solutions"]:
        column, like = one["column"], alike(record["data"], one)
        if like.is_of_another_width(column) and sizes(like, (column,)):
            found.append(short(column))
    return list(dict.fromkeys(found))


def _otherwise(table: list[dict]) -> str:
    """A note that published kernels are solved without a ridge, if a measured one beside them has one."""
    beside = [row for row in table if row["source"] and not row["source"].startswith(ENHANCED)]
    ridged = any(max(ridge_range(row) or (0.0,)) > 0 for row in beside)
    return f" {RIDGELESS}" if ridged else ""


def _warnings(solutions: list[dict]) -> list[str]:
    def cells(chosen: list[dict]) -> str:
        return ", ".join(map(name_of, chosen))

    found = []
    for s in solutions:
        if isinstance(s.get("note"), str):
            found.append(f"{cells([s])}: {short(s['note'], LONGEST_NOTE)}.")
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
        where = [words for s in solutions for words in _at_the_edge(s, end)]
        if where:
            found.append(
                f"The {end} ridge tried is the best for {', '.join(where)}: add {remedy} ones to solve.ridge."
            )
    return found


def _at_the_edge(solution: dict, end: str) -> list[str]:
    """The cell in words if the best ridge, of all or some of its draws, is the "largest" or "smallest"."""
    each = draws_of(solution)
    at = [draw for draw, one in enumerate(each, 1) if one.get("edge") == end]
    whose = f" ({networks.draws_in_words(at)} of {len(each)})" if 0 < len(at) < len(each) else ""
    return [name_of(solution) + whose] if at else []
