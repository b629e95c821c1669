"""Progress of a store: the journals of all its writers, merged, and followed as they grow."""

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
from cntk_bench.grams.segments import Logs
from cntk_bench.grams.tile_states import TileStates
from cntk_bench.grams.tiles import PARTS, Plan, Tile
from cntk_bench.system.bucket import Bucket


@dataclass(frozen=True)
class Counts:
    """How much is done for some readouts and images, and how much there is in total.

    taken, in_part : tiles taken from another store, for all readouts or only some.
    computed : pairs in tiles not taken entirely; computing them took `seconds`, summed over all writers.
    """

    tiles: int
    all_tiles: int
    pairs: int
    all_pairs: int
    taken: int
    in_part: int
    computed: int
    seconds: float


class Progress(TileStates):
    """The merged journals of a store; thread-safe.

    Parameters
    ----------
    path : Path or Bucket
        The store.
    plan : Plan
    first : Plan, optional
        The store's plan when its journal was of format 1; by default `plan`.
    """

    path: Any

    def __init__(self, path: Path | Bucket, plan: Plan, first: Plan | None = None):
        super().__init__(plan)
        self.path, self._first = path, first or plan
        self._logs = Logs(path) if isinstance(path, Bucket) else None
        self._reading = threading.Lock()
        self._read: dict[Path, int] = {}  # bytes read of each journal
        self._changing = threading.RLock()
        self.refresh()

    def refresh(self) -> None:
        """Read what was logged since the last call.

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

    def grown(self, plan: Plan) -> "Progress":
        """The same journals read for a larger plan, as once the store has grown."""
        return Progress(self.path, plan, self._first)

    def own(self, writer: str) -> None:
        """Skip a writer's lines from now on, since it enters them itself: saves requests to object stores."""
        if self._logs is not None:
            self._logs.own(writer)

    def _merge_all(self, found: list) -> None:
        for batch in lines.batches(found, self.plan.tile):
            self.merge(batch)

    def _more_of(self, file: Path) -> Iterator[list]:
        """Yield the lines of a journal that were not read yet, part by part."""
        for text, end in tail(file, self._read.get(file, 0)):
            self._read[file] = end
            yield from decoded(text)

    def _first_writer(self, found: list) -> None:
        """Merge lines of format 1, whose order gives the rounds, and whose shapes are those of `first`."""
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
        """Merge a line written by this process."""
        with self._changing:
            self.merge(lines.batch(line, self.plan.tile))

    def has(
        self, tile: Tile, readouts: Sequence[int] | None = None, sizes: tuple[int, int] | None = None
    ) -> bool:
        """Whether a tile is done for these readouts and the first `sizes` images; all by default."""
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
            Only the first images of either set matter; all by default.
        draws : int
            Number of draws of these training images (`Plan`): tiles with pairs between draws only do not
            matter.
        shard : (i, n)
            Only tiles in the i-th of n shares, from 1, of all tiles that matter, done or not.
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
        """Count the tiles done; parameters as for `missing`. Makes no list of possibly a million tiles."""
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


def _between(found: Sequence[Any]) -> Iterator[list]:
    """Split lines, in order, before and after each one that retracts a tile."""
    several: list = []
    for line in found:
        if isinstance(line, dict) and line.get("digests", ()) is None:
            yield several
            yield [line]
            several = []
        else:
            several.append(line)
    yield several
