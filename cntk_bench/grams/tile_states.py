"""The merged state of each tile from the lines of all writers, in whatever order.

For a tile, only its highest round counts; for a readout in it, only the numbers with most images. All digests
logged for these are kept: numbers computed together with other readouts, or taken from another store, may
differ in their last bits, and so may those of another kind of machine. Two writers that computed the same
readouts together, on machines of one kind, must agree.
"""

from collections.abc import Sequence

import numpy as np

from cntk_bench.grams import layout
from cntk_bench.grams.lines import SHIFT, Batch
from cntk_bench.grams.tiles import PARTS, Plan, Tile

# Bits of an origin; the higher bits number the readouts that were computed together, and the machine.
TAKEN, SEVERAL = np.uint32(1), np.uint32(2)
TOGETHER = 4
Key = tuple[str, int, int]  # part, number of the tile, readout


class TileStates:
    """Which tiles are done, for which readouts, and with which digests.

    Memory: 12 bytes per tile and readout, 20 if it is less than a whole tile, and 8 per tile.

    Parameters
    ----------
    plan : Plan

    Attributes
    ----------
    disputed : set of (Tile, int)
        Tiles and readouts for which two writers that computed the same readouts together, on machines
        of one kind, logged different digests: one of them is wrong.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.disputed: set[tuple[Tile, int]] = set()
        counts = {part: plan.count_of(part) for part in PARTS}
        # Pages that are never written cost no memory: most stores have few rounds and extents.
        each = {part: (count, plan.readouts) for part, count in counts.items()}
        self._digests = {part: np.zeros(shape, np.uint64) for part, shape in each.items()}
        self._origins = {part: np.zeros(shape, np.uint32) for part, shape in each.items()}
        self._extents = {part: np.zeros(shape, np.uint64) for part, shape in each.items()}
        self._rounds = {part: np.zeros(count, np.int64) for part, count in counts.items()}
        self._seconds = {part: np.zeros(count) for part, count in counts.items()}
        self._sets: dict[tuple[tuple[int, ...], str], int] = {}  # readouts and machine
        self._several: dict[Key, set[tuple[int, int]]] = {}  # (digest, origin) pairs, if several
        self._whole = np.uint64(plan.tile << 32 | plan.tile)

    def merge(self, batch: Batch) -> None:
        """Add lines, ignoring those for tiles or readouts that the plan does not have."""
        if batch.readouts and max(batch.readouts) >= self.plan.readouts:
            return
        part, rows, cols = batch.part, batch.rows, batch.cols
        last = rows if part == "train" else self.plan.blocks("train") - 1
        there = (rows < self.plan.blocks(part)) & (cols <= last)
        if not there.all():
            batch = batch[there]
        numbers = self.plan.numbers(part, batch.rows, batch.cols)
        turns = _occurrences(numbers)
        for turn in range(int(turns.max(initial=0)) + 1):
            chosen = turns == turn
            if chosen.all():
                self._merge_distinct(batch, numbers)
            else:
                self._merge_distinct(batch[chosen], numbers[chosen])

    def _merge_distinct(self, batch: Batch, numbers: np.ndarray) -> None:
        """Add lines, each for a different tile."""
        part, readouts, rounds = batch.part, batch.readouts, self._rounds[batch.part]
        newer = batch.rounds > rounds[numbers]
        if newer.any():
            self._clear(part, numbers[newer])
            rounds[numbers[newer]] = batch.rounds[newer]
        older = batch.rounds < rounds[numbers]
        if older.any():
            batch, numbers = batch[~older], numbers[~older]
        if not readouts or not len(numbers):
            return
        place = np.ix_(numbers, np.array(readouts))
        known, origins, extents = (a[part][place] for a in (self._digests, self._origins, self._extents))
        past = np.where(extents == 0, self._whole, extents)
        here = np.where(batch.extents == 0, self._whole, batch.extents)[:, None]
        number = self._sets.setdefault((readouts, batch.machine), len(self._sets))
        own = (TOGETHER * number + batch.taken).astype(np.uint32)
        own = np.broadcast_to(own[:, None], known.shape)
        new = (known == 0) | (here > past)
        again = ~new & (here == past)
        equal = known == batch.digests
        # Of two lines with equal numbers, one that computed them takes precedence over one that took them.
        better = again & equal & (origins & TAKEN > own & TAKEN)
        two = again & (~equal | (origins != own) & (origins & TAKEN == 0) & (own & TAKEN == 0))
        two |= again & (origins & SEVERAL != 0)
        for line, at in np.argwhere(new & (origins & SEVERAL != 0)).tolist():
            self._forget((part, int(numbers[line]), readouts[at]))
        self._digests[part][place] = np.where(new, batch.digests, known)
        self._origins[part][place] = np.where(new | better, own, origins)
        if batch.extents.any() or extents.any():
            self._extents[part][place] = np.where(new, batch.extents[:, None], extents)
        self._seconds[part][numbers] += np.where(new.any(1) & ~batch.taken, batch.seconds, 0)
        for line, at in np.argwhere(two).tolist():
            key, was = (part, int(numbers[line]), readouts[at]), int(origins[line, at] & ~SEVERAL)
            self._add(key, (int(known[line, at]), was), (int(batch.digests[line, at]), int(own[line, at])))

    def _add(self, key: Key, one: tuple[int, int], other: tuple[int, int]) -> None:
        """Add two digests, each with its origin, to those kept for a tile and readout."""
        found = self._several.setdefault(key, {one})
        found.add(other)
        part, number, readout = key
        # A computed one, if there is any, represents all of them.
        digest, origin = min(found, key=lambda pair: (pair[1] & int(TAKEN), pair))
        self._digests[part][number, readout] = digest
        self._origins[part][number, readout] = origin | int(SEVERAL)
        alike = {digest for digest, origin in found if origin == other[1]}
        if len(alike) > 1 and not other[1] & int(TAKEN):
            self.disputed.add((self.plan.tile_at(part, number), readout))

    def _clear(self, part: str, numbers: np.ndarray) -> None:
        """Reset tiles to not done."""
        several = np.argwhere(self._origins[part][numbers] & SEVERAL)
        for line, readout in several.tolist():
            self._forget((part, int(numbers[line]), readout))
        for arrays in (self._digests, self._origins, self._extents, self._seconds):
            arrays[part][numbers] = 0

    def _forget(self, key: Key) -> None:
        self._several.pop(key, None)
        self.disputed.discard((self.plan.tile_at(*key[:2]), key[2]))

    def digests(self, tile: Tile, readout: int) -> set[int]:
        """The digests that a tile's numbers may have; empty if it is not done."""
        number = self.plan.number(tile)
        digest = int(self._digests[tile.part][number, readout])
        several = tuple(self._several.get((tile.part, number, readout), ()))  # others may add to it
        return {one for one, _ in several} if several else {digest} if digest else set()

    def readouts(self, tile: Tile) -> tuple[int, ...]:
        """Indices of the readouts for which a tile is done."""
        return tuple(r for r in range(self.plan.readouts) if self.digests(tile, r))

    def shape(self, tile: Tile, readout: int) -> tuple[int, int]:
        """(h, w) of a tile's numbers; less than the tile's own if the store has grown since."""
        extent = int(self._extents[tile.part][self.plan.number(tile), readout] or self._whole)
        return extent >> 32, extent & 0xFFFFFFFF

    def round(self, tile: Tile) -> int:
        """How often a tile was retracted; 0 also if the plan does not have it."""
        try:
            return int(self._rounds[tile.part][self.plan.number(tile)])
        except KeyError:
            return 0

    def any(self, tile: Tile) -> bool:
        """Whether a tile is done for any readout."""
        return bool(self._digests[tile.part][self.plan.number(tile)].any())

    def complete(
        self, part: str, numbers: np.ndarray, readouts: Sequence[int], sizes: tuple[int, int] | None
    ) -> np.ndarray:
        """Whether each tile is done for all of these readouts and the first `sizes` images: (tiles,) bool."""
        out = np.ones(len(numbers), bool)
        for readout in readouts:
            out &= self._digests[part][numbers, readout] != 0
            extents = self._extents[part][numbers, readout]
            odd = np.flatnonzero(extents)
            h, w = layout.shapes(self.plan, part, numbers[odd], sizes)
            had, wide = extents[odd] >> SHIFT, extents[odd] & np.uint64(0xFFFFFFFF)
            out[odd] &= (had.astype(np.int64) >= h) & (wide.astype(np.int64) >= w)
        return out

    def taken(self, tile: Tile, readouts: Sequence[int]) -> list[bool]:
        """For each of these readouts, whether a tile's numbers were taken from another store."""
        return self.all_taken(tile.part, np.array([self.plan.number(tile)]), readouts)[0].tolist()

    def all_taken(self, part: str, numbers: np.ndarray, readouts: Sequence[int]) -> np.ndarray:
        """Like `taken`, for many tiles: (tiles, readouts) bool."""
        return self._origins[part][np.ix_(numbers, np.array(readouts, int))] & TAKEN != 0


def _occurrences(numbers: np.ndarray) -> np.ndarray:
    """How often each number occurs earlier in the array, (L,)."""
    order = np.argsort(numbers, kind="stable")
    first = np.r_[True, np.diff(numbers[order]) != 0][: len(order)]
    starts = np.flatnonzero(first)
    out = np.empty(len(numbers), np.int64)
    out[order] = np.arange(len(numbers)) - starts[np.cumsum(first) - 1] if len(numbers) else 0
    return out
