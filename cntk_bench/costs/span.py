"""A time that is foretold: from .. to, for a short measurement gives no single number."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Seconds from `low` to `high`."""

    low: float
    high: float

    @classmethod
    def of(cls, times: Iterable[float]) -> "Span":
        """From the shortest to the longest of some measured times."""
        found = tuple(times)
        return cls(min(found), max(found))

    def beyond(self, factor: float) -> "Span":
        """The same, and up to a factor longer than the longest."""
        return Span(self.low, self.high * factor)

    def __add__(self, other: "Span") -> "Span":
        return Span(self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> "Span":
        return Span(self.low * factor, self.high * factor)
