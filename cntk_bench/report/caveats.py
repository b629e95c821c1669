"""Sentences below several tables: what an analysis leaves out of its run, and what an error of 0 is worth."""

from collections.abc import Iterable, Sequence

from cntk_bench.regression.accuracy import bound
from cntk_bench.report.rows import count


def caveats(results: Sequence[dict]) -> list[str]:
    """A sentence for each thing that one of the results leaves out (`analyses.analysis.ignored`)."""
    ignored = [facts.get("ignored", {}) for facts in results]  # results of earlier versions do not say
    said = []
    if any("normalize" in one for one in ignored):
        said.append("The kernel is analysed as it is: solve.normalize concerns the table alone.")
    draws = dict.fromkeys(one["draws"] for one in ignored if "draws" in one)
    return said + [f"Only the first of {count(many)} draws of training images is analysed." for many in draws]


def uninformative(scores: Iterable[tuple[float | None, float | None]], n_test: int) -> list[str]:
    """A sentence on standard errors of 0, if one of the (accuracy, standard error), in percent, has it."""
    if not any(accuracy in (0, 100) and error == 0 for accuracy, error in scores):
        return []
    return [
        f"An s.e. of 0 is uninformative: if all of {count(n_test)} test images are right, up to "
        f"{bound(n_test):.2g} % of others may be wrong (at 95 % confidence); likewise if none is right."
    ]
