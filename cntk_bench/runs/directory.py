"""A run directory: what a run was asked, what it did, and every solve of it.

    RUN/config.yaml    what the next stage is asked; the only place of settings
    RUN/record.json    what was done (`record`)
    RUN/gram.zarr      the Gram matrices (`store`)
    RUN/solves/N       solve N = 1, 2, ...: solve.json, COLUMN-DEPTH.npz of each cell, and report/
    RUN/solutions      the .npz files of the last solve
    RUN/report         the report of the last solve
    RUN/lock           held by the one process that changes any of this

A solve appears whole or not at all, and a later one does not touch it. Processes may solve at the
same time: each works in a folder of its own, and takes the lock only to put it in its place.
"""

import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.runs import config, record
from cntk_bench.runs.config import Config
from cntk_bench.system import lock
from cntk_bench.system.files import flush, write_whole, writing
from cntk_bench.text import short


@dataclass(frozen=True)
class Run:
    """A run directory, by its path."""

    path: Path

    @property
    def gram(self) -> Path:
        """The Gram store."""
        return self.path / "gram.zarr"

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

    def lock(self, wait: bool = False) -> AbstractContextManager:
        """Hold the right to change the directory, as `lock.held`."""
        return lock.held(self.path / "lock", wait)

    def config(self, overrides: tuple[str, ...] = ()) -> Config:
        """The config that the run was computed with; UserError if the directory is not a run's."""
        path = self.path / "config.yaml"
        if not path.exists():
            raise UserError(
                f"{short(str(self.path))} is not a run directory (no config.yaml): give the --output of a run"
            )
        return config.load(path, overrides)

    def update(self, change: Callable[[dict], dict]) -> dict:
        """Put a changed record in the place of the one there is, and return it; needs the lock."""
        changed = change(record.load(self.record))
        record.save(changed, self.record)
        return changed


def numbers(run: Run) -> list[int]:
    """The numbers of a run's solves, in the order in which they were made."""
    names = [path.name for path in run.solves.iterdir()] if run.solves.is_dir() else []
    return sorted(int(name) for name in names if re.fullmatch(r"[1-9]\d{0,8}", name))


def read_solve(run: Run, number: int) -> dict:
    """What solve.json of one solve says: a stage as in a record, with data, solve and solutions.

    Raises
    ------
    UserError
        If there is no such solve, or its file is damaged.
    """
    if number not in numbers(run):
        known = ", ".join(map(str, numbers(run))) or "none yet"
        raise UserError(f"{short(str(run.path))} has no solve {short(number)}: its solves are {short(known)}")
    path = run.solves / str(number) / "solve.json"
    found = record.read_json(path)
    record.check_solutions(path, found.get("solutions") if isinstance(found, dict) else None)
    return found | {"solve": number}


@contextmanager
def new_solve(run: Run) -> Iterator[Path]:
    """A folder to solve into, removed if it was not published."""
    if run.solves.is_symlink():  # others may have put it there, to make us write elsewhere
        raise UserError(f"{short(str(run.solves))} is a link: put the folder itself there")
    with writing(run.solves):
        run.solves.mkdir(exist_ok=True)
        # Named by its process, so that `publish` can tell what killed processes left.
        folder = run.solves / f".{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(run: Run, folder: Path, solve: dict, report: Callable[[dict, Path], None]) -> dict:
    """Give a solve its number and its place, and make it the last one of the record.

    Parameters
    ----------
    run : Run
    folder : Path
        From `new_solve`, with the cells' .npz files in it.
    solve : dict
        A stage as in a record, with data and solutions.
    report : callable
        Writes the report of a record to a folder.

    Returns
    -------
    dict
        The run's record as it is then.
    """
    with run.lock(wait=True), writing(run.path):
        _remove_leftovers(run)
        number = max(numbers(run), default=0) + 1
        write_whole(folder / "solve.json", json.dumps(solve, indent=2, allow_nan=False) + "\n")
        stage = {key: value for key, value in solve.items() if key not in ("data", "solutions")}
        past = record.load(run.record)
        new = record.with_solutions(
            record.with_stage(past, stage | {"solve": number}), number, solve["solutions"]
        )
        report(new, folder / "report")
        folder.rename(run.solves / str(number))
        flush(run.solves)
        place = run.solves / str(number)
        _mirror(place, run.solutions, [path for path in place.iterdir() if path.suffix in (".npz", ".json")])
        _mirror(place / "report", run.report, list((place / "report").iterdir()))
        record.save(new, run.record)
        return new


def _mirror(source: Path, target: Path, files: list[Path]) -> None:
    """Put links to files, or copies of them, into a folder that takes the place of the one there is."""
    fresh = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    fresh.mkdir()
    for file in files:
        try:
            os.link(file, fresh / file.name)
        except OSError:  # file systems without hard links
            shutil.copyfile(file, fresh / file.name)
    old = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    if os.path.lexists(target):
        target.rename(old)
    fresh.rename(target)
    if old.is_symlink() or old.is_file():
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(run: Run) -> None:
    """Remove the folders of processes of this machine that were killed while they solved."""
    ours = re.compile(rf"\.{re.escape(socket.gethostname())}-(\d{{1,9}})-[0-9a-f]{{8}}")
    for folder in run.solves.glob(".*"):
        found = ours.fullmatch(folder.name)
        if found and not _alive(int(found[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True
