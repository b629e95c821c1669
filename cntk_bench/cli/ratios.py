"""The output of `bench --baseline`: a comparison with another library."""

from collections.abc import Iterable
from statistics import median
from typing import TYPE_CHECKING, Any

from cntk_bench.cli import units
from cntk_bench.errors import UserError

if TYPE_CHECKING:
    from cntk_bench.costs.comparison import Comparison, Library, Refusal
    from cntk_bench.kernels.spec import Spec

NAMES = ("neural-tangents",)


def library(name: str | None, backend: str, specs: "Iterable[Spec]") -> "Library | None":
    """Return the library to compare with for some specs, None if not asked for.

    Raises
    ------
    UserError
        If that is not possible.
    """
    if name is None:
        return None
    from cntk_bench import backends
    from cntk_bench.costs import neural_tangents

    for spec in specs:
        if (chosen := backends.choose(backend, spec)) != "cpu":
            raise UserError(
                f"--baseline compares on the CPU, and the backend is {chosen!r}: add --backend cpu"
            )
    return neural_tangents.library()


def line(found: "Comparison | Refusal") -> str:
    """Format a comparison as one line, to be printed below that of its column."""
    from cntk_bench.costs.comparison import Refusal

    if isinstance(found, Refusal):
        return f"{'':12} {found.library}: not compared: {found.reason}"
    ours, theirs, ratios = found.ours, found.theirs, found.ratios
    least, middle, most = map(_number, (min(ratios), median(ratios), max(ratios)))
    return (
        f"{'':12} {found.library}: {_time(theirs.seconds_per_pair)} per pair, {middle} times the "
        f"{_time(ours.seconds_per_pair)} of cntk-bench ({least} to {most} in {len(ratios)} rounds, by turns)"
        f"; numbers agree to {found.difference:.1e}; tiles of {theirs.tile} x {theirs.tile} and "
        f"{ours.tile} x {ours.tile} pairs; cores kept busy, of {found.threads}: {theirs.cores_busy:.1f} and "
        f"{ours.cores_busy:.1f}"
    )


def facts(found: "Comparison | Refusal") -> dict[str, Any]:
    """Return a comparison for JSON; a column that is not compared has no times and no ratio."""
    from cntk_bench.costs.comparison import Refusal

    if isinstance(found, Refusal):
        return {"library": found.library, "not_compared": found.reason}
    return {
        "library": found.library,
        "difference": found.difference,
        "seconds_per_pair": found.theirs.seconds_per_pair,
        "own_seconds_per_pair": found.ours.seconds_per_pair,
        "ratio": median(found.ratios),
        "ratios": list(found.ratios),
        "tile": found.theirs.tile,
        "own_tile": found.ours.tile,
        "threads": found.threads,
        "cores_busy": found.theirs.cores_busy,
        "own_cores_busy": found.ours.cores_busy,
    }


def _time(seconds: float) -> str:
    return units.brief(seconds) if seconds < 1 else f"{seconds:.3g} s"


def _number(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"
