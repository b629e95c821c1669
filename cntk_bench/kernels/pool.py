"""Pooling: how the entries of a pair of images, over their pixels p and q, become one number.

Every pooling here is a weighted sum whose weights factor into the two axes: entry [i, j, k, l], of pixel
(i, j) of x and (k, l) of z, has the weight m[i, k] m[j, l]. To add one, write its `Kind` and put it into
`KINDS`, or register it from another package under the entry point group `cntk_bench.pools`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.system import plugins
from cntk_bench.text import short


@dataclass(frozen=True)
class Kind:
    """A family of pools.

    Parameters
    ----------
    counts : callable
        (size, number) -> (P, P) integers: m times the divisor, exactly.
    divisor : callable
        (size, number) -> int.
    numbered : bool
        Whether its pools have a number, such as the 4 of "lap:4".
    """

    counts: Callable[[int, int], np.ndarray]
    divisor: Callable[[int, int], int]
    numbered: bool = False


def _window(size: int, c: int) -> np.ndarray:
    """How many windows of 2c + 1 pixels, centred on one of 0 .. P-1, hold both i and k."""
    pixel = np.arange(size)
    inside = (abs(pixel[:, None] - pixel) <= c).astype(np.int64)  # (centre, pixel)
    return inside.T @ inside


KINDS = {
    # The sum over p of the entries [p, p]: what vectorising does.
    "v": Kind(lambda size, _: np.eye(size, dtype=np.int64), lambda size, _: 1),
    # The mean over all p and q: global average pooling.
    "gap": Kind(lambda size, _: np.ones((size, size), np.int64), lambda size, _: size**2),
    # Windows of (2c + 1)^2 pixels, stride 1, zero padding, divided by the full window (Li et al. 2019).
    "lap": Kind(_window, lambda size, c: (2 * c + 1) ** 2, numbered=True),
}
GROUP = "cntk_bench.pools"


@dataclass(frozen=True)
class Pool:
    """One pooling, such as "v", "gap" or "lap:4".

    Parameters
    ----------
    kind : str
        A name among `kinds`.
    number : int
        The number of a pool of a numbered kind; 0 otherwise.
    """

    kind: str
    number: int = 0

    @classmethod
    def parse(cls, name: object) -> "Pool":
        """The pool of a name, "KIND" or "KIND:NUMBER".

        Raises
        ------
        UserError
            If it is unknown.
        """
        found = re.fullmatch(r"([a-z]{1,20})(?::(0|[1-9][0-9]{0,3}))?", str(name))
        if found and found[1] in kinds():
            kind, number = found.groups()
            if _kind(kind).numbered == (number is not None):
                return cls(kind, int(number or 0))
        known = ", ".join(f"'{kind}:C'" if _kind(kind).numbered else f"'{kind}'" for kind in kinds())
        raise UserError(f"pool {short(repr(name))} is unknown: use {known}, such as 'lap:4'")

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}" if _kind(self.kind).numbered else self.kind

    def counts(self, size: int) -> np.ndarray:
        """The axis weights times the divisor, exact: (P, P) int64, at [i, k]."""
        return np.asarray(_kind(self.kind).counts(size, self.number), np.int64)

    def divisor(self, size: int) -> int:
        """What `counts` of one axis are divided by."""
        return _kind(self.kind).divisor(size, self.number)

    def weights(self, size: int) -> np.ndarray:
        """The weights m of an axis: (P, P) float64."""
        return self.counts(size) / self.divisor(size)

    def reach(self, size: int) -> tuple[int, ...]:
        """Cyclic displacements (k - i) mod P along an axis with nonzero weights: a subset of 0 .. P-1.

        A cyclic displacement stands for two diagonals of the weights, with all their entries, so it is needed
        if either has a nonzero weight.
        """
        i, k = np.nonzero(self.counts(size))
        return tuple(map(int, np.unique((k - i) % size)))

    def is_mirrored(self, size: int) -> bool:
        """Whether mirroring both images changes no weight: then K(flip x, flip z) = K(x, z)."""
        counts = self.counts(size)
        return bool((counts == counts[::-1, ::-1]).all())

    def plain(self, size: int) -> bool:
        """Whether it is a plain sum: every entry of the displacements that it reaches counts once."""
        counts = self.counts(size)
        pixel = np.arange(size)
        planes = counts[pixel, (pixel + np.array(self.reach(size))[:, None]) % size]
        return bool((planes == 1).all())


def kinds() -> tuple[str, ...]:
    """Names of the kinds known, those of other packages last."""
    return (*KINDS, *plugins.names(GROUP))


def _kind(name: str) -> Kind:
    return KINDS[name] if name in KINDS else plugins.load(GROUP, name)
