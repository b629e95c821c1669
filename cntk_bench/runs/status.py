"""How far the computation of a run is."""

from dataclasses import dataclass, replace

from cntk_bench.columns import Job
from cntk_bench.grams import store
from cntk_bench.grams.journal import writers
from cntk_bench.grams.store import Store
from cntk_bench.runs import record
from cntk_bench.runs.config import Config
from cntk_bench.runs.directory import Run
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
    """Tiles and pairs of what was asked for last: done, and in all.

    taken : tiles that were taken from another run.
    seconds : of computing, all processes added up.
    writers : processes that write now; 0 also where that cannot be told.
    trained : of every cell that has to be trained.
    """

    tiles: int
    all_tiles: int
    pairs: int
    all_pairs: int
    taken: int
    seconds: float
    writers: int
    trained: tuple[Cell, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to compute or to train."""
        return self.tiles >= self.all_tiles and all(cell.done == cell.count for cell in self.trained)

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
        self._run = run
        self._config = run.config() if (run.path / "config.yaml").exists() else None
        self._tiles = None
        if self._config is None or self._config.kernel.readouts:
            self._tiles = _Tiles(run, self._config)

    def look(self) -> Status:
        """The status now."""
        found = self._tiles.look() if self._tiles else Status(0, 0, 0, 0, 0, 0.0, 0)
        return replace(found, trained=self._trained())

    def _trained(self) -> tuple[Cell, ...]:
        if self._config is None or not self._run.record.exists():
            return ()
        material = Material(self._run, self._config, record.computed(record.load(self._run.record)))
        return tuple(
            _cell(f"{name} at depth {depth}", some) for name, depth, some in jobs(self._config, material)
        )


def _cell(label: str, some: list[Job]) -> Cell:
    done, lines = 0, []
    for job in some:
        found = job.done()
        done += found.finished
        said = f"its result is damaged: {found.damage}" if found.damage else found.words
        if said and (not found.finished or "failed" in said):
            lines.append(short(f"{job.label}: {said}", 200))
    return Cell(label, done, len(some), tuple(lines))


class _Tiles:
    """How far the Gram matrices of a run are."""

    def __init__(self, run: Run, config: Config | None):
        self.store: Store = store.open(run.gram)
        self.sizes = self.store.sizes
        readouts = set(self.store.readouts)
        if run.record.exists():
            facts = record.computed(record.load(run.record))
            self.sizes = min(facts["n_train"], self.sizes[0]), min(facts["n_test"], self.sizes[1])
        if config is not None:
            readouts &= set(map(str, config.kernel.readouts))
        self.readouts = [self.store.index(name) for name in self.store.readouts if name in readouts]

    def look(self) -> Status:
        """The status now."""
        plan, progress = self.store.plan, self.store.progress
        progress.refresh()
        done = progress.done(self.readouts, self.sizes)
        missing = progress.missing(self.readouts, self.sizes)
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
