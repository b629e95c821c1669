"""Compare the speed of our CPU backend and of another library that computes the same kernels.

Both compute kernels of the same images in float32, on as many threads, compiled, and by turns. A ratio of
times is given only if their numbers agree: otherwise they do not compute the same thing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from statistics import median

import numpy as np

from cntk_bench import backends
from cntk_bench.backends import Backend
from cntk_bench.costs import measure
from cntk_bench.kernels.spec import Spec
from cntk_bench.system import cores, memory

TOLERANCE = 1e-4  # largest difference of the two libraries' numbers, relative to the largest of a readout
ROUNDS = 3  # rounds, in each of which both are timed
PATIENCE = 10  # larger tiles are tried until a call takes so many times what it should


@dataclass(frozen=True)
class Program:
    """A program that a library has compiled for some images.

    Parameters
    ----------
    run : callable
        Computes the kernels of all pairs and returns them when done: float32 (readouts, n, m).
    memory : int
        Bytes that it needs while it runs, approximately.
    """

    run: Callable[[], np.ndarray]
    memory: int


@dataclass(frozen=True)
class Library:
    """A library to compare with.

    Parameters
    ----------
    name : str
        With its version.
    compiled : callable
        (spec, x, z) -> Program, for float32 images x (n, C, P, P) and z (m, C, P, P).
    lacks : callable
        (spec) -> what of it the library cannot express, or None.
    """

    name: str
    compiled: Callable[[Spec, np.ndarray, np.ndarray], Program]
    lacks: Callable[[Spec], str | None] = lambda spec: None


@dataclass(frozen=True)
class Timing:
    """One library's tile (images along a side), seconds per pair (median), and cores it kept busy."""

    tile: int
    seconds_per_pair: float
    cores_busy: float


@dataclass(frozen=True)
class Comparison:
    """Times of two libraries, taken by turns in several rounds.

    Parameters
    ----------
    library : str
    difference : float
        The largest difference of their numbers, relative to the largest number of the readout.
    ours, theirs : Timing
    ratios : tuple of float
        Their time per pair over ours, in each round.
    threads : int
        Number that both may use.
    """

    library: str
    difference: float
    ours: Timing
    theirs: Timing
    ratios: tuple[float, ...]
    threads: int


@dataclass(frozen=True)
class Refusal:
    """Why two libraries are not compared; `wrong` where their numbers differ."""

    library: str
    reason: str
    wrong: bool = False


def compare_made_up(
    library: Library, spec: Spec, found: measure.Benchmark, seconds: float
) -> Comparison | Refusal:
    """Run `compare` on the images of a benchmark, with its backend and its tile."""
    backend = backends.create(found.backend, spec)
    return compare(library, backend, measure.made_up(spec), isqrt(found.alone.pairs), seconds)


def compare(
    library: Library, backend: Backend, images: np.ndarray, tile: int, seconds: float
) -> Comparison | Refusal:
    """Time a library and our backend by turns, if their numbers agree.

    Parameters
    ----------
    library : Library
    backend : Backend
        Ours.
    images : array (n, C, P, P), float32
        Each pair has one image of the first half and one of the second. Each library uses the first images
        of both halves, as many as its tile takes.
    tile : int
        Images along a side of our tile.
    seconds : float
        Approximate time for each library in each round; at least one call.
    """
    if lacking := library.lacks(backend.spec):
        return Refusal(library.name, lacking)
    half = len(images) // 2
    x, z = images[:half], images[half:]
    side, chosen = 1, None
    while side <= half:
        program = library.compiled(backend.spec, x[:side], z[:side])
        free = memory.available()
        if free is not None and program.memory > free / 2:
            break
        found, elapsed, _ = _timed(program.run)
        difference = _difference(found, _ours(backend, x[:side], z[:side])())
        if not difference <= TOLERANCE:
            return Refusal(
                library.name, f"its numbers differ from ours by {difference:.1e}, relatively", True
            )
        if elapsed < seconds:  # the first call may be slower
            elapsed = min(elapsed, _timed(program.run)[1])
        if chosen is None or elapsed / side**2 < chosen.seconds / chosen.side**2:
            chosen = _Tile(program.run, side, elapsed, difference)
        if elapsed > PATIENCE * seconds:
            break
        side *= 2
    if chosen is None:
        needed = f"{program.memory / 2**30:.1f} GiB"
        return Refusal(library.name, f"a pair of images needs {needed}, and that is too much of what is free")
    tile = min(tile, half)
    run = _ours(backend, x[:tile], z[:tile])
    return _by_turns(library.name, chosen, _Tile(run, tile, _timed(run)[1]), seconds)


@dataclass(frozen=True)
class _Tile:
    """A warm program of a square tile: images along a side, seconds of a call, how far its numbers differ."""

    run: Callable[[], np.ndarray]
    side: int
    seconds: float
    difference: float = 0.0


def _ours(backend: Backend, x: np.ndarray, z: np.ndarray) -> Callable[[], np.ndarray]:
    """Return what computes our tile, of images that are prepared already."""
    prepared = backend.prepare(x), backend.prepare(z)
    return lambda: backend.tile(*prepared)


def _difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Return the largest difference, relative to the largest number of its readout; NaN if one is NaN."""
    a, b = (np.asarray(each, np.float64) for each in (theirs, ours))
    if a.shape != b.shape:
        return float("nan")
    return float((abs(a - b).max((1, 2)) / abs(b).max((1, 2))).max())


def _timed(run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Return a call's result, its seconds, and the seconds that all its threads worked."""
    started, worked = time.perf_counter(), time.process_time()
    found = run()
    return found, time.perf_counter() - started, time.process_time() - worked


def _by_turns(name: str, theirs: _Tile, ours: _Tile, seconds: float) -> Comparison:
    """Time both in several rounds; each begins with the library that the last one ended with."""
    tiles = (ours, theirs)
    rates: list[list[float]] = [[], []]  # seconds per pair of each round
    busy: list[list[float]] = [[], []]
    for turn in range(ROUNDS):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            calls = max(1, round(seconds / tiles[which].seconds))
            times = [_timed(tiles[which].run)[1:] for _ in range(calls)]
            elapsed, worked = map(sum, zip(*times, strict=True))
            rates[which].append(elapsed / calls / tiles[which].side ** 2)
            busy[which].append(worked / elapsed)
    own, other = (
        Timing(tile.side, median(rate), median(cores_busy))
        for tile, rate, cores_busy in zip(tiles, rates, busy, strict=True)
    )
    ratios = tuple(b / a for a, b in zip(*rates, strict=True))
    return Comparison(name, theirs.difference, own, other, ratios, cores.threads())
