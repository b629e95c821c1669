"""What an analysis leaves out of the run that it is of, in sentences (`analyses.analysis.ignored`)."""

from collections.abc import Sequence

from cntk_bench.report.rows import count


def caveats(results: Sequence[dict]) -> list[str]:
    """A sentence for each thing that one of the results leaves out, as {"normalize": str, "draws": int}."""
    ignored = [facts.get("ignored", {}) for facts in results]  # results of earlier versions do not say
    said = []
    if any("normalize" in one for one in ignored):
        said.append("The kernel is analysed as it is: solve.normalize concerns the table alone.")
    draws = dict.fromkeys(one["draws"] for one in ignored if "draws" in one)
    return said + [f"Only the first of {count(many)} draws of training images is analysed." for many in draws]
