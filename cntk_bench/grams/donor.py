"""Numbers taken from another store that has the same images, readouts and numerics.

An entry depends only on its two images and their order. So if another store holds a tile's images, as their
digests tell, and there each row's image does not come before its column's, its entries are the ones that
would be computed.

What is damaged there is computed instead. What only cannot be read at the moment is an error, since computing
it could take hours.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from cntk_bench.errors import UserError, VerificationError
from cntk_bench.grams import description
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.store import Store
from cntk_bench.grams.tiles import Plan, Tile
from cntk_bench.text import short

log = logging.getLogger(__name__)

BLOCKS = 8  # tiles of the other store kept in memory, per readout


class Donor:
    """Another store, from which the numbers of a store to be computed can be taken. It can be pickled.

    Parameters
    ----------
    store : Store
        The other store.
    attributes : dict
        Attributes of the store to be computed.
    facts : ImageFacts
        Facts of the store to be computed, with digests.
    there : ImageFacts, optional
        Facts of the other store; by default as read from it. Needed for format 1, which has no digests.

    Raises
    ------
    UserError
        If nothing can be taken: the numbers would differ, or no training image is the same.
    """

    def __init__(self, store: Store, attributes: dict, facts: ImageFacts, there: ImageFacts | None = None):
        self.store = store
        where = short(str(store.path))
        found = description.differences(store.attributes, attributes, description.BITS)
        if found:
            raise UserError(f"nothing can be taken from {where}: {'; '.join(found)}")
        known = (there or store.images()).digests
        if known is None:
            raise UserError(
                f"nothing can be taken from {where}, which an older version made, of other images: run "
                "`compute` on it with its own config once, which adds what it lacks"
            )
        assert facts.digests is not None
        self.places = {
            part: _places(one, other)
            for part, one, other in zip(("train", "test"), known, facts.digests, strict=True)
        }
        if (self.places["train"] < 0).all():
            words = description.differing_images(store.attributes, attributes)
            raise UserError(
                f"nothing can be taken from {where}: it has none of these training images"
                + (f" ({words})" if words else "")
            )
        self._warned = False
        self._keep()

    def _keep(self) -> None:
        self._block = lru_cache(maxsize=BLOCKS * len(self.store.readouts))(self._read)

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_block"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._keep()

    def has(self, tile: Tile, readouts: Sequence[str], plan: Plan) -> tuple[str, ...]:
        """Readouts for which a tile of the plan can be taken, according to the journals."""
        parts = self._parts(tile, plan)
        return tuple(
            name
            for name in readouts
            if parts and name in self.store.readouts and all(self._done(*part, name) for part in parts)
        )

    def _done(self, there: Tile, rows: np.ndarray, cols: np.ndarray, name: str) -> bool:
        readout, side = self.store.index(name), self.store.plan.tile
        h, w = self.store.progress.shape(there, readout)
        last = rows.max() - there.row * side, cols.max() - there.col * side
        return bool(self.store.progress.digests(there, readout)) and last[0] < h and last[1] < w

    def take(self, tile: Tile, readouts: Sequence[str], plan: Plan) -> dict[str, np.ndarray]:
        """Take a tile's numbers, float32 (h, w), for each readout for which the other store has them all.

        Raises
        ------
        Unreadable
            If they cannot be read at the moment.
        """
        planes = {name: self._plane(tile, name, plan) for name in self.has(tile, readouts, plan)}
        return {name: plane for name, plane in planes.items() if plane is not None}

    def _parts(self, tile: Tile, plan: Plan) -> list[tuple[Tile, np.ndarray, np.ndarray]]:
        """The other store's tiles, rows and columns that hold a tile's entries; empty if any is missing."""
        rows, cols = self._rows_and_cols(tile, plan)
        if (rows < 0).any() or (cols < 0).any():
            return []
        if tile.part == "train":  # in both stores, only the lower triangle is computed and counts
            counts = np.tri(len(rows), dtype=bool) if tile.diagonal else np.ones(1, bool)
            if not ((rows[:, None] >= cols) | ~counts).all():
                return []
        side = self.store.plan.tile
        return [
            (Tile(tile.part, int(i), int(j)), rows[rows // side == i], cols[cols // side == j])
            for i in np.unique(rows // side)
            for j in np.unique(cols // side)
            if tile.part == "test" or i >= j  # tiles above the diagonal are mirrored later
        ]

    def _rows_and_cols(self, tile: Tile, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
        """Indices of a tile's images in the other store; -1 if it does not have them."""
        return self.places[tile.part][tile.rows(plan)], self.places["train"][tile.cols(plan)]

    def _plane(self, tile: Tile, name: str, plan: Plan) -> np.ndarray | None:
        """A tile's numbers for one readout; None if some are damaged."""
        rows, cols = self._rows_and_cols(tile, plan)
        side, out = self.store.plan.tile, np.empty((len(rows), len(cols)), np.float32)
        for there, some_rows, some_cols in self._parts(tile, plan):
            block = self._block(there, self.store.index(name))
            if block is None:
                return None
            here = np.flatnonzero(rows // side == there.row), np.flatnonzero(cols // side == there.col)
            out[np.ix_(*here)] = block[np.ix_(some_rows - there.row * side, some_cols - there.col * side)]
        if tile.diagonal:
            out = np.tril(out) + np.tril(out, -1).T
        return None if np.isnan(out).any() else out

    def _read(self, tile: Tile, readout: int) -> np.ndarray | None:
        """A tile of the other store; None if it is damaged, which the first time is a warning."""
        try:
            return self.store.read(tile, [readout])[0]
        except VerificationError as error:
            if not self._warned:
                log.warning("%s; what is damaged there is computed here instead", error)
            self._warned = True
            return None


def _places(there: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Index of each image in the other store, (n,) int64: the first of equal ones, -1 if it has none."""
    first: dict[int, int] = {}
    for place, digest in enumerate(there.tolist()):
        first.setdefault(digest, place)
    return np.array([first.get(digest, -1) for digest in here.tolist()], np.int64)
