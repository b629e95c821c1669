"""How far the computation of a run is."""

from dataclasses import dataclass

from cntk_bench.columns import Job
from cntk_bench.config.config import Config
from cntk_bench.grams import description, store
from cntk_bench.grams.progress import Counts
from cntk_bench.grams.store import Store
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.runs.material import Material, jobs
from cntk_bench.text import short


@dataclass(frozen=True)
class Cell:
    """How far the training of one cell is.

    label : column and depth.
    done, count : pieces of training (`columns.Job`) that are done, and all of them.
    words : a line for each that failed, is damaged, or was begun.
    """

    label: str
    done: int
    count: int
    words: tuple[str, ...]


@dataclass(frozen=True)
class Status:
    """What is done of what was asked for last, and how many processes write now.

    counts : of tiles and pairs; None for a run whose columns need no Gram matrix.
    writers : names of their journals (HOST-PROCESS-...); none also where that cannot be told.
    lost : how each worker ended that was lost in the last call of `compute`, in words.
    trained : of every cell that has to be trained.
    """

    counts: Counts | None
    writers: tuple[str, ...]
    trained: tuple[Cell, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to compute or to train."""
        computed = self.counts is None or self.counts.tiles == self.counts.all_tiles
        return computed and all(cell.done == cell.count for cell in self.trained)

    @property
    def pairs_per_second(self) -> float | None:
        """Computed by one process; None before anything was timed."""
        if self.counts is None:
            return None
        pairs, seconds = self.counts.computed, self.counts.seconds
        return pairs / seconds if pairs and seconds > 1e-6 else None

    @property
    def seconds_left(self) -> float | None:
        """On as many machines as write now, or one, if nothing more is taken from another run."""
        rate = self.pairs_per_second
        if rate is None or self.counts is None:
            return None
        return (self.counts.all_pairs - self.counts.pairs) / (rate * max(1, len(self.writers)))


class Follower:
    """The status of a run, read again without reading all of its journals again."""

    def __init__(self, run: Run):
        self.run = run
        self._store: Store | None = None

    def begun(self) -> bool:
        """Whether there is something to look at: a Gram store, or columns that need none."""
        if description.exists(self.run.gram):
            return True
        config = self._asked()
        return config is not None and not config.kernel.readouts

    def _asked(self) -> Config | None:
        """What was asked for last; None where that is not said yet."""
        return self.run.config() if (self.run.path / "config.yaml").exists() else None

    def look(self) -> Status:
        """The status now.

        Raises
        ------
        UserError
            If there is no run.
        """
        config = self._asked()
        facts = record.computed(record.load(self.run.record)) if self.run.record.exists() else None
        trained = () if config is None or facts is None else _trained(self.run, config, facts)
        wanted = None if config is None else set(map(str, config.kernel.readouts))
        if wanted == set():
            return Status(None, (), trained)
        found = self._opened()
        sizes, draws = found.sizes, 1
        if facts is not None:
            asked = record.sizes(facts)
            draws = record.draws(facts) if asked[0] <= sizes[0] else 1
            sizes = min(asked[0], sizes[0]), min(asked[1], sizes[1])
        readouts = [n for n, name in enumerate(found.readouts) if wanted is None or name in wanted]
        counts = found.progress.counts(readouts, sizes, draws)
        return Status(counts, tuple(found.writers()), trained, self._lost())

    def _lost(self) -> tuple[str, ...]:
        """What the record says of workers lost in the newest call of `compute`."""
        stages = record.load(self.run.record)["stages"] if self.run.record.exists() else []
        newest: dict = next((stage for stage in reversed(stages) if stage["stage"] == "compute"), {})
        found = newest.get("workers_lost", [])
        return tuple(short(str(one), 100) for one in found) if isinstance(found, list) else ()

    def _opened(self) -> Store:
        """The store as it is now: read anew where it has become larger."""
        if self._store is None or description.read(self.run.gram) != self._store.attributes:
            self._store = store.open(self.run.gram)
        else:
            self._store.progress.refresh()
        return self._store


def _trained(run: Run, config: Config, facts: dict) -> tuple[Cell, ...]:
    found = jobs(config, Material(run, config, facts))
    return tuple(_cell(f"{name} at depth {depth}", some) for name, depth, some in found)


def _cell(label: str, some: list[Job]) -> Cell:
    done, lines = 0, []
    for job in some:
        found = job.done()
        done += found.finished
        said = f"its result is damaged: {found.damage}" if found.damage else found.words
        if said and (not found.finished or "failed" in said):
            lines.append(short(f"{job.label}: {said}", 200))
    return Cell(label, done, len(some), tuple(lines))
