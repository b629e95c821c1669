"""Which displacements q - p a set of readouts needs: once, for every backend.

Every layer maps a displacement, taken modulo P along both axes, to itself. A pool needs the square of its
`reach`; the squares of different pools may overlap.
"""

from dataclasses import dataclass

from cntk_bench.kernels.pool import Pool
from cntk_bench.kernels.spec import Spec


@dataclass(frozen=True)
class Ring:
    """Displacements that are read out for the same pools.

    pools : those that have a weight in them, in the spec's order.
    displacements : (a, b), ascending.
    """

    pools: tuple[Pool, ...]
    displacements: tuple[tuple[int, int], ...]


def rings(spec: Spec) -> list[Ring]:
    """The displacements that some readout needs: (0, 0), which all pools have, then ring after ring.

    Pools are taken from the smallest reach to the largest; a ring is what one has beyond those before.
    """
    reaches = {pool: set(pool.reach(spec.size)) for pool in spec.pools}
    out: list[Ring] = []
    done: set[tuple[int, int]] = set()
    for reach in [{0}, *sorted(reaches.values(), key=len)]:
        ring = {(a, b) for a in reach for b in reach} - done
        if ring:
            done |= ring
            pools = tuple(pool for pool in spec.pools if reaches[pool] >= reach)
            out.append(Ring(pools, tuple(sorted(ring))))
    return out
