"""Upper bound on a GPU's rate: what its schedulers and FMA units allow for the counted instructions."""

from collections.abc import Iterable

from cntk_bench.backends.cuda.zones import WARPS, Zone

SCHEDULERS = 4  # per multiprocessor; each issues one instruction of a warp per clock
FEW_UNITS = (75, 80)  # compute capabilities x 10 whose FMA units take a warp's instruction every other clock

# Instructions per entry-layer, and how many of them are for the FMA units, by kernel and number of states T:
# as scripts/count_sass.py last counted them for sm_90 and 32 x 32, rounded up (other chips and sizes come
# within a few per cent). A test fails if a kernel exceeds them; lower a number when a kernel improves.
INSTRUCTIONS = {
    ("displacements", 0): (21.1, 16.5),
    ("displacements", 1): (26.5, 21.0),
    ("displacements", 2): (35.9, 25.4),
    ("diagonal", 0): (59.3, 48.6),
    ("diagonal", 1): (67.6, 55.0),
    ("diagonal", 2): (74.1, 59.5),
}


def instructions(zone: Zone) -> tuple[float, float]:
    """Instructions per entry-layer of a zone's planes, and those for the FMA units."""
    return INSTRUCTIONS[zone.kernel, len(zone.trainings)]


def warps(zone: Zone) -> int:
    """Number of warps that run a pair's planes, including those left without a plane."""
    if zone.diagonal:
        return 1
    block = WARPS * zone.layout.columns  # planes
    return sum(WARPS * -(-len(b) // block) for _, _, b in zone.rows())


def pairs_per_second(zones: Iterable[Zone], capability: int, multiprocessors: int, clock: float) -> float:
    """Upper bound on pairs of images per second, if reading out cost nothing.

    Parameters
    ----------
    zones : iterable of Zone
    capability : int
        Compute capability x 10, such as 90.
    multiprocessors : int
    clock : float
        Hz, the highest.
    """
    clocks = 0.0  # of a scheduler
    for zone in zones:
        issued, fma = instructions(zone)
        entry_layers = zone.layout.columns * zone.spec.size * zone.spec.layers  # of a lane
        clocks += warps(zone) * entry_layers * max(issued, 2 * fma if capability in FEW_UNITS else fma)
    return multiprocessors * SCHEDULERS * clock / clocks
