"""Lines of `plan` about matrices in an object store: objects, requests and bytes, no prices."""

from typing import TYPE_CHECKING

from cntk_bench.cli import units
from cntk_bench.text import short

if TYPE_CHECKING:
    from cntk_bench.costs.cost import Cost
    from cntk_bench.system.bucket import Bucket


def lines(cost: "Cost", store: "Bucket", workers: int) -> dict[str, str]:
    """Return lines by their names, for `workers` workers at once."""
    from cntk_bench.grams import traffic

    plan = cost.tiles
    count, size = traffic.journals(plan, workers)
    asked = traffic.computing(cost.missing, cost.seconds * cost.share(workers), workers)
    down = f", {units.size(asked.down)} down at most" if asked.down else ""
    computing = f"{asked}: {units.size(asked.up)} up{down}" if cost.missing.count else "none"
    read, again = traffic.reading(plan), traffic.iteration(plan)
    each, streamed = units.size(plan.bytes // read.get), ""
    if cost.solve.method == "cg":
        streamed = (
            f"; {again} ({units.size(again.down)}) more for each iteration of each matrix, which "
            "conjugate gradients stream"
        )
    return {
        "objects": f"{read.get:,} of {each}, {count + traffic.OTHERS:,} others: "
        f"{units.size(plan.bytes + size)} in {short(str(store))}",
        "traffic, compute": computing,
        "traffic, solve": f"{read}: {units.size(read.down)} down{streamed}",
    }
