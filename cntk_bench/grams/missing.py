"""What a store lacks of what is asked for: its missing tiles, by the readouts that they lack."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cntk_bench.grams import layout
from cntk_bench.grams.tile_states import TileStates
from cntk_bench.grams.tiles import PARTS, Plan


@dataclass(frozen=True)
class Missing:
    """Missing tiles, for the first images of either set.

    plan : what the store holds, or would hold after its growth.
    sizes : numbers of training and test images asked for.
    tiles : places among the readouts asked for -> part -> numbers of the tiles that lack just these readouts.
    """

    plan: Plan
    sizes: tuple[int, int]
    tiles: Mapping[tuple[int, ...], Mapping[str, np.ndarray]]

    @property
    def count(self) -> int:
        """Number of tiles."""
        return sum(len(numbers) for _, _, numbers in self._all())

    def counted(self, lacking: int) -> int:
        """Number of tiles that lack so many readouts."""
        return sum(len(numbers) for readouts, _, numbers in self._all() if len(readouts) == lacking)

    @property
    def chunks(self) -> int:
        """Number of chunks to be written: one for each tile and readout that it lacks."""
        return sum(len(readouts) * len(numbers) for readouts, _, numbers in self._all())

    @property
    def bytes(self) -> int:
        """Bytes of these chunks."""
        return self.chunks * self.plan.chunk_bytes

    @property
    def pairs(self) -> int:
        """Number of pairs of the images asked for; tiles of a larger store have more (`computed`)."""
        return sum(
            int(layout.pairs(self.plan, part, numbers, self.sizes).sum()) for _, part, numbers in self._all()
        )

    def computed(self, readouts: tuple[int, ...], together: int) -> int:
        """Pairs to compute in the tiles that lack these readouts, as in `Plan.computed`."""
        found = self.tiles[readouts].items()
        return sum(
            int(layout.pairs(self.plan, part, numbers, together=together).sum()) for part, numbers in found
        )

    def _all(self) -> Iterator[tuple[tuple[int, ...], str, np.ndarray]]:
        for readouts, parts in self.tiles.items():
            for part, numbers in parts.items():
                yield readouts, part, numbers


def of(states: TileStates, readouts: Sequence[int], sizes: tuple[int, int], draws: int = 1) -> Missing:
    """Find what is missing; parameters as for `Progress.missing`."""
    found: dict[tuple[int, ...], dict[str, np.ndarray]] = {}
    for part in PARTS:
        numbers = layout.within(states.plan, part, sizes, draws)
        done = [states.complete(part, numbers, [readout], sizes) for readout in readouts]
        kinds, kind = np.unique(~np.array(done), axis=1, return_inverse=True)
        for place, lacks in enumerate(kinds.T):
            if lacks.any():
                some = found.setdefault(tuple(np.flatnonzero(lacks).tolist()), {})
                some[part] = numbers[kind.ravel() == place]
    return Missing(states.plan, sizes, found)


def whole(plan: Plan) -> Missing:
    """All of a plan, which is what a new store lacks."""
    nothing = TileStates(replace(plan, draws=1))
    return of(nothing, range(plan.readouts), (plan.n_train, plan.n_test), plan.draws)
