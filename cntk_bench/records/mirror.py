"""RUN/solutions and RUN/report, which show the files of a run's last solve."""

import os
import shutil
import uuid
from pathlib import Path

from cntk_bench.records.directory import Run
from cntk_bench.system.files import read_plain


def is_shown(run: Run, place: Path) -> bool:
    """Whether RUN/solutions and RUN/report show this solve's folder, by its solve.json and its table."""
    pairs = (("solve.json", run.solutions), ("report/table.txt", run.report))
    return all(_content(place / name) == _content(at / Path(name).name) for name, at in pairs)


def show(run: Run, place: Path) -> None:
    """Make RUN/solutions and RUN/report show this solve's folder."""
    _mirror(run.solutions, [path for path in place.iterdir() if path.suffix in (".npz", ".json")])
    reported = place / "report"
    _mirror(run.report, list(reported.iterdir()) if reported.is_dir() else [])


def _mirror(target: Path, files: list[Path]) -> None:
    """Replace a folder by one with hard links to files, or copies of them."""
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


def _content(file: Path) -> bytes | None:
    try:
        return read_plain(file)
    except OSError:
        return None


def remove_halves(run: Run) -> None:
    """Remove folders that `show` left half made in a killed process."""
    for target in (run.solutions, run.report):
        for half in run.path.glob(f".{target.name}-{'[0-9a-f]' * 8}"):
            shutil.rmtree(half, ignore_errors=True)
