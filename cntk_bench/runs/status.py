"""How far the computation of a run is."""

from dataclasses import dataclass

from cntk_bench.grams import description, store
from cntk_bench.grams.journal import writers
from cntk_bench.grams.progress import Counts
from cntk_bench.grams.store import Store
from cntk_bench.runs import record
from cntk_bench.runs.directory import Run


@dataclass(frozen=True)
class Status:
    """What is done of what was asked for last, and how many processes write now.

    writers : 0 also where that cannot be told.
    """

    counts: Counts
    writers: int

    @property
    def finished(self) -> bool:
        """Whether nothing is left to compute."""
        return self.counts.tiles == self.counts.all_tiles

    @property
    def pairs_per_second(self) -> float | None:
        """Computed by one process; None before anything was timed."""
        pairs, seconds = self.counts.computed, self.counts.seconds
        return pairs / seconds if pairs and seconds > 1e-6 else None

    @property
    def seconds_left(self) -> float | None:
        """On as many machines as write now, or one, if nothing more is taken from another run."""
        rate = self.pairs_per_second
        left = self.counts.all_pairs - self.counts.pairs
        return None if rate is None else left / (rate * max(1, self.writers))


class Follower:
    """The status of a run, read again without reading all of its journals again."""

    def __init__(self, run: Run):
        self.run = run
        self._store: Store | None = None

    def begun(self) -> bool:
        """Whether there is something to look at: a Gram store, or columns that need none."""
        return (self.run.gram / "zarr.json").exists() or self._wanted() == set()

    def _wanted(self) -> set[str] | None:
        """The readouts that were asked for last; None where that is not said yet."""
        if not (self.run.path / "config.yaml").exists():
            return None
        return set(map(str, self.run.config().kernel.readouts))

    def look(self) -> Status | None:
        """The status now; None for a run whose columns need no Gram matrix.

        Raises
        ------
        UserError
            If there is no run.
        """
        wanted = self._wanted()
        if wanted == set():
            return None
        found = self._opened()
        sizes = found.sizes
        if self.run.record.exists():
            facts = record.computed(record.load(self.run.record))
            sizes = min(facts["n_train"], sizes[0]), min(facts["n_test"], sizes[1])
        readouts = [n for n, name in enumerate(found.readouts) if wanted is None or name in wanted]
        return Status(found.progress.counts(readouts, sizes), writers(found.path))

    def _opened(self) -> Store:
        """The store as it is now: read anew where it has become larger."""
        if self._store is None or description.read(self.run.gram) != self._store.attributes:
            self._store = store.open(self.run.gram)
        else:
            self._store.progress.refresh()
        return self._store
