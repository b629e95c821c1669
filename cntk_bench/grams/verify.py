"""Verification of a store's numbers: digests, consistency, and comparison with float64."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cntk_bench.grams.chunks import Unreadable
from cntk_bench.grams.store import Store
from cntk_bench.grams.tiles import Plan, Tile
from cntk_bench.kernels import convolutional
from cntk_bench.kernels import definition as reference
from cntk_bench.kernels.spec import FULLY_CONNECTED, Readout

NOT_A_KERNEL = "breaks K_ij^2 <= K_ii K_jj"


@dataclass(frozen=True)
class Entry:
    """A stored number beside its value recomputed in float64.

    `row` and `col` are image indices; `error` is relative to the value or, where terms cancel, to their
    size; `tolerance` is its bound.
    """

    tile: Tile
    row: int
    col: int
    readout: Readout
    stored: float
    exact: float
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.readout} of row {self.row}, column {self.col} is {self.stored:.9g}, in float64 "
            f"{self.exact:.9g}: relative error {self.error:.1e}, allowed {self.tolerance:.0e}"
        )


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    checked, missing : int
        Numbers of tiles that were checked, and of tiles that are not computed yet, which is no fault.
    damaged : dict of Tile to str
        Tiles with wrong numbers, and what is wrong with them.
    unreadable : dict of Tile to str
        Tiles that could not be read at the moment, and why; their numbers may be right or wrong.
    entries : tuple of Entry
        Entries recomputed in float64.
    """

    checked: int
    missing: int
    damaged: dict[Tile, str]
    unreadable: dict[Tile, str]
    entries: tuple[Entry, ...]

    @property
    def ok(self) -> bool:
        """Whether every finished tile was read and is sound."""
        return not (self.damaged or self.unreadable)


def tolerance(readout: Readout) -> float:
    """Bound on a stored entry's relative error against float64.

    Up to depth 21 it is 1e-6 for V, the NNGP and fully connected kernels, and 1e-3 for the NTK of GAP and
    LAP. Of the latter, an ordinary pair is within 1e-6, but backgrounds that differ by one grey level make
    angles that float32 cannot distinguish from 0, with errors of up to 5e-4 (kernels_cuda/README.md,
    Precision). Numbers do not tell which pairs are ordinary, and users would ignore a check that fails sound
    stores. Every layer adds rounding, so beyond depth 21 the bounds grow with the depth.
    """
    ordinary = readout.pool == "v" or readout.kernel == "nngp" or readout.family == FULLY_CONNECTED
    return (1e-6 if ordinary else 1e-3) * max(1, readout.depth / 21)


def verify(
    store: Store,
    x_train: np.ndarray | None = None,
    x_test: np.ndarray | None = None,
    *,
    sample: int = 0,
    seed: int = 0,
    draws: int = 1,
    progress: Callable[[], None] | None = None,
) -> Verification:
    """Check every finished tile of a store, and recompute a sample of entries in float64.

    Checked for each tile: its digests; that values are finite; that diagonal tiles are symmetric
    bit for bit, with a nonnegative diagonal; and K_ij^2 <= K_ii K_jj, as for every kernel, within
    rounding. For `sample` uniformly drawn pairs of images, every readout is compared with
    `reference.pair`.

    Parameters
    ----------
    store : Store
    x_train, x_test : array (n, C, P, P), float32
        The images; not needed if `sample` is 0.
    sample : int
        Pairs to recompute; all of them if there are fewer.
    seed : int
        Seed of the sample.
    draws : int
        Number of draws that the training images consist of; tiles with pairs between draws only do not
        count as missing.
    progress : callable, optional
        Called after each tile checked and each pair recomputed.

    Returns
    -------
    Verification
        A tile with an entry off by more than `tolerance` counts as damaged.
    """
    readouts = [Readout.parse(name) for name in store.readouts]
    tiles = [tile for tile in store.plan.tiles() if store.progress.any(tile)]
    damaged, unreadable = _structure(store, readouts, tiles, progress)
    sound = [tile for tile in tiles if tile not in damaged and tile not in unreadable]
    entries = []
    for tile, row, col in _sample(store, sound, sample, seed):
        rows = x_train if tile.part == "train" else x_test
        assert rows is not None and x_train is not None  # images are given where `sample` is not 0
        x = rows[tile.rows(store.plan)][row]
        z = x_train[tile.cols(store.plan)][col]
        done = store.progress.readouts(tile)
        stored = store.read(tile, done)[:, row, col]
        entries += _compare(store.plan, tile, row, col, [readouts[r] for r in done], stored, x, z)
        if progress is not None:
            progress()
    damaged |= {entry.tile: str(entry) for entry in entries if not entry.ok}
    missing = len(store.progress.missing(draws=draws))
    return Verification(len(tiles) - len(unreadable), missing, damaged, unreadable, tuple(entries))


def _shape(store: Store, tile: Tile) -> tuple[int, int]:
    """(h, w) for which a tile is done in all readouts for which it is done at all."""
    known = store.progress
    heights, widths = zip(*(known.shape(tile, r) for r in known.readouts(tile)), strict=True)
    return min(heights), min(widths)


def _inspect(store: Store, tile: Tile) -> tuple[tuple[int, ...], np.ndarray, str | None]:
    """Readouts for which a tile is done, their numbers (readouts, h, w), and what is wrong, or None."""
    done, planes, fault = store.progress.readouts(tile), [], None
    h, w = _shape(store, tile)
    for readout in done:
        plane, wrong = store.inspect(tile, readout)
        if (tile, readout) in store.progress.disputed:
            wrong = "two processes computed different numbers"
        fault = fault or wrong
        planes.append(np.zeros((h, w), np.float32) if plane is None else plane[:h, :w])
    return done, np.stack(planes), fault


def _structure(
    store: Store, readouts: Sequence[Readout], tiles: Sequence[Tile], progress: Callable[[], None] | None
) -> tuple[dict[Tile, str], dict[Tile, str]]:
    """Find tiles that fail their digests or what holds for every kernel, and unreadable ones."""
    damaged: dict[Tile, str] = {}
    unreadable: dict[Tile, str] = {}
    slack = [1 + 4 * tolerance(r) for r in readouts]  # two entries squared against two others
    diagonal = np.full((len(readouts), store.plan.n_train), np.nan)  # NaN: unknown; no bound is exceeded
    for tile in sorted(tiles, key=lambda tile: not tile.diagonal):
        try:
            done, block, fault = _inspect(store, tile)
        except Unreadable as error:
            unreadable[tile] = str(error)
            continue
        fault = fault or _inconsistency(store.plan, tile, done, block, diagonal, slack)
        if fault is not None:
            damaged[tile] = fault
        if fault is NOT_A_KERNEL:  # the wrong number may be in any of the three
            damaged.setdefault(Tile("train", tile.row, tile.row), fault)
            damaged.setdefault(Tile("train", tile.col, tile.col), fault)
        if progress is not None:
            progress()
    return damaged, unreadable


def _inconsistency(
    plan: Plan,
    tile: Tile,
    done: Sequence[int],
    block: np.ndarray,
    diagonal: np.ndarray,
    slack: Sequence[float],
) -> str | None:
    """Say which property of all kernels a tile violates, or None. Copies a diagonal into `diagonal`."""
    if not np.isfinite(block).all():
        return "values are not finite"
    if tile.part == "test":
        return None
    if tile.diagonal:
        if not (block == block.transpose(0, 2, 1)).all():
            return "not symmetric"
        own = np.einsum("rii->ri", block)
        if (own < 0).any():
            return "negative on the diagonal"
        first = tile.rows(plan).start
        diagonal[done, first : first + own.shape[1]] = own
    for readout, values in zip(done, block, strict=True):
        own, most = diagonal[readout], slack[readout]
        rows, cols = own[tile.rows(plan)][: len(values)], own[tile.cols(plan)][: values.shape[1]]
        bound = most * np.outer(rows, cols)
        if (np.square(values, dtype=np.float64) > bound).any():
            return NOT_A_KERNEL
    return None


def _sample(store: Store, tiles: Sequence[Tile], count: int, seed: int) -> list[tuple[Tile, int, int]]:
    """Draw pairs uniformly, without repeats, from the tiles' pairs: (tile, row, col) in the tile."""
    shapes = [_shape(store, tile) for tile in tiles]
    sizes = [h * (h + 1) // 2 if tile.diagonal else h * w for tile, (h, w) in zip(tiles, shapes, strict=True)]
    ends = np.cumsum([0, *sizes])
    drawn = np.random.default_rng(seed).choice(ends[-1], min(count, ends[-1]), replace=False)
    pairs = []
    for index in np.sort(drawn):
        number = np.searchsorted(ends, index, side="right") - 1
        tile, rest = tiles[number], index - ends[number]
        h, w = shapes[number]
        row, col = (i[rest] for i in np.tril_indices(h)) if tile.diagonal else divmod(rest, w)
        pairs.append((tile, int(row), int(col)))
    return pairs


def _compare(
    plan: Plan,
    tile: Tile,
    row: int,
    col: int,
    readouts: Sequence[Readout],
    stored: np.ndarray,
    x: np.ndarray,
    z: np.ndarray,
) -> list[Entry]:
    """Compare the stored numbers of one pair with float64; errors are relative to the pair's scales."""
    exact, scales = reference.averaged(_exact_and_scales, x, z, readouts)
    entries = []
    for readout, value, true, scale in zip(readouts, map(float, stored), exact, scales, strict=True):
        error = 0.0 if value == true else float(abs(value - true) / scale) if scale else np.inf
        place = tile.rows(plan).start + row, tile.cols(plan).start + col
        entries.append(Entry(tile, *place, readout, value, float(true), error, tolerance(readout)))
    return entries


def _exact_and_scales(x: np.ndarray, z: np.ndarray, readouts: Sequence[Readout]) -> np.ndarray:
    """A pair's plain readouts in float64, and the scales to which their rounding errors are relative: (2,
    readouts). A scale is the size of the terms that may cancel in a readout.

    The NTK is K + k0 T less what is not trained (k0 / 9 in convolutional networks). T may be negative, and k0
    may be 0: for opposite images the sum can be arbitrarily small, but its errors are those of K, the kernel
    of the NNGP. K itself is n k1(c) / 9 and cancels only in the first layer; afterwards c >= 0, so k1 >=
    k1(0) = 1 / pi. In the first layer its rounding is relative to n / 9, and n / (9 pi) is used as for later
    layers. Fully connected kernels have no 9, and their K is n k1(c) + beta^2.
    """
    exact, K = np.split(reference.pair(x, z, [*readouts, *(r.nngp for r in readouts)]), 2)
    x, z = (np.asarray(image, np.float64) for image in (x, z))
    least = np.zeros(len(readouts))
    for place, readout in enumerate(readouts):
        if readout.depth > 2:
            continue
        if readout.family == FULLY_CONNECTED:
            least[place] = np.sqrt(np.prod([(a**2).mean() + readout.bias**2 for a in (x, z)])) / np.pi
        else:
            deviations = (np.sqrt(convolutional.box2((image**2).sum(0))) for image in (x, z))
            least[place] = convolutional.pool(np.multiply.outer(*deviations), readout) / (9 * np.pi)
    return np.stack([exact, np.maximum.reduce([abs(exact), K, least])])
