"""How far the computation of a run is."""

from dataclasses import dataclass

from cntk_bench.grams import store
from cntk_bench.grams.journal import writers
from cntk_bench.grams.store import Store
from cntk_bench.runs import record
from cntk_bench.runs.directory import Run


@dataclass(frozen=True)
class Status:
    """Tiles and pairs of what was asked for last: done, and in all.

    taken : tiles that were taken from another run.
    seconds : of computing, all processes added up.
    writers : processes that write now; 0 also where that cannot be told.
    """

    tiles: int
    all_tiles: int
    pairs: int
    all_pairs: int
    taken: int
    seconds: float
    writers: int

    @property
    def pairs_per_second(self) -> float | None:
        """Of one process; None before anything was timed."""
        return self.pairs / self.seconds if self.pairs and self.seconds > 1e-6 else None

    @property
    def seconds_left(self) -> float | None:
        """On as many machines as write now, or one."""
        rate = self.pairs_per_second
        return None if rate is None else (self.all_pairs - self.pairs) / (rate * max(1, self.writers))


class Follower:
    """The status of a run, read again without reading all of its journals again."""

    def __init__(self, run: Run):
        self.store: Store = store.open(run.gram)
        self.sizes, self.draws = self.store.sizes, 1
        readouts = set(self.store.readouts)
        if run.record.exists():
            facts = record.computed(record.load(run.record))
            asked = record.sizes(facts)
            self.draws = record.draws(facts) if asked[0] <= self.sizes[0] else 1
            self.sizes = min(asked[0], self.sizes[0]), min(asked[1], self.sizes[1])
        if (run.path / "config.yaml").exists():
            readouts &= set(map(str, run.config().kernel.readouts))
        self.readouts = [self.store.index(name) for name in self.store.readouts if name in readouts]

    def look(self) -> Status:
        """The status now."""
        plan, progress = self.store.plan, self.store.progress
        progress.refresh()
        done = progress.done(self.readouts, self.sizes, self.draws)
        missing = progress.missing(self.readouts, self.sizes, self.draws)
        pairs, left = (sum(tile.pairs(plan) for tile in tiles) for tiles in (done, missing))
        return Status(
            len(done),
            len(done) + len(missing),
            pairs,
            pairs + left,
            progress.taken,
            progress.seconds,
            writers(self.store.path),
        )
