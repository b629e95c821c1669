"""A run directory: what a run was asked, what it did, and every solve of it.

    RUN/config.yaml    what the next stage is asked; the only place of settings
    RUN/record.json    what was done (`record`)
    RUN/gram.zarr      the Gram matrices (`store`), unless `compute.store` has them in an object store
    RUN/iterations     states of iterative solves that were interrupted or reached their limit
    RUN/networks       what was trained: a folder for each COLUMN-DEPTH, and in it one for each network
    RUN/solves/N       solve N = 1, 2, ...: solve.json, COLUMN-DEPTH.npz of each cell, and report/
    RUN/solutions      the .npz files of the last solve
    RUN/report         the report of the last solve; index.html is all of it as one page
    RUN/flow, RUN/posterior, RUN/curve   results of analyses (`analysis`), each file whole; the last replaces
                       those before
    RUN/spectrum       eigenvalues that `page --spectrum` has computed
    RUN/log.txt        what commands and workers did, line by line (`system.log`)
    RUN/lock           held by the one process that changes any of this

A solve appears whole or not at all, and a later one does not touch it. Processes may solve at the
same time: each works in a folder of its own, and takes the lock only to put it in its place.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from cntk_bench.config import config, yaml12
from cntk_bench.config.config import Config
from cntk_bench.errors import UserError
from cntk_bench.grams import description
from cntk_bench.records import record
from cntk_bench.system import lock
from cntk_bench.system.bucket import Bucket
from cntk_bench.system.files import read_plain
from cntk_bench.text import short


@dataclass(frozen=True)
class Run:
    """A run directory, by its path.

    store : where its Gram store is, as `compute.store` has it, "" for in the directory; by default, as the
    directory's config says.
    """

    path: Path
    store: str | None = None

    def asked(self, settings: Config) -> "Run":
        """The run with its store where these settings have it."""
        return replace(self, store=settings.compute.store or "")

    @property
    def gram(self) -> Path | Bucket:
        """The Gram store."""
        url = self._kept_store() if self.store is None else self.store
        return Bucket(url) if url else self.path / "gram.zarr"

    def elsewhere(self, other: "Run") -> "Run":
        """The run; where its store is that of `other`, with the one that it had before, as its record tells.

        A store that moves is taken from where it was even after a call that began to move it was interrupted.
        """
        stages = record.load(self.record)["stages"] if self.record.exists() else []
        for settings in [{}, *(stage["settings"] for stage in reversed(stages))]:
            asked = settings.get("compute")
            url = asked.get("store") if isinstance(asked, dict) else None
            past = self if not settings else replace(self, store=url or "")
            if str(past.gram) != str(other.gram) and description.exists(past.gram):
                return past
        return self

    def _kept_store(self) -> str | None:
        """Where the directory's config has the store; it is not read in full where it names no such place."""
        file = self.path / "config.yaml"
        try:
            named = b"s3://" in read_plain(file, yaml12.MOST_BYTES)
        except OSError:
            return None
        return config.load(file, kept=True).compute.store if named else None

    def require_gram(self) -> None:
        """Refuse a store that cannot be reached, before anything is computed; UserError says why."""
        if isinstance(self.gram, Bucket):
            self.gram.require()

    @property
    def networks(self) -> Path:
        """What was trained."""
        return self.path / "networks"

    @property
    def iterations(self) -> Path:
        """States of iterative solves, a file for each readout and draw."""
        return self.path / "iterations"

    @property
    def record(self) -> Path:
        """The record of what was done."""
        return self.path / "record.json"

    @property
    def solves(self) -> Path:
        """The folder of all solves, each by its number."""
        return self.path / "solves"

    @property
    def solutions(self) -> Path:
        """Dual coefficients and predictions of the last solve, one .npz file for each column and depth."""
        return self.path / "solutions"

    @property
    def report(self) -> Path:
        """The report of the last solve."""
        return self.path / "report"

    def lock(self, wait: float = 0.0) -> AbstractContextManager:
        """Hold the right to change the directory, as `lock.held`."""
        return lock.held(self.path / "lock", wait)

    def config(self, overrides: tuple[str, ...] = ()) -> Config:
        """The config that the run was computed with; UserError if the directory is not a run's."""
        path = self.path / "config.yaml"
        if not path.exists():
            raise UserError(
                f"{short(str(self.path))} is not a run directory (no config.yaml): give the --output of a run"
            )
        return config.load(path, overrides, kept=True)

    def update(self, change: Callable[[dict], dict]) -> dict:
        """Put a changed record in the place of the one there is, and return it; needs the lock."""
        changed = change(record.load(self.record))
        record.save(changed, self.record)
        return changed
