"""The lines of journals: one of them (`Line`), or many at once, as arrays (`Batch`).

A line is

    {"tile": "train-3-1", "readouts": [0, 1], "digests": ["90ab...", ...], "seconds": 1.2, "time": ...}

`readouts` are indices into the store's list, which only grows; if left out, they are 0, 1, ...
`shape` is given if the numbers are less than a whole tile: the last tiles of a row or column, which are
computed again when the store grows.
`digests` are the first 16 hexadecimal digits of the SHA-256 of the numbers (all 64 in format 1).
`machine` names the kind of machine that computed the numbers (`backends.machine`).
`"digests": null` retracts a tile: it is not done after all. `round` counts how often a tile was
retracted, so that lines of different writers can be ordered without a clock.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from cntk_bench.grams.tiles import PARTS, Tile

DIGITS = 16  # hexadecimal digits of a digest
LONGEST = 1e9  # seconds that a tile may have taken
ROUNDS = 2**31  # more often than any tile was retracted
SHIFT = np.uint64(32)  # bits of a side in an extent
BROKEN = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
HEXADECIMAL = re.compile(r"[0-9a-f]*+")
TILES = re.compile(r"(?:(?:train|test)-(?:0|[1-9][0-9]{0,8})-(?:0|[1-9][0-9]{0,8})\n)*+")


@dataclass(frozen=True)
class Line:
    """A tile that is done or, if `digests` is None, is not done after all (retracted).

    readouts : indices into the store's list; empty if digests is None.
    digests : the first 64 bits of each readout's digest, as an integer above 0.
    shape : (h, w) of the numbers if they are less than a whole tile, else None.
    seconds : time from the end of the writer's previous tile to the end of this one.
    time : Unix time of writing; for people to read.
    round : how often the tile was retracted, this line included.
    taken : whether the numbers were taken from another store.
    machine : the kind of machine that computed the numbers; "" if it is not known.
    """

    tile: Tile
    readouts: tuple[int, ...]
    digests: tuple[int, ...] | None
    shape: tuple[int, int] | None = None
    seconds: float = 0.0
    time: float = 0.0
    round: int = 0
    taken: bool = False
    machine: str = ""

    def __str__(self) -> str:
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
            "machine": self.machine,
        }
        return json.dumps({key: value for key, value in said.items() if value or key == "digests"})


@dataclass(frozen=True)
class Batch:
    """Lines of one part, one set of readouts (empty for retracted tiles) and one kind of machine, as arrays.

    rows, cols : (L,) int64, the tiles, not checked against a plan.
    digests : (L, readouts) uint64, above 0.
    extents : (L,) uint64, h << 32 | w if the numbers are less than a whole tile, else 0.
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
    machine: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: np.ndarray) -> "Batch":
        """Select lines by a mask or by indices."""
        arrays = {k: v[chosen] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return replace(self, **arrays)


def batches(found: Sequence[Any], side: int) -> list[Batch]:
    """Convert the JSON values of a journal to batches, leaving out invalid ones.

    Parameters
    ----------
    found : sequence
    side : int
        Side of the store's tiles; larger shapes are invalid.
    """
    lines = [line for line in found if type(line) is dict]
    try:
        return _at_once(lines, side)
    except BROKEN:  # they differ in kind, or some are invalid
        pass
    alike: dict[Any, list[dict]] = {}
    for line in lines:
        alike.setdefault(_kind(line), []).append(line)
    return [batch for some in alike.values() for batch in _sound(some, side)]


def _kind(line: dict) -> Any:
    """Key by which to group lines: valid lines with the same readouts and machine have the same key."""
    digests, readouts, machine = line.get("digests"), line.get("readouts"), line.get("machine", "")
    machine = machine if type(machine) is str else None
    if type(digests) is not list:
        return machine
    if type(readouts) is list and set(map(type, readouts)) == {int}:
        return machine, len(digests), *readouts
    return machine, len(digests)


def _sound(lines: list[dict], side: int) -> list[Batch]:
    """Convert lines of one kind, leaving out the few invalid ones, which are found by bisection."""
    try:
        return _at_once(lines, side)
    except BROKEN:
        half = len(lines) // 2
        return [*_sound(lines[:half], side), *_sound(lines[half:], side)] if half else []


def _at_once(lines: list[dict], side: int) -> list[Batch]:
    """Convert lines of one kind; raises one of `BROKEN` if they differ in kind or any line is invalid."""
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
        _machine(lines),
    )
    if not ((whole.rounds >= 0) & (whole.rounds < ROUNDS)).all():
        raise ValueError("round")
    found = [(name, np.flatnonzero(part == number)) for number, name in enumerate(PARTS)]
    return [replace(whole[places], part=name) for name, places in found if len(places)]


def _readouts(lines: list[dict]) -> tuple[int, ...]:
    """The readouts, which all of these lines must share."""
    all_of_them = _shared(lines, "readouts", None)
    first = all_of_them[0]
    if first is None:
        return tuple(range(len(lines[0]["digests"] or ())))
    if set(map(type, chain.from_iterable(all_of_them))) != {int} or min(first) < 0:
        raise ValueError("readouts")
    if len(set(first)) < len(first):
        raise ValueError("readouts")
    return tuple(first)


def _machine(lines: list[dict]) -> str:
    """The kind of machine, which all of these lines must share."""
    first = _shared(lines, "machine", "")[0]
    if type(first) is not str:
        raise ValueError("machine")
    return first


def _shared(lines: list[dict], key: str, missing: Any) -> list[Any]:
    """The values of a key in these lines, which must all be equal."""
    values = [line.get(key, missing) for line in lines]
    if values.count(values[0]) < len(values):
        raise ValueError(key)
    return values


def _tiles(names: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parse names of tiles: indices of their parts in `PARTS`, rows and columns."""
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
    """First 64 bits of digests as integers; 0 becomes 1, because 0 stands for no digest."""
    first = "".join([text[:DIGITS] for text in texts])
    if len(first) < DIGITS * len(texts) or not HEXADECIMAL.fullmatch(first):  # none is too short then
        raise ValueError("digests")
    return np.maximum(np.frombuffer(bytes.fromhex(first), ">u8").astype(np.uint64), 1)


def _extents(lines: list[dict], side: int) -> np.ndarray:
    """Shapes of lines as extents, 0 for whole tiles."""
    out, shapes = np.zeros(len(lines), np.uint64), [line.get("shape") for line in lines]
    for number, shape in enumerate(shapes) if shapes.count(None) < len(shapes) else ():
        if shape is not None:
            h, w = shape
            if type(h) is not int or type(w) is not int or not (1 <= h <= side and 1 <= w <= side):
                raise ValueError("shape")
            out[number] = extent((h, w), side)
    return out


def extent(shape: tuple[int, int] | None, side: int) -> int:
    """Encode a shape as a number, 0 for a whole tile; a shape with more images has a larger number."""
    return 0 if shape in (None, (side, side)) else shape[0] << 32 | shape[1]


def digest_of(text: str) -> int:
    """The part of a hexadecimal digest that is kept, as an integer."""
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
        line.machine,
    )
