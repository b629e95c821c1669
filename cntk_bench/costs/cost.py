"""Predict what a run will cost on this machine, from short measurements: tiles, disk, memory and time."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cntk_bench import backends
from cntk_bench.backends import Backend
from cntk_bench.config.config import Solve
from cntk_bench.costs.forecast import Forecast, forecast
from cntk_bench.costs.measure import Rate, rate
from cntk_bench.costs.span import Span
from cntk_bench.errors import UserError
from cntk_bench.executors.local import WAITING
from cntk_bench.grams import stream
from cntk_bench.grams.missing import Missing, whole
from cntk_bench.grams.tiles import Plan
from cntk_bench.kernels.spec import Spec
from cntk_bench.regression import AUTO, placement
from cntk_bench.regression.placement import Place
from cntk_bench.runs.inputs import chosen_place
from cntk_bench.system import memory

USUAL = Solve()
# Factor by which a computation may exceed the slowest short measurement, which does not see what begins later
# on this machine: an assumption, not a bound. Where other programs compute at times, sittings of one run can
# differ by more: those of cifar10-low-data-80 in `results/` by a factor of two.
UNKNOWN = 1.25


@dataclass(frozen=True)
class Work:
    """Pairs that a backend computes with the same readouts, and its rate with these."""

    pairs: int
    rate: Rate


@dataclass(frozen=True)
class Cost:
    """The predicted cost of a run: sizes in bytes, times in seconds; `disk_free` is where the run is to go.

    `tiles` are of the whole run; `missing` is what has still to be computed, to which times and `disk` refer.
    A backend computes `together` columns of a tile at once, which takes as long if some have no image; rates
    were measured on tiles without such columns.
    """

    tiles: Plan
    missing: Missing
    work: tuple[Work, ...]
    disk_free: int
    compute_memory: int
    solve: Place
    solve_fits: bool
    solving: Forecast
    together: int = 1

    @property
    def done(self) -> tuple[int, int]:
        """Numbers of tiles and pairs that the run has already."""
        return self.tiles.count - self.missing.count, self.tiles.pairs - self.missing.pairs

    @property
    def in_part(self) -> int:
        """Number of tiles that the run has for some of the readouts."""
        return self.missing.count - self.missing.counted(self.tiles.readouts)

    @property
    def disk(self) -> int:
        """Bytes of the tiles to be written."""
        return self.missing.bytes

    @property
    def seconds(self) -> float:
        """Approximate time of computing the Gram matrices."""
        return sum(some.pairs / some.rate.pairs_per_second for some in self.work)

    @property
    def time(self) -> Span:
        """Time of computing the Gram matrices, as a range."""
        return sum((some.rate.span(some.pairs) for some in self.work), Span(0, 0)).beyond(UNKNOWN)

    @property
    def pairs_per_second(self) -> float | None:
        """Mean rate; None if there is nothing to compute."""
        return sum(some.pairs for some in self.work) / self.seconds if self.work else None

    @property
    def tile_seconds(self) -> float | None:
        """Mean time of computing a tile of full size; None if there is nothing to compute."""
        columns = -(-self.tiles.tile // self.together) * self.together
        return self.tiles.tile * columns / self.pairs_per_second if self.pairs_per_second else None

    @property
    def solve_time(self) -> Span | None:
        """Time of solving all matrices; None if that cannot be predicted."""
        return self.solving.whole and self.solving.whole.beyond(UNKNOWN)

    def share(self, workers: int) -> float:
        """Return the share of the computing time that several workers need; who has most tiles decides."""
        count = self.missing.count
        return -(-count // workers) / count if count else 0.0


def cost(
    spec: Spec,
    tiles: Plan,
    images: np.ndarray,
    backend: Backend,
    output: Path,
    classes: int,
    how: Solve = USUAL,
    matrices: int = 1,
    missing: Missing | None = None,
) -> Cost:
    """Predict a run's tiles, bytes, memory and time; measures the backend for a few seconds.

    Parameters
    ----------
    spec, tiles : Spec, Plan
    images : array (n, C, P, P), float32
        Training images to measure on.
    backend : Backend
    output : Path
        Where the run is to go.
    classes : int
    how : Solve
        How it is to be solved.
    matrices : int
        How many matrices are solved.
    missing : Missing, optional
        What the run lacks; by default everything.
    """
    missing = missing or whole(tiles)
    existing = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    try:
        n = tiles.n_train // tiles.draws
        place, fits = chosen_place(how, n, classes, tiles), True
    except UserError:
        if how.solver in (AUTO, "cg"):
            place = placement.streamed(n, classes=classes, free=0, streaming=stream.memory(tiles))
        else:
            place = placement.predict(n, classes=classes, device="cpu", dtype="float64")
        fits = False
    together = backends.together(backend.name)
    images = images[: max(tiles.tile // together, 1) * together]
    work = []
    for readouts in missing.tiles:
        some = replace(spec, readouts=tuple(spec.readouts[place] for place in readouts))
        chosen = backend if some == spec else backends.create(backend.name, some)
        work.append(Work(missing.computed(readouts, together), rate(chosen, images, runs=5)))
    # The peak of this process so far, which has loaded the images and compiled; plus tiles.
    tile_bytes = 4 * tiles.readouts * tiles.tile**2  # computed, and waiting to be written
    taken = memory.peak() + backend.tile_bytes(tiles.tile) + WAITING * tile_bytes
    return Cost(
        tiles=tiles,
        missing=missing,
        work=tuple(work),
        disk_free=shutil.disk_usage(existing).free,
        compute_memory=taken,
        solve=place,
        solve_fits=fits,
        solving=forecast(tiles, place, how, matrices, classes),
        together=together,
    )
