"""What is done in a store: the journals of all its writers, merged and followed."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.grams.journal import (
    DIGITS,
    FIRST,
    FOLDER,
    LONGEST,
    Entry,
    batches,
    entry,
    tail,
    unreadable,
)
from cntk_bench.grams.tiles import PARTS, Plan, Tile

SPECIAL = {"round", "shape", "taken"}  # keys of lines that are merged one by one


class Progress:
    """Which tiles are done, for which readouts, with which digests.

    Memory: 10 bytes per tile and readout.

    Parameters
    ----------
    path : Path
        The store.
    plan : Plan
    first : Plan, optional
        What the store was when its journal was of format 1; the plan itself by default.

    Attributes
    ----------
    disputed : set of (Tile, int)
        Tiles and readouts of which two writers that computed the same readouts together logged
        different digests: one of them is wrong.
    taken : int
        Tiles of which something was taken from another store.
    seconds : float
        Of computing what is done, all writers added up: lines that tell nothing new add nothing.
    """

    def __init__(self, path: Path, plan: Plan, first: Plan | None = None):
        self.path, self.plan, self._first = path, plan, first or plan
        shapes = {part: (plan.count_of(part), plan.readouts) for part in PARTS}
        self._digests = {part: np.zeros(shape, np.uint64) for part, shape in shapes.items()}
        # Which readouts were computed together, as a place in `_sets`.
        self._which = {part: np.zeros(shape, np.uint16) for part, shape in shapes.items()}
        self._sets: dict[tuple[int, ...], int] = {}
        self._shapes: dict[tuple[Tile, int], tuple[int, int]] = {}  # of numbers that are no whole tile
        self._others: dict[tuple[Tile, int], set[int]] = {}  # more than one digest
        self._rounds: dict[Tile, int] = {}
        self._read: dict[Path, int] = {}  # bytes of each journal
        self.disputed: set[tuple[Tile, int]] = set()
        self.taken, self.seconds = 0, 0.0
        self.refresh()

    def refresh(self) -> None:
        """Read what was logged since the last time.

        Raises
        ------
        UserError
            If a journal cannot be read.
        """
        folder = self.path / FOLDER
        try:
            names = sorted(os.listdir(folder)) if folder.is_dir() else []
        except OSError as error:
            raise unreadable(folder, error) from None
        for found in self._more_of(self.path / FIRST):
            self._first_writer(found)
        for file in (folder / name for name in names if name.endswith(".jsonl")):
            for found in self._more_of(file):
                self._take(found)

    def _more_of(self, file: Path) -> Iterator[list]:
        """What a journal has beyond what was read, batch by batch."""
        for text, end in tail(file, self._read.get(file, 0)):
            self._read[file] = end
            yield from batches(text)

    def _first_writer(self, found: list) -> None:
        """Lines of format 1: their order tells the rounds, and shapes are those of the first images."""
        for one in map(entry, found):
            if one is None:
                continue
            turn, shape = self.round(one.tile) + (one.digests is None), one.tile.shape(self._first)[1:]
            whole = min(shape) == self.plan.tile
            self.enter(replace(one, round=max(turn, one.round), shape=None if whole else shape))

    def _take(self, found: list) -> None:
        plain: list[dict] = []
        rest: list[dict] = []
        for line in found:
            if isinstance(line, dict):
                (plain if SPECIAL.isdisjoint(line) else rest).append(line)
        try:
            self._enter_many(plain)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, IndexError):
            rest = [line for line in found if isinstance(line, dict)]
        for one in map(entry, rest):
            if one is not None:
                self.enter(one)

    def _enter_many(self, lines: list[dict]) -> None:
        """Merge lines of whole tiles that are new: all at once, a million in seconds.

        An error, and nothing merged, where a line is anything else.
        """
        readouts = lines[0].get("readouts")
        count = len(lines[0]["digests"])
        which = list(range(count) if readouts is None else readouts)
        if len(which) != count or min(which) < 0 or any(line.get("readouts") != readouts for line in lines):
            raise ValueError
        rows: dict[str, list[int]] = {part: [] for part in PARTS}
        cols: dict[str, list[int]] = {part: [] for part in PARTS}
        texts: dict[str, list[str]] = {part: [] for part in PARTS}
        for line in lines:
            part, row, col = line["tile"].split("-")
            rows[part].append(int(row))
            cols[part].append(int(col))
            texts[part].extend(line["digests"])
        seconds = np.array([line.get("seconds", 0) for line in lines], float)
        blocks = {part: self._block(part, rows[part], cols[part], texts[part], which) for part in PARTS}
        for part, (place, values) in blocks.items():
            self._digests[part][place], self._which[part][place] = values, self._set(tuple(which))
        self.seconds += float(seconds[(seconds >= 0) & (seconds < LONGEST)].sum())

    def _block(self, part: str, rows, cols, texts: list[str], which: list[int]) -> tuple[Any, np.ndarray]:
        """Where lines' digests go, and the digests; ValueError where something is there, or they are none."""
        row, col = np.array(rows, np.int64), np.array(cols, np.int64)
        last = row if part == "train" else self.plan.blocks("train") - 1
        if not ((row >= 0) & (row < self.plan.blocks(part)) & (col >= 0) & (col <= last)).all():
            raise ValueError
        numbers = self.plan.numbers(part, row, col)
        place = np.ix_(numbers, np.array(which))
        if self._digests[part][place].any() or len(np.unique(numbers)) < len(numbers):
            raise ValueError
        if any(tile.part == part and self.plan.number(tile) in numbers for tile in self._rounds):
            raise ValueError
        whole = "".join(texts)
        if len(whole) != DIGITS * len(texts) or set(map(len, texts)) - {DIGITS}:
            raise ValueError
        values = (
            np.frombuffer(bytes.fromhex(whole), ">u8").astype(np.uint64).reshape(len(numbers), len(which))
        )
        return place, np.maximum(values, 1)

    def enter(self, one: Entry) -> None:
        """Merge one entry: of the highest round of a tile, each readout's digest."""
        tile, turn = one.tile, self.round(one.tile)
        try:
            number = self.plan.number(tile)
        except KeyError:
            return  # of a tile that the store does not have
        row, which = self._digests[tile.part][number], self._which[tile.part][number]
        if one.round < turn or one.readouts and max(one.readouts) >= len(row):
            return
        if one.round > turn:
            self._rounds[tile] = one.round
            for readout in np.flatnonzero(row).tolist():
                self._forget((tile, readout))
            row[:] = 0
        if one.digests is None:
            return
        together, shape = self._set(one.readouts), one.shape or (self.plan.tile, self.plan.tile)
        new = False
        for readout, digest in zip(one.readouts, one.digests, strict=True):
            key, known = (tile, readout), int(row[readout])
            past = self.shape(*key) if known else (0, 0)
            if known and past != shape:  # of fewer images, or more: the larger counts
                if past[0] >= shape[0] and past[1] >= shape[1]:
                    continue
                self._forget(key)
            elif known and known != digest:
                # Computed beside other readouts, a number may differ in its last bits.
                if which[readout] == together and not one.taken:
                    self.disputed.add(key)
                self._others.setdefault(key, {known}).add(digest)
            new |= not known or past != shape
            row[readout], which[readout] = digest, together
            if shape != (self.plan.tile, self.plan.tile):
                self._shapes[key] = shape
        if new:
            self.taken += one.taken
            self.seconds += one.seconds

    def _forget(self, key: tuple[Tile, int]) -> None:
        self._others.pop(key, None)
        self._shapes.pop(key, None)
        self.disputed.discard(key)

    def _set(self, readouts: tuple[int, ...]) -> int:
        return self._sets.setdefault(readouts, min(len(self._sets), 2**16 - 1))

    def digests(self, tile: Tile, readout: int) -> set[int]:
        """The digests that a tile's numbers may have; none where it is not done."""
        digest = int(self._digests[tile.part][self.plan.number(tile), readout])
        return self._others.get((tile, readout), {digest}) if digest else set()

    def shape(self, tile: Tile, readout: int) -> tuple[int, int]:
        """(h, w) of a tile's numbers; less than the tile's where the store grew since."""
        return self._shapes.get((tile, readout), (self.plan.tile, self.plan.tile))

    def round(self, tile: Tile) -> int:
        """How often a tile was taken back."""
        return self._rounds.get(tile, 0)

    def has(
        self, tile: Tile, readouts: Sequence[int] | None = None, sizes: tuple[int, int] | None = None
    ) -> bool:
        """Whether a tile is done for these readouts, and for the first `sizes` images; all by default."""
        row = self._digests[tile.part][self.plan.number(tile)]
        chosen = range(len(row)) if readouts is None else list(readouts)
        if not row[chosen].all():
            return False
        return not self._shapes or all(self._covers((tile, readout), sizes) for readout in chosen)

    def _covers(self, key: tuple[Tile, int], sizes: tuple[int, int] | None) -> bool:
        """Whether a tile's numbers are of all images that it has among the first ones."""
        if key not in self._shapes:
            return True
        tile, (h, w) = key[0], self._shapes[key]
        n_train, n_test = sizes or (self.plan.n_train, self.plan.n_test)
        rows = (n_train if tile.part == "train" else n_test) - tile.row * self.plan.tile
        return h >= min(rows, self.plan.tile) and w >= min(
            n_train - tile.col * self.plan.tile, self.plan.tile
        )

    def any(self, tile: Tile) -> bool:
        """Whether a tile is done for some readout."""
        return bool(self._digests[tile.part][self.plan.number(tile)].any())

    def missing(
        self, readouts: Sequence[int] | None = None, sizes: tuple[int, int] | None = None, draws: int = 1
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
        """
        return self._tiles(readouts, sizes, draws, done=False)

    def done(
        self, readouts: Sequence[int] | None = None, sizes: tuple[int, int] | None = None, draws: int = 1
    ) -> list[Tile]:
        """Tiles that are done for all of these readouts, in computing order; parameters as for `missing`."""
        return self._tiles(readouts, sizes, draws, done=True)

    def _tiles(self, readouts, sizes, draws, done):
        tiles = []
        for part in PARTS:
            numbers = self._within(part, sizes, draws)
            chosen = list(range(self.plan.readouts) if readouts is None else readouts)
            whole = self._digests[part].all(1) if readouts is None else self._digests[part][:, chosen].all(1)
            for key in self._shapes:
                if key[0].part == part and key[1] in chosen and not self._covers(key, sizes):
                    whole[self.plan.number(key[0])] = False
            whole = whole[numbers]
            tiles += [self.plan.tile_at(part, n) for n in numbers[whole == done].tolist()]
        return tiles

    def _within(self, part: str, sizes: tuple[int, int] | None, draws: int) -> np.ndarray:
        """Numbers of the tiles that hold a pair of the first n_train training and n_test test images."""
        numbers = np.arange(self.plan.count_of(part))
        if sizes is None and draws == 1:
            return numbers
        sizes = sizes or (self.plan.n_train, self.plan.n_test)
        rows, below = (-(-size // self.plan.tile) for size in sizes)
        if part == "train" and draws == 1:
            return numbers[: rows * (rows + 1) // 2]
        if part == "train":
            view = replace(self.plan, n_train=sizes[0], draws=draws)
            row = np.arange(rows)
            ends = row * (row + 1) // 2 + row + 1  # of each row's tiles, the diagonal's last
            return np.concatenate(
                [
                    numbers[end - 1 - (r - c) : end]
                    for r, c, end in zip(row, view.first_col(row), ends, strict=True)
                ]
            )
        return numbers.reshape(-1, self.plan.blocks("train"))[:below, :rows].ravel()
