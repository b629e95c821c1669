"""A matrix in memory as a stream, for tests of what reads one piece by piece."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cntk_bench.regression.stream import SIDE, Piece


@dataclass(frozen=True)
class Held:
    """A matrix (n, n) in memory as a stream: only its lower triangle is read, `side` rows at a time."""

    matrix: np.ndarray
    side: int = SIDE
    identity: str = ""
    leader: None = None

    @property
    def n(self) -> int:
        """Its size."""
        return len(self.matrix)

    def pieces(self, diagonal: bool = False) -> Iterator[Piece]:
        """As `Stream`."""
        for start in range(0, self.n, self.side):
            rows = slice(start, min(start + self.side, self.n))
            if start and not diagonal:
                yield rows, slice(0, start), self.matrix[rows, :start]
            corner = np.tril(self.matrix[rows, rows])
            yield rows, rows, corner + np.tril(corner, -1).T
