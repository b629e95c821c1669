"""Numbers taken from another store: what it has of the same images, readouts and numerics.

An entry depends on its two images alone, in their order. So wherever another store holds the images of a
tile, by their digests, with each row's image not before its column's, its entries are those that would be
computed.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.grams import description
from cntk_bench.grams.images import Images
from cntk_bench.grams.store import Store
from cntk_bench.grams.tiles import Plan, Tile
from cntk_bench.text import short

BLOCKS = 8  # tiles of the other store kept in memory


class Source:
    """Another store, for the images of one that is computed.

    Parameters
    ----------
    store : Store
        The other.
    attributes : dict
        Of the one that is computed.
    facts : Images
        Its images, with digests.

    Raises
    ------
    UserError
        If nothing can be taken: the numbers would be others, or no training image is the same.
    """

    def __init__(self, store: Store, attributes: dict, facts: Images):
        self.store = store
        where = short(str(store.path))
        found = description.differences(store.attributes, attributes, description.BITS)
        if found:
            raise UserError(f"nothing can be taken from {where}: {'; '.join(found)}")
        there = store.images().digests
        if there is None:
            raise UserError(
                f"nothing can be taken from {where}, which an older version made: run `compute` on it with "
                "its own config once, which adds what it lacks"
            )
        assert facts.digests is not None
        self.places = {
            part: _places(one, other)
            for part, one, other in zip(("train", "test"), there, facts.digests, strict=True)
        }
        if (self.places["train"] < 0).all():
            words = description.differing_images(store.attributes, attributes)
            raise UserError(
                f"nothing can be taken from {where}: it has none of these training images"
                + (f" ({words})" if words else "")
            )
        self._block = lru_cache(maxsize=BLOCKS)(self._read)

    def take(self, tile: Tile, readouts: Sequence[str], plan: Plan) -> np.ndarray | None:
        """The numbers of a tile of the plan, float32 (readouts, h, w); None where some are not there."""
        rows = self.places[tile.part][tile.rows(plan)]
        cols = self.places["train"][tile.cols(plan)]
        if (rows < 0).any() or (cols < 0).any() or not set(readouts) <= set(self.store.readouts):
            return None
        if tile.part == "train":  # there only the lower triangle was computed, and here only it counts
            counts = np.tri(len(rows), dtype=bool) if tile.diagonal else np.ones(1, bool)
            if not ((rows[:, None] >= cols) | ~counts).all():
                return None
        indices = tuple(map(self.store.index, readouts))
        out = np.empty((len(readouts), len(rows), len(cols)), np.float32)
        side = self.store.plan.tile
        for i in np.unique(rows // side):
            for j in np.unique(cols // side):
                there = Tile(tile.part, int(i), int(j))
                if tile.part == "train" and i < j:
                    continue  # above the diagonal: mirrored below
                block = self._block(there, indices)
                if block is None:
                    return None
                here = np.ix_(np.flatnonzero(rows // side == i), np.flatnonzero(cols // side == j))
                part = np.ix_(rows[rows // side == i] - i * side, cols[cols // side == j] - j * side)
                for plane, stored in zip(out, block, strict=True):
                    plane[here] = stored[part]
        if np.isnan(out if tile.part == "test" else np.tril(out)).any():
            return None  # it has grown, and these were not computed yet
        if tile.diagonal:
            out = np.tril(out) + np.tril(out, -1).swapaxes(1, 2)
        return out

    def _read(self, tile: Tile, indices: tuple[int, ...]) -> np.ndarray | None:
        """A tile of the other store, if it is done and sound."""
        if not all(self.store.progress.digests(tile, readout) for readout in indices):
            return None
        try:
            return self.store.read(tile, indices)
        except UserError:
            return None


def _places(there: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Where the other store has each image, (n,) int64; -1 where it does not. Of equal ones, the first."""
    first: dict[int, int] = {}
    for place, digest in enumerate(there.tolist()):
        first.setdefault(digest, place)
    return np.array([first.get(digest, -1) for digest in here.tolist()], np.int64)
