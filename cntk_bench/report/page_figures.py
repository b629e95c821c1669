"""The figures of a solve: each with its caption, a text that describes it, and its numbers.

They are not drawn here (`sketch`): a page draws them, and `analyses/figures.py` for a paper.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from cntk_bench.report import confusion, curve, depth, misclassified, pooling, ridges, spectrum
from cntk_bench.report.findings import Eigenvalues, Findings
from cntk_bench.report.page_tables import Table, confused, matrix, pairs
from cntk_bench.report.rows import MISSING, cell, cell_name, count, draws_of, name_of, number, rows
from cntk_bench.report.sketch import Sketch
from cntk_bench.report.windows import studied
from cntk_bench.text import short

log = logging.getLogger(__name__)

WHOLE = 20  # classes: a larger confusion matrix is not written out
RANKS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


def of_solve(record: dict, found: Findings) -> dict[str, Callable[[], Sketch | None]]:
    """Functions that make each figure of a record's last solve, by key; None comes of one without content."""
    names = class_names(record["data"], found)
    return {
        "accuracy": partial(accuracy, record),
        "windows": partial(windows, record),
        "curves": partial(curves, found),
        "ridges": partial(paths, found),
        "confusion": partial(confusions, found, names),
        "mistakes": partial(mistakes, found, names),
        "spectra": partial(spectra, found),
    }


def class_names(data: dict, found: Findings) -> list[str]:
    """The classes' names, where the record tells them; else the labels of the data set."""
    k = data.get("classes") or (0 if found.counts is None else len(found.counts))
    for key in ("class_names", "classes_used"):
        names = data.get(key)
        if isinstance(names, list) and len(names) == k:
            return [short(str(name), 30) for name in names]
    return [str(label) for label in range(k if type(k) is int else 0)]


def accuracy(record: dict) -> Sketch | None:
    """Accuracy against depth."""
    table = rows(record)
    found = []
    for column in dict.fromkeys(row["column"] for row in table):
        scored = [row for row in table if row["column"] == column and row["accuracy"] is not None]
        if not scored:
            continue
        best = max(scored, key=lambda row: row["accuracy"])
        doubt = "" if all(row["trusted"] for row in scored) else "; some are not to be trusted"
        if best["depth"] is None:
            found.append(f"{column} {best['accuracy']:.2f} %{_plus_minus(best)}{doubt}")
        elif len(scored) == 1:
            found.append(
                f"{column} {best['accuracy']:.2f} %{_plus_minus(best)} at depth {best['depth']}{doubt}"
            )
        else:
            first, end = (pick(scored, key=lambda row: row["depth"]) for pick in (min, max))
            found.append(
                f"{column} from {first['accuracy']:.2f} %{_plus_minus(first)} at depth {first['depth']} to "
                f"{end['accuracy']:.2f} %{_plus_minus(end)} at depth {end['depth']}, at best "
                f"{best['accuracy']:.2f} %{_plus_minus(best)} at depth {best['depth']}{doubt}"
            )
    if not found:
        return None
    note = depth.note(record)
    caption = f"Test accuracy against depth. {note}"
    alt = f"Test accuracy: {'; '.join(found)}. The numbers are in the table above."
    return Sketch("accuracy", caption, alt, partial(depth.figure, record), note=note)


def windows(record: dict) -> Sketch | None:
    """Accuracy against the pooling window, where a record is a study of it."""
    kernels = studied(row["column"] for row in rows(record))
    if not kernels:
        return None
    note = pooling.note(record)
    caption = f"Test accuracy against the pooling window. {note}"
    alt = f"Accuracy against the pooling window of {', '.join(kernels)}. The numbers are in the table above."
    return Sketch("windows", caption, alt, partial(pooling.figure, record), note=note)


def curves(found: Findings) -> Sketch | None:
    """Learning curves."""
    results = list(found.curves)
    if not results:
        return None
    try:
        listing = curve.listing(results)
        told = [
            f"{curve.cell_label(one, results)} from {first['accuracy']:.2f} %{_plus_minus(first)} with "
            f"{count(first['train'])} training images to {end['accuracy']:.2f} %{_plus_minus(end)} with "
            f"{count(end['train'])}"
            for one in results
            for first, end in [(one["points"][0], one["points"][-1])]
        ]
        lines, told_of = listing.cells(), curve.note(results)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):  # its source is not trusted
        log.warning("the learning curves of the run are damaged: run `curve` again")
        return None
    texts = frozenset(i for i, form in enumerate(listing.forms.values()) if form == "s" and i)
    table = Table(listing.title, list(listing.forms), lines, text_columns=texts)
    caption = f"Test accuracy against the number of training images. {told_of}"
    alt = f"Learning curves: {'; '.join(told)}."
    return Sketch("curves", caption, alt, partial(curve.figure, results), (table,))


def paths(found: Findings) -> Sketch | None:
    """The ridges tried."""
    if not found.paths:
        return None
    tables, told = [], []
    for path in found.paths:
        name = cell_name(path.column, path.depth)
        heads = ridges.heads(path)
        tables.append(Table(name, heads, ridges.cells(path), text_columns=frozenset({len(heads) - 1})))
        if path.chosen is not None:
            told.append(f"{name} {path.chosen:g}")
    ringed = ", so the ringed one need not be the best on them" if told else ""
    caption = (
        "Accuracy against ridge. The ridge is chosen by the smallest leave-one-out squared error, without "
        f"the test images{ringed}. Bars: one standard error of test accuracies; those of leave-one-out "
        "accuracies are in the table of the numbers."
    )
    if len(told) < len(tables):
        caption += " Each draw chooses its own ridge; shown are the ridges that all draws tried."
    if ridges.is_jittered(found.paths):
        caption += (
            " Hollow: the solver had to add jitter to this ridge, so the numbers are those of both together."
        )
    alt = (
        f"Accuracy against ridge for {len(tables)} cells. Chosen: {'; '.join(told) or 'by each draw itself'}."
    )
    return Sketch("ridges", caption, alt, partial(ridges.figure, found.paths), tuple(tables))


def confusions(found: Findings, names: Sequence[str]) -> Sketch | None:
    """The confusion matrix of the cell shown."""
    counts, shown = found.counts, found.cell
    if counts is None or shown is None or not counts.sum():
        return None
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    i, j = divmod(int(wrong.argmax()), len(counts))
    right = 100 * counts.trace() / counts.sum()
    alt = f"Confusion matrix of {name_of(shown)}: {right:.2f} %{_plus_minus(shown)} are right"
    alt += f"; most often, {wrong[i, j]} times, {names[i]} is taken for {names[j]}." if wrong[i, j] else "."
    over = f" Over {found.repeats} predictions of each test image." if found.repeats > 1 else ""
    caption = (
        f"Confusion matrix of {name_of(shown)}, percent of each true class.{over} Shown, as an "
        f"example, is the most accurate of all {found.among}; the test images choose it, so this is no model "
        "selection."
    )
    whole = matrix(counts, names) if len(counts) <= WHOLE else pairs(counts, names)
    kind, tables = "svg" if len(counts) <= WHOLE else "png", (confused(counts, names, found.repeats), whole)
    return Sketch("confusion", caption, alt, partial(confusion.figure, counts, names), tables, kind)


def mistakes(found: Findings, names: Sequence[str]) -> Sketch | None:
    """A sample of misclassified images of the cell shown."""
    some = found.mistakes
    if some is None or found.cell is None:
        return None
    lines = [
        [str(place), names[true], names[predicted], f"{margin:.3f}"]
        for place, true, predicted, margin in zip(
            some.places.tolist(),
            some.true.tolist(),
            some.predicted.tolist(),
            some.margins.tolist(),
            strict=True,
        )
    ]
    table = Table(
        "The images shown, by their place in the data set's test set, counted from 0",
        ["place", "true class", "predicted class", "margin"],
        lines,
        text_columns=frozenset({1, 2}),
    )
    first = f"{lines[0][1]} taken for {lines[0][2]}"
    alt = (
        f"{len(lines)} of {count(some.wrong)} misclassified test images of {name_of(found.cell)}, from the "
        f"largest margin ({first}) to the smallest."
    )
    name = name_of(found.cell) + (", trained on the first draw," if len(draws_of(found.cell)) > 1 else "")
    which = (
        f"The {count(some.wrong)} of {count(some.of)} test images that {name} misclassifies, in"
        if len(lines) == some.wrong
        else f"{len(lines)} of the {count(some.wrong)} test images, of {count(some.of)}, that "
        f"{name} misclassifies, evenly spaced in"
    )
    caption = f"{which} the order of their margins, from the gravest mistake to the slightest."
    make = partial(misclassified.figure, some.pixels, some.true, some.predicted, some.margins, names)
    return Sketch("mistakes", caption, alt, make, (table,), "png")


def _plus_minus(row: dict) -> str:
    """The text " ± standard error" that follows an accuracy; empty if there is none."""
    error = number(row.get("standard_error"))
    return "" if error is None else f" ± {error:.2f}"


def spectra(found: Findings) -> Sketch | None:
    """The eigenvalues of the training matrices."""
    some = found.spectra
    if not some:
        return None
    told = [f"{cell_name(one.column, one.depth)} falls from {one.values[0] / one.mean_diagonal:.3g} to "
            f"{one.values[-1] / one.mean_diagonal:.2g}" for one in some]  # fmt: skip
    n, first = len(some[0].values), " of the first draw" if some[0].draws > 1 else ""
    caption = (
        f"Eigenvalues of the kernels on the {count(n)} training images{first}, without ridge, in units of "
        "their mean, largest first. Pale ones are within the error of float32 entries: only a bound on them "
        "is known."
    )
    alt = f"Eigenvalues in units of their mean: {'; '.join(told)}."
    return Sketch("spectra", caption, alt, partial(spectrum.figure, some), (_eigenvalues(some),))


def _eigenvalues(some: Sequence[Eigenvalues]) -> Table:
    n = len(some[0].values)
    ranks = sorted({rank for rank in RANKS if rank < n} | {n})
    heads = [
        "cell",
        *(f"{count(rank)}." for rank in ranks),
        "zeros",
        "share of the largest, %",
        "effective dimension",
    ]
    lines = []
    for one in some:
        values = one.values / one.mean_diagonal
        share = 100 * values[0] / max(values.sum(), np.finfo(float).tiny)
        lines.append(
            [
                cell_name(one.column, one.depth),
                *(f"{values[rank - 1]:.3g}" if rank <= len(values) else MISSING for rank in ranks),
                str(one.zeros),
                f"{share:.2f}",
                cell(_dimension(one), ".1f"),
            ]
        )
    caption = (
        "Eigenvalues by rank, in units of their mean; how many are zero within rounding; and the effective "
        "dimension, the sum of l / (l + ridge + jitter), for those that were used; without both, the number "
        "of eigenvalues above the error of float32 entries"
    )
    return Table(caption, heads, lines)


def _dimension(one: Eigenvalues) -> float | None:
    """The degrees of freedom of a kernel regression, tr K (K + r I)^-1, r being ridge and jitter.

    With neither, it is K's rank, as far as that is known: eigenvalues within the noise may be 0.
    """
    if one.ridge is None:
        return None
    shift = (one.ridge + one.jitter) * one.mean_diagonal
    values = one.values[one.values > (0 if shift > 0 else one.noise)]
    return float((values / (values + shift)).sum())
