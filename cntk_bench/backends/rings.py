"""Which displacements q - p a set of readouts needs, in groups (rings) shared by all backends.

Every layer maps a displacement, taken modulo P along both axes, to itself. A pool needs the displacements
(a, b) with both a and b in its `reach`; those of different pools may overlap.
"""

from dataclasses import dataclass

from cntk_bench.kernels.pool import Pool
from cntk_bench.kernels.spec import Spec


@dataclass(frozen=True)
class Ring:
    """Displacements that are read out for the same pools.

    pools : those with a nonzero weight there, in the spec's order.
    displacements : (a, b), ascending.
    """

    pools: tuple[Pool, ...]
    displacements: tuple[tuple[int, int], ...]


def rings(spec: Spec) -> list[Ring]:
    """Group the displacements that some readout needs: (0, 0), which all pools need, then ring after ring.

    Pools are taken in order of increasing reach; a ring holds what a pool needs beyond those before it.
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
