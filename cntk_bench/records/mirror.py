"""RUN/solutions and RUN/report, which show the files of a run's last solve.

Each solve replaces them. What a user has put there stays, in a folder that gets another name.
"""

import filecmp
import logging
import os
import shutil
import uuid
from itertools import count
from pathlib import Path

from cntk_bench.records.directory import Run
from cntk_bench.system.files import PARTIAL, read_plain
from cntk_bench.text import short

log = logging.getLogger(__name__)


def is_shown(run: Run, place: Path) -> bool:
    """Whether RUN/solutions and RUN/report show this solve's folder, by its solve.json and its table."""
    pairs = (("solve.json", run.solutions), ("report/table.txt", run.report))
    return all(_content(place / name) == _content(at / Path(name).name) for name, at in pairs)


def show(run: Run, place: Path) -> None:
    """Make RUN/solutions and RUN/report show this solve's folder."""
    _mirror(run, run.solutions, [path for path in place.iterdir() if path.suffix in (".npz", ".json")])
    reported = place / "report"
    _mirror(run, run.report, list(reported.iterdir()) if reported.is_dir() else [])


def _mirror(run: Run, target: Path, files: list[Path]) -> None:
    """Replace a folder by one with hard links to files, or copies of them."""
    fresh = target.with_name(f".{target.name}-{uuid.uuid4().hex}{PARTIAL}")
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
    _put_away(run, target, old)


def _put_away(run: Run, target: Path, old: Path) -> None:
    """Remove what a folder was before; with anything that no solve has, it is kept beside: report-1, ..."""
    if old.is_symlink() or not os.path.lexists(old):
        old.unlink(missing_ok=True)
    elif _shows_only_solves(run, target.name, old):
        shutil.rmtree(old, ignore_errors=True)
    else:
        names = (target.with_name(f"{target.name}-{number}") for number in count(1))
        kept = next(name for name in names if not os.path.lexists(name))
        old.rename(kept)
        log.warning(
            "%s had something that is of no solve: what it was before is now %s",
            short(str(target)), short(str(kept)),
        )  # fmt: skip


def _shows_only_solves(run: Run, name: str, folder: Path) -> bool:
    """Whether each file is equal to one of a solve; hidden files are not the user's, and do not count."""
    if not folder.is_dir():
        return False
    within = "report" if name == run.report.name else ""
    newest_first = sorted(run.solves.glob("[1-9]*"), key=lambda solve: (len(solve.name), solve.name))[::-1]
    return all(
        any(_same(file, solve / within / file.name) for solve in newest_first)
        for file in folder.iterdir()
        if not file.name.startswith(".")
    )


def _same(file: Path, other: Path) -> bool:
    try:
        return file.samefile(other) or filecmp.cmp(file, other, shallow=False)
    except OSError:
        return False


def _content(file: Path) -> bytes | None:
    try:
        return read_plain(file)
    except OSError:
        return None


def remove_halves(run: Run) -> None:
    """Put away folders that `show` had replaced when its process was killed."""
    for target in (run.solutions, run.report):
        for old in run.path.glob(f".{target.name}-{'[0-9a-f]' * 8}"):
            _put_away(run, target, old)
