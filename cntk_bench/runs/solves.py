"""The solves of a run: each in a folder of its own, whole or not there, numbered as they end."""

import json
import logging
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.runs import record
from cntk_bench.runs.directory import Run
from cntk_bench.system import lock
from cntk_bench.system.files import flush, write_whole, writing
from cntk_bench.text import one_line, short

log = logging.getLogger(__name__)

BEGUN = ".solving-"  # begins the name of the folder of a solve that is not published


def numbers(run: Run) -> list[int]:
    """The numbers of a run's solves, in the order in which they were made."""
    folders = list(run.solves.iterdir()) if run.solves.is_dir() else []
    known = [path for path in folders if re.fullmatch(r"[1-9]\d{0,8}", path.name)]
    return sorted(int(path.name) for path in known if os.path.lexists(path / "solve.json"))


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
    record.check_solve(path, found)
    return found | {"solve": number}


@contextmanager
def new_solve(run: Run) -> Iterator[Path]:
    """A folder to solve into, removed if it was not published; its lock tells others that it is in use."""
    if run.solves.is_symlink():  # others may have put it there, to make us write elsewhere
        raise UserError(f"{short(str(run.solves))} is a link: put the folder itself there")
    with writing(run.solves):
        run.solves.mkdir(exist_ok=True)
        folder = run.solves / f"{BEGUN}{uuid.uuid4().hex}"
        folder.mkdir()
        handle = os.open(folder, os.O_RDONLY)
    try:
        lock.attempt(handle)
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def publish(run: Run, folder: Path, solve: dict, report: Callable[[dict, Path], None]) -> dict:
    """Give a solve its number and its place, and make it the last one of the record.

    A report that cannot be made costs no solve: a warning says why.

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
    with run.lock(math.inf), writing(run.path):
        _remove_leftovers(run)
        number = max(numbers(run), default=0) + 1
        while os.path.lexists(run.solves / str(number)):  # something else, that is no solve
            number += 1
        write_whole(folder / "solve.json", json.dumps(solve, indent=2, allow_nan=False) + "\n")
        stage = {key: value for key, value in solve.items() if key not in ("data", "solutions")}
        past = record.load(run.record)
        past |= {"computed": record.computed(past), "data": solve.get("data", past["data"])}
        new = record.with_solutions(
            record.with_stage(past, stage | {"solve": number}), number, solve["solutions"]
        )
        try:
            report(new, folder / "report")
        except (UserError, OSError) as error:
            log.warning("solve %d has no whole report: %s", number, one_line(error, 200))
        place = run.solves / str(number)
        folder.rename(place)
        flush(run.solves)
        record.save(new, run.record)
        _mirror(run.solutions, [path for path in place.iterdir() if path.suffix in (".npz", ".json")])
        reported = place / "report"
        _mirror(run.report, list(reported.iterdir()) if reported.is_dir() else [])
        return new


def _mirror(target: Path, files: list[Path]) -> None:
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
    """Remove what killed processes left: folders that nobody has locked, and halves of `_mirror`."""
    for folder in run.solves.glob(f"{BEGUN}*"):
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            if lock.attempt(handle):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
    for target in (run.solutions, run.report):
        for half in run.path.glob(f".{target.name}-{'[0-9a-f]' * 8}"):
            shutil.rmtree(half, ignore_errors=True)
