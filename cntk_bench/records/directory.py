"""A run directory: a run's settings, what it did, and all of its solves.

    RUN/config.yaml    settings of the next stage; the only place that holds them
    RUN/record.json    what was done (`record`)
    RUN/gram.zarr      the Gram matrices (`store`), unless `compute.store` has them in an object store
    RUN/iterations     states of iterative solves that were interrupted or reached their limit
    RUN/networks       trained networks: a folder for each COLUMN-DEPTH, with a folder for each network
    RUN/solves/N       solve N = 1, 2, ...: solve.json, COLUMN-DEPTH.npz of each cell, and report/
    RUN/solutions      the .npz files of the last solve
    RUN/report         the report of the last solve; index.html has all of it in one page
    RUN/report-1, ...  what RUN/report (or solutions) was before a solve, if it had other files, too
    RUN/flow, RUN/posterior, RUN/curve   results of analyses (`analysis`), each file written atomically; new
                       results replace old ones
    RUN/spectrum       eigenvalues that `page --spectrum` has computed
    RUN/log.txt        what commands and workers did, line by line (`system.log`)
    RUN/lock           held by the one process that changes any of this

A solve appears whole or not at all, and later ones do not change it. Processes may solve at the
same time: each works in a folder of its own, and takes the lock only to move it into place.
"""

import os
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

REPLACED = "config.yaml", "solutions", "report"  # what each stage writes anew


@dataclass(frozen=True)
class Run:
    """A run directory, given by its path.

    store : URL of its Gram store, as in `compute.store`, or "" for a store in the directory; by default
    taken from the directory's config.
    """

    path: Path
    store: str | None = None

    def asked(self, settings: Config) -> "Run":
        """The same run with its store at the place that these settings name."""
        return replace(self, store=settings.compute.store or "")

    @property
    def gram(self) -> Path | Bucket:
        """Path or bucket of the Gram store."""
        url = self._kept_store() if self.store is None else self.store
        return Bucket(url) if url else self.path / "gram.zarr"

    def elsewhere(self, other: "Run") -> "Run":
        """The run with a store other than that of `other`: its current one, else one from its record.

        So a moved store's old place is still found if the call that began to move it was interrupted. If
        there is none, the run is returned as it is.
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
        """The directory's `compute.store`; the config is parsed only if it contains an s3:// URL."""
        file = self.path / "config.yaml"
        try:
            named = b"s3://" in read_plain(file, yaml12.MOST_BYTES)
        except OSError:
            return None
        return config.load(file, kept=True).compute.store if named else None

    def require_gram(self) -> None:
        """Raise UserError if the store cannot be reached, before anything is computed."""
        if isinstance(self.gram, Bucket):
            self.gram.require()

    def require_own(self) -> None:
        """Raise UserError if the directory is no run, but has what a run would replace.

        A run has at least its lock, which is made before anything else.
        """
        begun = os.path.lexists(self.record) or os.path.lexists(self.path / "gram.zarr")
        if begun or lock.was_held(self.path / "lock"):
            return
        taken = [name for name in REPLACED if os.path.lexists(self.path / name)]
        if taken:
            raise UserError(
                f"{short(str(self.path))} is no run, but has {' and '.join(taken)}, which a run would "
                "replace: use another output directory, or move that away"
            )

    @property
    def networks(self) -> Path:
        """The folder of trained networks."""
        return self.path / "networks"

    @property
    def iterations(self) -> Path:
        """The folder of states of iterative solves, a file for each problem (`checkpoint`)."""
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
        """Hold the right to change the directory; see `lock.held`."""
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
        """Replace the record by a changed one, and return it; the caller must hold the lock."""
        changed = change(record.load(self.record))
        record.save(changed, self.record)
        return changed
