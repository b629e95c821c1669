"""What is left to do of a store, in an order that keeps processes apart that do not know of each other.

Each process walks through what is missing, from a place that depends on whether others work already. Where it
comes upon a tile that another has finished, another walks just before it: it goes on in the largest gap of
what is still missing, past its middle, since whoever works in a gap begins with its first tiles. So two
processes seldom compute the same tile, but where little more is left than what is being computed.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np

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
    """
    todo = store.progress.missing(wanted, sizes, draws, shard)
    free = np.ones(len(todo), bool)  # neither given out nor, as far as was seen, done by others
    numbers = {part: np.array([store.plan.number(t) for t in todo if t.part == part], int) for part in PARTS}
    number, of = among
    place = int(len(todo) * (number + _dice.uniform(0.25, 0.75)) / of) if of > 1 else 0
    looked, pause, shortest = monotonic(), 0.0, REFRESH
    while True:
        ended = place >= len(todo) or not free[place]
        if ended and not free.any():
            return
        if ended or monotonic() - looked > min(REFRESH, pause):
            began = monotonic()
            store.progress.refresh()
            looked = monotonic()
            shortest = min(shortest, looked - began)  # a busy machine makes some long
            pause = REFRESH if isinstance(store.progress.path, Bucket) else shortest / LOOKING
        if not ended:
            tile, free[place] = todo[place], False
            lacking = tuple(readout for readout in wanted if not store.progress.has(tile, [readout], sizes))
            if lacking:
                yield Task(tile, lacking)
                place += 1
                continue
        complete = store.progress.complete
        free &= ~np.concatenate([complete(part, numbers[part], wanted, sizes) for part in PARTS])
        place = _within_largest(free)


def _within_largest(free: np.ndarray) -> int:
    """A place in the second half of the longest run of True; 0 if there is none."""
    first, end = np.flatnonzero(np.diff(np.r_[False, free, False])).reshape(-1, 2).T
    if not len(first):
        return 0
    longest = int(np.argmax(end - first))
    return int(first[longest] + (end - first)[longest] * _dice.uniform(0.5, 1))
