"""The progress of a run's computation and training."""

from dataclasses import dataclass

from cntk_bench.columns import Job
from cntk_bench.config.config import Config
from cntk_bench.grams import description, store
from cntk_bench.grams.progress import Counts
from cntk_bench.grams.store import Store
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.report.rows import cell_name
from cntk_bench.runs.material import Material, jobs
from cntk_bench.text import short


@dataclass(frozen=True)
class Cell:
    """Progress of the training of one cell.

    label : column and depth.
    done, count : number of training jobs (`columns.Job`) that are done, and of all.
    words : a line for each job that failed, is damaged, or was begun.
    """

    label: str
    done: int
    count: int
    words: tuple[str, ...]


@dataclass(frozen=True)
class Status:
    """What is done of the last request, and which processes write now.

    counts : numbers of tiles and pairs; None for a run whose columns need no Gram matrix.
    writers : names of the writers' journals (HOST-PROCESS-...); empty also if they cannot be known.
    lost : for each worker lost in the last call of `compute`, how it ended, in words.
    trained : progress of every cell that has to be trained.
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
        """Pairs computed per second by one process; None if nothing was timed yet."""
        if self.counts is None:
            return None
        pairs, seconds = self.counts.computed, self.counts.seconds
        return pairs / seconds if pairs and seconds > 1e-6 else None

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds left, with as many writers as now (at least one) and nothing more taken."""
        rate = self.pairs_per_second
        if rate is None or self.counts is None:
            return None
        return (self.counts.all_pairs - self.counts.pairs) / (rate * max(1, len(self.writers)))


class Follower:
    """Follows the status of a run, without reading its whole journals each time."""

    def __init__(self, run: Run):
        self.run = run
        self._store: Store | None = None

    def begun(self) -> bool:
        """Whether the run has a status yet: it has a Gram store, or columns that need none."""
        if description.exists(self.run.gram):
            return True
        config = self._asked()
        return config is not None and not config.kernel.readouts

    def _asked(self) -> Config | None:
        """The config of the last request; None if there is none yet."""
        return self.run.config() if (self.run.path / "config.yaml").exists() else None

    def look(self) -> Status:
        """Return the current status.

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
        """How workers lost in the last call of `compute` ended, according to the record."""
        stages = record.load(self.run.record)["stages"] if self.run.record.exists() else []
        newest: dict = next((stage for stage in reversed(stages) if stage["stage"] == "compute"), {})
        found = newest.get("workers_lost", [])
        return tuple(short(str(one), 100) for one in found) if isinstance(found, list) else ()

    def _opened(self) -> Store:
        """The store as it is now: opened again if its attributes changed, else with journals refreshed."""
        if self._store is None or description.read(self.run.gram) != self._store.attributes:
            self._store = store.open(self.run.gram)
        else:
            self._store.progress.refresh()
        return self._store


def _trained(run: Run, config: Config, facts: dict) -> tuple[Cell, ...]:
    found = jobs(config, Material(run, config, facts))
    return tuple(_cell(cell_name(name, depth), some) for name, depth, some in found)


def _cell(label: str, some: list[Job]) -> Cell:
    done, lines = 0, []
    for job in some:
        found = job.done()
        done += found.finished
        said = f"its result is damaged: {found.damage}" if found.damage else found.words
        if said and (not found.finished or "failed" in said):
            lines.append(short(f"{job.label}: {said}", 200))
    return Cell(label, done, len(some), tuple(lines))
