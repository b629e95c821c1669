"""What is done in a store: the journals of all its writers, merged and followed."""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.grams import layout, lines
from cntk_bench.grams.journal import FIRST, FOLDER, decoded, tail, unreadable
from cntk_bench.grams.lines import SHIFT, Line
from cntk_bench.grams.merged import Merged
from cntk_bench.grams.segments import Logs
from cntk_bench.grams.tiles import PARTS, Plan, Tile
from cntk_bench.system.bucket import Bucket


@dataclass(frozen=True)
class Counts:
    """How much is done of some readouts and images, and how much there is in all.

    taken, in_part : tiles that were taken from another store, whole or for some readouts alone.
    computed : pairs of tiles that were not taken whole, which took `seconds`, all writers added up.
    """

    tiles: int
    all_tiles: int
    pairs: int
    all_pairs: int
    taken: int
    in_part: int
    computed: int
    seconds: float


class Progress(Merged):
    """The merged journals of a store; threads may use it at once.

    Parameters
    ----------
    path : Path or Bucket
        The store.
    plan : Plan
    first : Plan, optional
        What the store was when its journal was of format 1; the plan itself by default.
    """

    path: Any

    def __init__(self, path: Path | Bucket, plan: Plan, first: Plan | None = None):
        super().__init__(plan)
        self.path, self._first = path, first or plan
        self._logs = Logs(path) if isinstance(path, Bucket) else None
        self._reading = threading.Lock()
        self._read: dict[Path, int] = {}  # bytes of each journal
        self._changing = threading.RLock()
        self.refresh()

    def refresh(self) -> None:
        """Read what was logged since the last time.

        Raises
        ------
        UserError
            If a journal cannot be read.
        """
        if self._logs is not None:
            with self._reading:
                for found in self._logs.more():
                    with self._changing:
                        self._merge_all(found)
            return
        folder = self.path / FOLDER
        try:
            names = sorted(os.listdir(folder)) if folder.is_dir() else []
        except OSError as error:
            raise unreadable(folder, error) from None
        with self._changing:
            for found in self._more_of(self.path / FIRST):
                self._first_writer(found)
            for file in (folder / name for name in names if name.endswith(".jsonl")):
                for found in self._more_of(file):
                    self._merge_all(found)

    def own(self, writer: str) -> None:
        """Read no lines of a writer any more: they are entered. Among objects, each would be a request."""
        if self._logs is not None:
            self._logs.own(writer)

    def _merge_all(self, found: list) -> None:
        for batch in lines.batches(found, self.plan.tile):
            self.merge(batch)

    def _more_of(self, file: Path) -> Iterator[list]:
        """What a journal has beyond what was read, part by part."""
        for text, end in tail(file, self._read.get(file, 0)):
            self._read[file] = end
            yield from decoded(text)

    def _first_writer(self, found: list) -> None:
        """Lines of format 1: their order tells the rounds, and shapes are those of the first images."""
        for several in _between(found):
            for batch in lines.batches(several, self.plan.tile):
                last = batch.rows if batch.part == "train" else self._first.blocks("train") - 1
                batch = batch[(batch.rows < self._first.blocks(batch.part)) & (batch.cols <= last)]
                numbers = self._first.numbers(batch.part, batch.rows, batch.cols)
                h, w = (side.astype(np.uint64) for side in layout.shapes(self._first, batch.part, numbers))
                whole = np.minimum(h, w) == self.plan.tile
                turns = self._rounds[batch.part][self.plan.numbers(batch.part, batch.rows, batch.cols)]
                rounds = np.maximum(batch.rounds, turns + (not batch.readouts))
                self.merge(replace(batch, rounds=rounds, extents=np.where(whole, 0, h << SHIFT | w)))

    def enter(self, line: Line) -> None:
        """Merge a line."""
        with self._changing:
            self.merge(lines.batch(line, self.plan.tile))

    def has(
        self, tile: Tile, readouts: Sequence[int] | None = None, sizes: tuple[int, int] | None = None
    ) -> bool:
        """Whether a tile is done for these readouts, and for the first `sizes` images; all by default."""
        number = self.plan.number(tile)
        row = self._digests[tile.part][number]
        chosen = list(range(len(row)) if readouts is None else readouts)
        if not row[chosen].all():
            return False
        if not self._extents[tile.part][number][chosen].any():
            return True
        return bool(self.complete(tile.part, np.array([number]), chosen, sizes)[0])

    def missing(
        self,
        readouts: Sequence[int] | None = None,
        sizes: tuple[int, int] | None = None,
        draws: int = 1,
        shard: tuple[int, int] = (1, 1),
    ) -> list[Tile]:
        """Tiles that are not done for all of these readouts, in computing order.

        Parameters
        ----------
        readouts : sequence of int, optional
            All by default.
        sizes : (n_train, n_test), optional
            Of the first images that matter; all by default.
        draws : int
            Which these training images are (`Plan`): tiles of pairs of two draws alone do not matter.
        shard : (i, n)
            Only those of the i-th of n shares, from 1: of all tiles that matter, whatever is done.
        """
        return self._tiles(readouts, sizes, draws, done=False, shard=shard)

    def done(
        self, readouts: Sequence[int] | None = None, sizes: tuple[int, int] | None = None, draws: int = 1
    ) -> list[Tile]:
        """Tiles that are done for all of these readouts, in computing order; parameters as for `missing`."""
        return self._tiles(readouts, sizes, draws, done=True)

    def _tiles(
        self,
        readouts: Sequence[int] | None,
        sizes: tuple[int, int] | None,
        draws: int,
        done: bool,
        shard: tuple[int, int] = (1, 1),
    ) -> list[Tile]:
        chosen = range(self.plan.readouts) if readouts is None else readouts
        tiles: list[Tile] = []
        wanted = {part: layout.within(self.plan, part, sizes, draws) for part in PARTS}
        for part, numbers in layout.share(wanted, *shard).items():
            found = numbers[self.complete(part, numbers, chosen, sizes) == done]
            tiles += map(
                Tile, [part] * len(found), *(a.tolist() for a in layout.places(self.plan, part, found))
            )
        return tiles

    def counts(
        self, readouts: Sequence[int] | None = None, sizes: tuple[int, int] | None = None, draws: int = 1
    ) -> Counts:
        """As `missing`, in numbers alone: no list is made of a million tiles."""
        chosen = range(self.plan.readouts) if readouts is None else readouts
        sums: dict[str, Any] = dict.fromkeys(Counts.__dataclass_fields__, 0)
        for part in PARTS:
            numbers = layout.within(self.plan, part, sizes, draws)
            done, pairs = self.complete(part, numbers, chosen, sizes), layout.pairs(self.plan, part, numbers)
            taken = self.all_taken(part, numbers, chosen)
            whole = taken.all(1) & done
            for name, value in {
                "tiles": done.sum(),
                "all_tiles": len(numbers),
                "pairs": pairs[done].sum(),
                "all_pairs": pairs.sum(),
                "taken": whole.sum(),
                "in_part": (taken.any(1) & done & ~whole).sum(),
                "computed": pairs[done & ~whole].sum(),
                "seconds": self._seconds[part][numbers[done & ~whole]].sum(),
            }.items():
                sums[name] += value.item() if isinstance(value, np.generic) else value
        return Counts(**sums)

    @property
    def seconds(self) -> float:
        """Of computing what is done, all writers added up: lines that tell nothing new add nothing."""
        return float(sum(seconds.sum() for seconds in self._seconds.values()))


def _between(found: Sequence[Any]) -> Iterator[list]:
    """Lines in their order, cut before and after each that takes a tile back."""
    several: list = []
    for line in found:
        if isinstance(line, dict) and line.get("digests", ()) is None:
            yield several
            yield [line]
            several = []
        else:
            several.append(line)
    yield several
