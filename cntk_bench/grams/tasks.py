"""The missing tiles of a store, in an order that keeps apart processes that do not know of each other.

Each process walks through the missing tiles, from a start that depends on whether others already work. When
it meets a tile that another process has finished or is computing, it leaves that region to the other and
jumps into the second half of the largest gap of missing tiles, since whoever works in a gap begins at its
start. Tiles that others are computing come last. So tiles are computed twice only if they were in progress
when nothing else was left, or begun between two refreshes.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np

from cntk_bench.grams.flight import Flight
from cntk_bench.grams.store import Store
from cntk_bench.grams.tiles import PARTS, Tile
from cntk_bench.system.bucket import Bucket

REFRESH = 2.0  # seconds, at most, between refreshes of what other processes have finished
LOOKING = 0.01  # share of the time that may be spent on more frequent refreshes, on a disk
_dice = random.SystemRandom()  # two processes that begin at the same moment must not draw the same


@dataclass(frozen=True)
class Task:
    """A tile and the indices of the readouts to compute for it; picklable."""

    tile: Tile
    readouts: tuple[int, ...]

    def __str__(self) -> str:
        return f"tile {self.tile}"


def pending(
    store: Store,
    wanted: Sequence[int],
    sizes: tuple[int, int],
    among: tuple[int, int] = (0, 1),
    draws: int = 1,
    shard: tuple[int, int] = (1, 1),
    flight: Flight | None = None,
) -> Iterator[Task]:
    """Yield the missing tiles as tasks; in computing order if no other process works on the store.

    Parameters
    ----------
    store : Store
    wanted : sequence of int
        Indices of readouts.
    sizes : (n_train, n_test)
        Only the first images of either set matter.
    among : (number, of)
        Our index, from 0, in a list of the processes that work on the store, and its length.
    draws, shard
        As for `Progress.missing`.
    flight : Flight, optional
        Tells others what we are computing, and us what they are.
    """
    flight = flight or Flight(None, store.plan)
    todo = store.progress.missing(wanted, sizes, draws, shard)
    left = np.ones(len(todo), bool)  # neither given out by us nor known to be done by others
    free = left.copy()  # left, and not being computed by others
    numbers = {part: np.array([store.plan.number(t) for t in todo if t.part == part], int) for part in PARTS}
    number, of = among
    place = int(len(todo) * (number + _dice.uniform(0.25, 0.75)) / of) if of > 1 else 0
    looked, pause, shortest = monotonic(), 0.0, REFRESH
    flying: list[Tile] = []
    others = flight.others()

    def busy() -> np.ndarray:
        return np.concatenate([np.isin(numbers[part], others[part]) for part in PARTS])

    while True:
        ended = place >= len(todo) or not free[place]
        if ended and not left.any():
            return
        if ended or monotonic() - looked > min(REFRESH, pause):
            began = monotonic()
            others = flight.others()  # before the journals, so that no tile finished in between is missed
            store.progress.refresh()
            free = _unless(busy(), left)
            looked = monotonic()
            shortest = min(shortest, looked - began)  # the minimum, as load makes some longer
            pause = REFRESH if isinstance(store.progress.path, Bucket) else shortest / LOOKING
            ended = ended or not free[place]
        if not ended:
            tile, left[place], free[place] = todo[place], False, False
            lacking = tuple(readout for readout in wanted if not store.progress.has(tile, [readout], sizes))
            if lacking:
                flying = [one for one in flying if not store.progress.has(one, wanted, sizes)] + [tile]
                flight.tell(flying)
                yield Task(tile, lacking)
                place += 1
                continue
        complete = store.progress.complete
        left &= ~np.concatenate([complete(part, numbers[part], wanted, sizes) for part in PARTS])
        free = _unless(busy(), left)
        place = _within_largest(free)


def _unless(busy: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Tiles that are left and not busy; if there are none, all that are left."""
    free = left & ~busy
    return free if free.any() else left.copy()


def _within_largest(free: np.ndarray) -> int:
    """A random index in the second half of the longest run of True; 0 if there is none."""
    first, end = np.flatnonzero(np.diff(np.r_[False, free, False])).reshape(-1, 2).T
    if not len(first):
        return 0
    longest = int(np.argmax(end - first))
    return int(first[longest] + (end - first)[longest] * _dice.uniform(0.5, 1))
