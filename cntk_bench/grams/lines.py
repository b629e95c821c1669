"""What a journal's lines say: one of them (`Line`), or many at once, as arrays (`Batch`).

A line is

    {"tile": "train-3-1", "readouts": [0, 1], "digests": ["90ab...", ...], "seconds": 1.2, "time": ...}

`readouts` are places in the store's list, which only grows; a line without them is of the first ones.
`shape` is that of the numbers where it is less than a whole tile: the last tiles of a row or column, which
a store that grows computes again.
Digests are the first 16 hexadecimal digits of SHA-256 of the numbers (lines of format 1 have all 64).
`"digests": null` takes a tile back: it is not done after all. `round` counts how often a tile was taken
back, so that lines of different writers need no clock to be put in order.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from cntk_bench.grams.tiles import PARTS, Tile

DIGITS = 16  # hexadecimal, of a digest
LONGEST = 1e9  # seconds that a tile may have taken
ROUNDS = 2**31  # more than any tile was taken back
SHIFT = np.uint64(32)  # bits of a side in an extent
BROKEN = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
HEXADECIMAL = re.compile(r"[0-9a-f]*+")
TILES = re.compile(r"(?:(?:train|test)-(?:0|[1-9][0-9]{0,8})-(?:0|[1-9][0-9]{0,8})\n)*+")


@dataclass(frozen=True)
class Line:
    """A tile that is done, or with `digests` None one that is not done after all.

    readouts : places in the store's list; empty where digests is None.
    digests : the first 64 bits of each readout's digest, as an integer above 0.
    shape : (h, w) of the numbers where it is less than a whole tile; None for a whole one.
    seconds : from the end of the writer's tile before it to its own.
    time : of writing, Unix; for people.
    round : how often the tile was taken back before, or by this line.
    taken : whether the numbers were taken from another store.
    """

    tile: Tile
    readouts: tuple[int, ...]
    digests: tuple[int, ...] | None
    shape: tuple[int, int] | None = None
    seconds: float = 0.0
    time: float = 0.0
    round: int = 0
    taken: bool = False

    def __str__(self):
        """As JSON."""
        said = {
            "tile": str(self.tile),
            "readouts": self.readouts,
            "digests": self.digests and [f"{digest:0{DIGITS}x}" for digest in self.digests],
            "shape": self.shape,
            "seconds": round(self.seconds, 6),
            "time": round(self.time, 3),
            "round": self.round,
            "taken": self.taken,
        }
        return json.dumps({key: value for key, value in said.items() if value or key == "digests"})


@dataclass(frozen=True)
class Batch:
    """Lines of one part and of the same readouts, none for tiles taken back, as arrays.

    rows, cols : (L,) int64, the tiles; they may be any.
    digests : (L, readouts) uint64, above 0.
    extents : (L,) uint64, h << 32 | w of numbers that are less than a whole tile; 0 for a whole one.
    rounds, seconds, taken : (L,) int64, float64, bool.
    """

    part: str
    readouts: tuple[int, ...]
    rows: np.ndarray
    cols: np.ndarray
    digests: np.ndarray
    extents: np.ndarray
    rounds: np.ndarray
    seconds: np.ndarray
    taken: np.ndarray

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, chosen: np.ndarray) -> "Batch":
        """Those of a mask or of places."""
        arrays = {k: v[chosen] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return replace(self, **arrays)


def batches(found: Sequence[Any], side: int) -> list[Batch]:
    """What is said by the JSON values of a journal; what makes no sense is left out.

    Parameters
    ----------
    found : sequence
    side : int
        Of the store's tiles: no shape is larger.
    """
    lines = [line for line in found if type(line) is dict]
    try:
        return _at_once(lines, side)
    except BROKEN:  # not all of them are of one kind
        pass
    alike: dict[Any, list[dict]] = {}
    for line in lines:
        alike.setdefault(_kind(line), []).append(line)
    return [batch for some in alike.values() for batch in _sound(some, side)]


def _kind(line: dict) -> Any:
    """Lines that are no nonsense are of one kind if they have the same readouts."""
    digests, readouts = line.get("digests"), line.get("readouts")
    if type(digests) is not list:
        return None
    if type(readouts) is list and set(map(type, readouts)) == {int}:
        return len(digests), *readouts
    return len(digests)


def _sound(lines: list[dict], side: int) -> list[Batch]:
    """Lines of one kind, without those that make no sense, which are few: halves are tried."""
    try:
        return _at_once(lines, side)
    except BROKEN:
        half = len(lines) // 2
        return [*_sound(lines[:half], side), *_sound(lines[half:], side)] if half else []


def _at_once(lines: list[dict], side: int) -> list[Batch]:
    """Lines of one kind; one of `BROKEN` where they are not, or any of them makes no sense."""
    if not lines:
        return []
    told, readouts = [line["digests"] for line in lines], _readouts(lines)
    if told.count(None) == len(lines):
        readouts = ()
    elif set(map(type, told)) != {list} or set(map(len, told)) != {len(readouts)}:
        raise ValueError("digests")
    part, rows, cols = _tiles([line["tile"] for line in lines])
    seconds = np.array(_typed(lines, "seconds", (int, float)), float)
    whole = Batch(
        "",
        readouts,
        rows,
        cols,
        _digests(list(chain.from_iterable(filter(None, told)))).reshape(len(lines), len(readouts)),
        _extents(lines, side),
        np.array(_typed(lines, "round", (int,)), np.int64),
        np.where((seconds >= 0) & (seconds < LONGEST), seconds, 0),
        np.array([line.get("taken") is True for line in lines], bool),
    )
    if not ((whole.rounds >= 0) & (whole.rounds < ROUNDS)).all():
        raise ValueError("round")
    found = [(name, np.flatnonzero(part == number)) for number, name in enumerate(PARTS)]
    return [replace(whole[places], part=name) for name, places in found if len(places)]


def _readouts(lines: list[dict]) -> tuple[int, ...]:
    """The readouts of all of these lines."""
    all_of_them: list[Any] = [line.get("readouts") for line in lines]
    first = all_of_them[0]
    if all_of_them.count(first) < len(lines):
        raise ValueError("readouts")
    if first is None:
        return tuple(range(len(lines[0]["digests"] or ())))
    if set(map(type, chain.from_iterable(all_of_them))) != {int} or min(first) < 0:
        raise ValueError("readouts")
    if len(set(first)) < len(first):
        raise ValueError("readouts")
    return tuple(first)


def _tiles(names: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tiles of names: the places of their parts in `PARTS`, rows and columns."""
    text = "\n".join(names) + "\n"
    if not TILES.fullmatch(text) or text.count("\n") != len(names):
        raise ValueError("tile")
    for number, part in enumerate(PARTS):
        text = text.replace(f"{part}-", f"{number} ")
    parts, rows, cols = np.fromstring(text.replace("-", " "), np.int64, sep=" ").reshape(-1, 3).T
    return parts, rows, cols


def _typed(lines: list[dict], key: str, kinds: tuple[type, ...]) -> list:
    values = [line.get(key, 0) for line in lines]
    if set(map(type, values)) - set(kinds):
        raise ValueError(key)
    return values


def _digests(texts: list[str]) -> np.ndarray:
    """Digests' first 64 bits, as integers above 0, which stands for none."""
    first = "".join([text[:DIGITS] for text in texts])
    if len(first) < DIGITS * len(texts) or not HEXADECIMAL.fullmatch(first):  # none is too short then
        raise ValueError("digests")
    return np.maximum(np.frombuffer(bytes.fromhex(first), ">u8").astype(np.uint64), 1)


def _extents(lines: list[dict], side: int) -> np.ndarray:
    """Shapes as extents, 0 for those of whole tiles."""
    out, shapes = np.zeros(len(lines), np.uint64), [line.get("shape") for line in lines]
    for number, shape in enumerate(shapes) if shapes.count(None) < len(shapes) else ():
        if shape is not None:
            h, w = shape
            if type(h) is not int or type(w) is not int or not (1 <= h <= side and 1 <= w <= side):
                raise ValueError("shape")
            out[number] = extent((h, w), side)
    return out


def extent(shape: tuple[int, int] | None, side: int) -> int:
    """A shape as a number, 0 for that of a whole tile; of two shapes the one with more images is larger."""
    return 0 if shape in (None, (side, side)) else shape[0] << 32 | shape[1]


def digest_of(text: str) -> int:
    """What is kept of a digest in hexadecimal."""
    return int(_digests([text])[0])


def batch(line: Line, side: int) -> Batch:
    """One line as arrays."""
    tile, none = line.tile, line.digests is None
    return Batch(
        tile.part,
        () if none else line.readouts,
        np.array([tile.row], np.int64),
        np.array([tile.col], np.int64),
        np.array([() if line.digests is None else line.digests], np.uint64),
        np.array([extent(line.shape, side)], np.uint64),
        np.array([line.round], np.int64),
        np.array([line.seconds], float),
        np.array([line.taken], bool),
    )
