"""A predicted time as a range, since a short measurement gives no single number."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Seconds from `low` to `high`."""

    low: float
    high: float

    @classmethod
    def of(cls, times: Iterable[float]) -> "Span":
        """Return the range from the shortest to the longest of some measured times."""
        found = tuple(times)
        return cls(min(found), max(found))

    def beyond(self, factor: float) -> "Span":
        """Return the same range with its upper end multiplied by a factor."""
        return Span(self.low, self.high * factor)

    def __add__(self, other: "Span") -> "Span":
        return Span(self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> "Span":
        return Span(self.low * factor, self.high * factor)
