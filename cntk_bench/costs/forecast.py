"""Predict how long solving a run's matrices will take here, from short measurements of the same solve.

The solve that `placement` chose is timed on made-up matrices, of doubling size until one takes `ENOUGH`
seconds. For more images, the upper bound grows by n^3, since all costs of lower order then count less; the
lower bound is the time of the n^3 operations at the fastest measured pace of matrix products of their size.
Tiles of a scratch store are read with the checks of a run, and predicted with; they come from the system's
cache, so the disk's own time is not included. Nor are jitters, which a matrix that is singular up to rounding
may need: each costs one more factor.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import log10
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.config.config import Solve
from cntk_bench.costs.span import Span
from cntk_bench.grams import growth, matrix
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.store import Store
from cntk_bench.grams.stream import Stored
from cntk_bench.grams.tiles import Plan
from cntk_bench.regression import SOLVERS, cholesky, iterative, prediction, ridge
from cntk_bench.regression import stream as products
from cntk_bench.regression.placement import Place
from cntk_bench.system.files import temporary, writing

LEAST, MOST = 512, 16_384  # training images of the made-up matrix
ENOUGH = 1.0  # seconds
RUNS = 3  # timed repetitions
WIDE, PRODUCTS = 4096, 5  # columns of a product, and repetitions
SIDE = 1024  # of the scratch store's tiles, at most
BEYOND_LOO = round(log10(ridge.LARGEST / ridge.LOO_RIDGES[-1]))  # further ridges that "loo" may go on to


@dataclass(frozen=True)
class Forecast:
    """How long solving takes.

    matrices : how many are solved: for each cell with a Gram matrix, one for each draw.
    each : time of one matrix, with reading and predicting; None if it cannot be predicted.
    one_pass : time of one pass over a matrix's tiles, which each iteration of conjugate gradients needs; None
        for other solvers.
    """

    matrices: int
    each: Span | None
    one_pass: Span | None = None

    @property
    def whole(self) -> Span | None:
        """Time of all matrices, one after the other."""
        return None if self.each is None else self.each * self.matrices


def forecast(tiles: Plan, place: Place, how: Solve, matrices: int, classes: int) -> Forecast:
    """Predict what solving matrices of a plan's tiles takes, by measuring for a few seconds.

    Parameters
    ----------
    tiles : Plan
    place : Place
        Where and by which solver; another package's cannot be predicted.
    how : Solve
    matrices : int
    classes : int
    """
    n = tiles.n_train // tiles.draws
    if place.method not in SOLVERS:
        return Forecast(matrices, None)
    train, test = n * (n + min(tiles.tile, n)) / 2, n * tiles.n_test  # entries
    with _scratch(min(tiles.tile, SIDE)) as store:
        if place.method == "cg":
            return Forecast(matrices, None, _pass(store, classes) * train)
        reading, predicting = _reading(store), _predicting(store, classes)
    fit = fitting(n, place, classes, how.leave_one_out or how.several)
    few = len(ridge.ridges(how.ridge))
    most = few + (BEYOND_LOO if isinstance(how.ridge, str) else 0)
    solving = Span(fit.low * few, fit.high * most)
    return Forecast(matrices, reading * train + solving + predicting * test)


def fitting(n: int, place: Place, classes: int, leave_one_out: bool) -> Span:
    """Predict the seconds of one ridge, for n training images in memory, without jitter."""

    def seconds(images: int) -> float:
        return _timed(_solve(images, place, classes, leave_one_out))

    side = min(n, LEAST)
    seconds(side)  # warm-up: loads libraries
    while side < min(n, MOST) and seconds(side) < ENOUGH:
        side = min(2 * side, n, MOST)
    times = Span.of(seconds(side) for _ in range(RUNS))
    if side == n:
        return times
    operations = n**3 / 3 * (2 if leave_one_out else 1)
    return extrapolated(n / side, times, operations / _pace(place))


def extrapolated(share: float, times: Span, products: float) -> Span:
    """Extrapolate a solve's `times` to `share` times its images; `products`: seconds of their products."""
    cubic = times * share**3
    return Span(min(products, cubic.low), cubic.high)


def _pace(place: Place) -> float:
    """Measure operations per second of a factor's matrix products (`cholesky`), the fastest of some."""
    device = cholesky.Device.named(place.device)
    deep = device.deep * cholesky.BLOCK
    one, other = (device.xp.ones((deep, width), place.dtype) for width in (cholesky.BLOCK, WIDE))

    def product() -> None:
        device.to_host((one.T @ other)[:1])  # waits until a GPU is done

    product()
    return 2 * one.size * WIDE / min(_timed(product) for _ in range(PRODUCTS))


def _solve(n: int, place: Place, classes: int, leave_one_out: bool) -> Callable[[], object]:
    """Return what solves a made-up matrix, the sum of ones and the identity."""
    dtype = np.float32 if place.device == "cuda" else place.dtype
    gram, labels = np.ones((n, n), dtype), np.arange(n) % classes
    gram[np.diag_indices(n)] = 2
    options: dict[str, Any] = {
        "classes": classes,
        "device": place.device,
        "overwrite": True,
        "leave_one_out": leave_one_out,
    }
    if place.method == "refined":
        return lambda: iterative.refined(gram, labels, **options)
    return lambda: ridge.solve(gram, labels, dtype=place.dtype, **options)


def _timed(do: Callable[[], object]) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


@contextmanager
def _scratch(side: int) -> Iterator[Store]:
    """A store of 2 x 2 tiles of training images and 1 x 2 of test images, of random numbers."""
    folder = temporary()
    with writing(folder):
        scratch = tempfile.TemporaryDirectory(prefix="cntk-bench-")
    with scratch as path:
        plan = Plan(2 * side, side, side, 1)
        facts = ImageFacts((np.zeros(2 * side, int), np.zeros(side, int)))
        store = growth.create(Path(path) / "gram.zarr", plan, {"readouts": ["ntk-v-1-all"]}, facts)
        block = np.random.default_rng(0).random((1, side, side), np.float32)
        with writing(folder), store.shared():
            for tile in plan.tiles():
                store.write(tile, block)
        yield store


def _reading(store: Store) -> Span:
    """Time reading a lower triangle of tiles, in seconds per entry."""
    entries = 3 * store.plan.tile**2
    return _per_entry(entries, lambda: matrix.matrix(store, "train", 0, triangle="lower"))


def _predicting(store: Store, classes: int) -> Span:
    """Time predicting with test rows, in seconds per entry."""
    alpha = np.random.default_rng(1).standard_normal((store.plan.n_train, classes))
    rows = lambda: (block for _, block in matrix.row_blocks(store, 0))  # noqa: E731
    return _per_entry(2 * store.plan.tile**2, lambda: prediction.predict(alpha, rows()))


def _pass(store: Store, classes: int) -> Span:
    """Time a product with a streamed lower triangle, its digests checked before, in seconds per entry."""
    b, held = np.ones((store.plan.n_train, classes)), Stored(store, 0)
    return _per_entry(3 * store.plan.tile**2, lambda: products.times(held, b))


def _per_entry(entries: int, do: Callable[[], object]) -> Span:
    do()
    return Span.of(_timed(do) for _ in range(RUNS)) * (1 / entries)
