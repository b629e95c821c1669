"""Format quantities for people."""

from math import inf
from typing import TYPE_CHECKING

from cntk_bench.text import duration, size

if TYPE_CHECKING:
    from cntk_bench.costs.span import Span

__all__ = ["brief", "duration", "size", "span"]


def brief(seconds: float) -> str:
    """Format a time below a second, such as 36 us."""
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def span(seconds: "Span") -> str:
    """Format a range of times in the unit of its end, such as 2.6 to 3.4 h."""
    if seconds.high < 1:
        return "less than 1 s"
    unit, name = next(
        (unit, name)
        for most, unit, name in (
            (120, 1, "s"),
            (7200, 60, "min"),
            (48 * 3600, 3600, "h"),
            (inf, 86400, "days"),
        )
        if seconds.high <= most
    )
    low, high = (f"{x:.1f}" if x < 9.95 else f"{x:.0f}" for x in (seconds.low / unit, seconds.high / unit))
    return f"{high} {name}" if low == high else f"{low} to {high} {name}"
