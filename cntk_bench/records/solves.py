"""The solves of a run: each in its own folder, published atomically, and numbered in the order they end."""

import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.records import cells, mirror, record
from cntk_bench.records.directory import Run
from cntk_bench.system.files import flush, remove_partial, require_no_link, write_json, writing
from cntk_bench.text import one_line, short

log = logging.getLogger(__name__)


def numbers(run: Run) -> list[int]:
    """Numbers of a run's solves, in the order in which they were published."""
    folders = list(run.solves.iterdir()) if run.solves.is_dir() else []
    known = [path for path in folders if re.fullmatch(r"[1-9]\d{0,8}", path.name)]
    return sorted(int(path.name) for path in known if os.path.lexists(path / "solve.json"))


def none_now(run: Run, text: str | None = None) -> UserError:
    """The error for a run whose record has no solutions; `text` is the run's name in the message."""
    name, known = short(text or str(run.path)), numbers(run)
    if not known:
        return UserError(f"{name} has no solves yet: run `cntk-bench solve` on it")
    which = str(known[-1]) if len(known) == 1 else f"{known[0]} to {known[-1]}"
    return UserError(
        f"{name} was computed again since its last solve, for other images: run `cntk-bench solve` on it, or "
        f"name a solve of before ({which}): --solve N, and for `compare` RUN@N"
    )


def read_solve(run: Run, number: int) -> dict:
    """Read the solve.json of one solve: a stage as in a record, with data, solve and solutions.

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
def new_solve(run: Run, asked: dict) -> Iterator[Path]:
    """Yield a folder to solve into, locked so that others see that it is in use.

    An interrupted solve is resumed: if an unused folder of a solve with the same request exists, that is
    used. The folder is removed at the end if it has no cell. `asked` must have "code" (`provenance.code`).
    """
    require_no_link(run.solves)
    remove_partial(run.iterations)
    text = json.dumps(record.plain(asked), sort_keys=True, allow_nan=False)
    with writing(run.solves):
        run.solves.mkdir(exist_ok=True)
        settle(run)
        with run.lock(math.inf):
            found = cells.interrupted(run, text)
            folder, handle = found or cells.begin(run, text)
    if found:
        log.info("going on with an interrupted solve, %s", folder.name)
    try:
        yield folder
    finally:
        cells.end(folder, handle)


def publish(run: Run, folder: Path, solve: dict, report: Callable[[dict, Path], None]) -> dict:
    """Give a solve its number, move it into place, and make it the last one in the record.

    If the report cannot be made, the solve is published all the same, with a warning that says why.

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
        The run's new record.
    """
    with run.lock(math.inf), writing(run.path):
        _settle(run)
        _remove_leftovers(run)
        number = max(numbers(run), default=0) + 1
        while os.path.lexists(run.solves / str(number)):  # something that is no solve
            number += 1
        write_json(folder / "solve.json", solve | {"digest": {"sha256": record.digest(solve["solutions"])}})
        new = _telling(record.load(run.record), number, solve)
        shutil.rmtree(folder / "report", ignore_errors=True)  # left by an earlier attempt
        try:
            report(new, folder / "report")
        except (UserError, OSError) as error:
            log.warning("solve %d has no whole report: %s", number, one_line(error, 200))
        place = run.solves / str(number)
        folder.rename(place)  # with its cells, to resume from if the record cannot be saved
        try:
            flush(run.solves)
            record.save(new, run.record)
        except BaseException:
            if number not in _published(record.load(run.record)):
                place.rename(folder)
            raise
        cells.remove_from(place)
        mirror.show(run, place)
        return new


def _telling(past: dict, number: int, solve: dict) -> dict:
    """The record with a solve added as the last one."""
    stage = {key: value for key, value in solve.items() if key not in ("data", "solutions", "digest")}
    past = past | {"computed": record.computed(past), "data": solve.get("data", past["data"])}
    return record.with_solutions(
        record.with_stage(past, stage | {"solve": number}), number, solve["solutions"]
    )


def settle(run: Run) -> None:
    """Add solves to the record that a killed process moved into place but could not record."""
    if any(_unsettled(run)):  # perhaps one that is just being published
        with run.lock(math.inf), writing(run.path):
            _settle(run)


def _settle(run: Run) -> None:
    for number in list(_unsettled(run)):
        place, past = run.solves / str(number), record.load(run.record)
        if number not in _published(past):
            try:
                record.save(_telling(past, number, read_solve(run, number)), run.record)
            except UserError as error:  # the solve is damaged
                log.warning("solve %d: %s", number, one_line(error, 200))
                continue
            mirror.show(run, place)
        cells.remove_from(place)


def _unsettled(run: Run) -> Iterator[int]:
    """Numbers of solves that still have their cells, because publishing was not completed."""
    for number in numbers(run):
        place = run.solves / str(number)
        if not place.is_symlink() and (place / cells.CELLS).is_dir():
            yield number


def _published(past: dict) -> set:
    return {stage.get("solve") for stage in past["stages"]}


def show_last(run: Run) -> None:
    """Make RUN/solutions and RUN/report show the last solve, in case a killed process left others."""
    with run.lock(math.inf), writing(run.path):
        number = record.load(run.record).get("solve")
        place = run.solves / str(number)
        if number in numbers(run) and not mirror.is_shown(run, place):
            _remove_leftovers(run)
            mirror.show(run, place)


def _remove_leftovers(run: Run) -> None:
    """Remove files and folders that killed processes left."""
    cells.remove_useless(run)
    remove_partial(run.path)
    mirror.remove_halves(run)
