"""Gram matrices: at once in memory, or tile by tile into a store."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from time import perf_counter

import numpy as np

from cntk_bench import backends
from cntk_bench.errors import UserError
from cntk_bench.grams.tiles import Plan, Tile, auto_tile
from cntk_bench.kernels.spec import Readout, Spec
from cntk_bench.system.interruption import noted

WRITERS = 2  # tiles being written at once
WAITING = 3  # computed tiles that may be in memory, written or waiting to be


def gram(x, z=None, *, readouts: Sequence[Readout], backend: str = "auto") -> np.ndarray:
    """Exact kernels between all images of x and all images of z.

    Parameters
    ----------
    x : array (n, C, P, P), float
        Images, preprocessed; computed with as float32, whatever power of two they are scaled by.
    z : array (m, C, P, P), float, optional
        The other images; x itself by default (half is then computed, and mirrored).
    readouts : sequence of Readout
        Which kernels; all come from one run of the recursion at the largest depth.
    backend : {"auto", "cpu", "cuda"}
        Where to compute; "auto" takes a GPU where there is one.

    Returns
    -------
    array (len(readouts), n, m), float32
        On Arora's scale: CNTK-V is a sum over pixels, CNTK-GAP a mean over pairs of pixels.
        float32 is what the backends' accuracy fills, and the bits that a store keeps. Convert to
        float64 before solving: these matrices are ill-conditioned.

    Raises
    ------
    UserError
        If images are not finite, real, square and of one shape; if a readout is listed twice; if
        the backend is missing; if an entry leaves the range of float32, or the depth is too great
        for the images' size.

    References
    ----------
    Arora et al., "On Exact Computation with an Infinitely Wide Neural Net", NeurIPS 2019.
    """
    x = _images(x, "x")
    z = x if z is None else _images(z, "z", like=x)
    readouts = tuple(readouts) if isinstance(readouts, Iterable) else (readouts,)
    for readout in readouts:
        if not isinstance(readout, Readout):
            raise UserError(f"readout {readout!r} is not possible: give a list of Readout objects")
    worker = backends.create(backends.choose(backend), Spec(readouts, *x.shape[1:3]))
    prepared = worker.prepare(x)
    other = prepared if z is x else worker.prepare(z)
    return _finite(worker.tile(prepared, other, symmetric=z is x), "the Gram matrix")


def make_plan(spec: Spec, n_train: int, n_test: int, backend: str, tile: int | None = None) -> Plan:
    """The plan for a spec and two set sizes; by default with the tile that suits a backend."""
    if tile is None:
        tile = auto_tile(n_train, n_test, spec.work, backends.tile_work(backend))
    # A tile is stored whole: a larger one than the data would only cost disk.
    return Plan(n_train, n_test, min(tile, max(n_train, n_test)), len(spec.readouts))


def compute(store, backend, x_train, x_test, progress: Callable[[Tile], None] | None = None):
    """Compute the tiles a store is missing, and write each as soon as it is finished.

    A tile is started before the one before it is ended, and written while others are computed, so
    that a GPU never waits. However this ends, by an error, a full disk or one Ctrl-C, the tiles
    ended until then are written first, if the disk lets them.

    Parameters
    ----------
    store : Store
        Is locked meanwhile.
    backend : Backend
    x_train, x_test : array (n, C, P, P), float32
        As many images as the store's plan says.
    progress : callable, optional
        Called with each tile once it is safely stored.

    Raises
    ------
    UserError
        If another run holds the store, the disk is full, or a tile has values that are not finite.
    """
    start = tile_function(store.plan, backend, x_train, x_test)
    with store.lock():
        _run(store, start, store.missing(), progress)


def repair(store, damaged, backend, x_train, x_test, progress=None):
    """Compute damaged tiles anew. Interrupted, it leaves them missing, for `compute`.

    Parameters
    ----------
    store, backend, x_train, x_test, progress
        As for `compute`.
    damaged : iterable of Tile
        Such as `Verification.damaged`.
    """
    start = tile_function(store.plan, backend, x_train, x_test)
    with store.lock():
        for tile in damaged:
            store.discard(tile)
        _run(store, start, list(damaged), progress)


def tile_function(plan: Plan, backend, x_train, x_test) -> Callable[[Tile], Callable[[], np.ndarray]]:
    """The function that starts a tile, all a worker needs; what it returns gives the tile's numbers,
    float32 (readouts, h, w).

    It keeps the two blocks of prepared images used last: in the plan's order, a tile prepares one
    block, which is small beside the tile's pairs.
    """
    images = {"train": _images(x_train, "x_train")}
    if plan.n_test:
        images["test"] = _images(x_test, "x_test", like=images["train"])
    for part, x in images.items():
        if len(x) != plan.size(part):
            raise UserError(f"{len(x)} {part} images given, but the store is for {plan.size(part)}")

    @lru_cache(maxsize=2)
    def prepared(part, block):
        return backend.prepare(images[part][plan.block(part, block)])

    def start(tile):
        rows, cols = prepared(tile.part, tile.row), prepared("train", tile.col)
        end = backend.start(rows, cols, symmetric=tile.diagonal)
        return lambda: _finite(end(), f"tile {tile}")

    return start


def _one_ahead(items):
    """The same items, each given once the next is made, or could not be made."""
    made = deque()
    try:
        for item in items:
            made.append(item)
            if len(made) == 2:
                yield made.popleft()
    except Exception:
        yield from made
        raise
    yield from made


def _run(store, start, tiles, progress):
    waiting = deque()

    def settle(most):
        while waiting and (len(waiting) > most or waiting[0][1].done()):
            tile, written = waiting.popleft()
            written.result()
            if progress is not None:
                progress(tile)

    # Leaving the pool waits for what was handed to it.
    with noted() as interrupted, ThreadPoolExecutor(WRITERS) as writers:
        before = perf_counter()
        for tile, end in _one_ahead((tile, start(tile)) for tile in tiles):
            block = end()
            now = perf_counter()
            waiting.append((tile, writers.submit(store.write, tile, block, now - before)))
            before = now
            settle(WAITING)
            if interrupted.is_set():
                break
        settle(0)


def _images(x, name, like=None) -> np.ndarray:
    """Images (n, C, P, P) as contiguous floats, or a UserError that says what is wrong with them."""
    try:
        x = np.asarray(x)
    except (ValueError, TypeError) as error:
        raise UserError(f"{name} is not an array of images ({error}): give (n, C, P, P) numbers") from None
    if x.dtype.kind not in "fiu":
        raise UserError(f"{name} has dtype {x.dtype}: give real numbers, such as float32")
    if x.ndim != 4 or 0 in x.shape or x.shape[2] != x.shape[3]:
        raise UserError(f"{name} has shape {x.shape}: give (n, C, P, P), square images, channels first")
    if like is not None and x.shape[1:] != like.shape[1:]:
        raise UserError(f"{name} has images of shape {x.shape[1:]}, the others have {like.shape[1:]}")
    with np.errstate(over="ignore", under="ignore"):
        narrow = np.ascontiguousarray(x, np.float32)
    _finite(narrow, name, "mend or leave out such images")
    # Wider floats stay what they are where float32 would lose some of them: backends scale images.
    lost = x.dtype.itemsize > 4 and ((abs(narrow) < np.finfo(np.float32).tiny) & (x != 0)).any()
    return np.ascontiguousarray(x) if lost else narrow


def _finite(values, name, remedy="scale the images down") -> np.ndarray:
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise UserError(f"{name} is {values[place]} at {list(place)}, as float32: {remedy}")
    return values
