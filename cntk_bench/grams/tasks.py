"""What is left to do of a store, in an order that keeps processes apart that do not know of each other.

Each process walks through what is missing, from a place that depends on whether others work already. Where it
comes upon a tile that another has finished or is computing, another walks there: it goes on in the largest
gap of what is still missing, past its middle, since whoever works in a gap begins with its first tiles. What
others are computing it takes last. So what is computed twice is what is being computed when nothing else is
left, and what was begun between two looks.
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

REFRESH = 2.0  # seconds, at most, after which it is looked again what other processes have finished
LOOKING = 0.01  # of the time may be spent on looking more often than that, on a disk
_dice = random.SystemRandom()  # two processes that begin at the same moment must not throw the same


@dataclass(frozen=True)
class Task:
    """A tile, and the places of the readouts to compute of it; picklable."""

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
    """What is missing, task by task; in computing order where no others work.

    Parameters
    ----------
    store : Store
    wanted : sequence of int
        Places of readouts.
    sizes : (n_train, n_test)
        Of the first images that matter.
    among : (number, of)
        Our place, from 0, in a list of the processes that work on the store, and its length.
    draws, shard
        As for `Progress.missing`.
    flight : Flight, optional
        Where it is told what is being computed.
    """
    flight = flight or Flight(None, store.plan)
    todo = store.progress.missing(wanted, sizes, draws, shard)
    left = np.ones(len(todo), bool)  # neither given out nor, as far as was seen, done by others
    free = left.copy()  # and not being computed by others
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
            others = flight.others()  # before the journals: what is finished between the two is in these
            store.progress.refresh()
            free = _unless(busy(), left)
            looked = monotonic()
            shortest = min(shortest, looked - began)  # a busy machine makes some long
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
    """What is left and not busy; all that is left, if all is busy."""
    free = left & ~busy
    return free if free.any() else left.copy()


def _within_largest(free: np.ndarray) -> int:
    """A place in the second half of the longest run of True; 0 if there is none."""
    first, end = np.flatnonzero(np.diff(np.r_[False, free, False])).reshape(-1, 2).T
    if not len(first):
        return 0
    longest = int(np.argmax(end - first))
    return int(first[longest] + (end - first)[longest] * _dice.uniform(0.5, 1))
