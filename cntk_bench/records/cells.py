"""Cells of a solve in progress, kept in a folder, from which the same solve can be resumed if interrupted.

A process that works in such a folder locks a file in it, and not the folder: network file systems pass on
locks of files only, so other machines would not see that the folder is in use.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.records import provenance
from cntk_bench.records.directory import Run
from cntk_bench.system.arrays import read_arrays
from cntk_bench.system.files import open_own, read_plain, same_file, try_lock, write_atomic

BEGUN = ".solving-"  # prefix of the folder of a solve that is not published yet
# In such a folder: what its process locks, the solutions so far, and what was asked for.
LOCK, CELLS, ASKED = "lock", "cells", "asked.json"


def interrupted(run: Run, asked: str) -> tuple[Path, int] | None:
    """Find the folder of an interrupted solve with the same request, locked by its handle; else None."""
    for folder, handle in _unused(run):
        if _asked(folder) == asked:
            return folder, handle
        os.close(handle)
    return None


def begin(run: Run, asked: str) -> tuple[Path, int]:
    """Make a new folder for a solve, locked by its handle; the caller must hold the run's lock."""
    folder = run.solves / f"{BEGUN}{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        handle = open_own(folder / LOCK, os.O_RDWR)
    except BaseException:
        folder.rmdir()
        raise
    try:
        try_lock(handle)
        (folder / CELLS).mkdir()
        write_atomic(folder / CELLS / ASKED, asked)
    except BaseException:
        end(folder, handle)
        raise
    return folder, handle


def end(folder: Path, handle: int) -> None:
    """Remove a folder if it has no cell, and release its lock."""
    if _has_cell(folder):
        os.close(handle)
    else:
        _remove(folder, handle)


def remove_useless(run: Run) -> None:
    """Remove unused folders that no solve can resume from: those without a cell or made by other code."""
    for folder, handle in _unused(run):
        if not _has_cell(folder) or _code(folder) != provenance.code():
            _remove(folder, handle)
        else:
            os.close(handle)


def _remove(folder: Path, handle: int) -> None:
    """Remove a folder while it is locked, so that no process begins to work in it, and release its lock."""
    shutil.rmtree(folder / CELLS, ignore_errors=True)  # first: without its request nobody resumes it
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)
    with suppress(OSError):  # on NFS, an open file keeps a name in its folder until it is closed
        folder.rmdir()


def remove_from(place: Path) -> None:
    """Remove from the folder of a published solve what was needed only to resume it."""
    with suppress(OSError):
        (place / LOCK).unlink()
    shutil.rmtree(place / CELLS, ignore_errors=True)  # last, as it tells that something may be left


def keep_cell(folder: Path, solution: dict) -> None:
    """Write a cell's solution into the folder of a solve; its arrays must already be there."""
    file = folder / CELLS / f"{stem(solution['column'], solution['depth'])}.json"
    write_atomic(file, json.dumps(solution, allow_nan=False))


def stem(column: str, depth: int | None) -> str:
    """Stem of the names of a cell's files."""
    return column if depth is None else f"{column}-{depth}"


def solved_cell(folder: Path, column: str, depth: int | None) -> dict | None:
    """Read a cell's solution from the folder of a solve; None if it is missing or damaged."""
    name = stem(column, depth)
    file, arrays = folder / CELLS / f"{name}.json", folder / f"{name}.npz"
    try:
        found = json.loads(read_plain(file))
        read_arrays(arrays)  # reading verifies its checksum
    except (OSError, ValueError, RecursionError):
        return None
    same = isinstance(found, dict) and (found.get("column"), found.get("depth")) == (column, depth)
    return found if same else None


def _has_cell(folder: Path) -> bool:
    return any(file.name != ASKED for file in (folder / CELLS).glob("*.json"))


def _code(folder: Path) -> str | None:
    """Digest of the code that made a folder's cells (`provenance.code`); None if unknown."""
    try:
        return json.loads(_asked(folder) or "")["code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _asked(folder: Path) -> str | None:
    try:
        return read_plain(folder / CELLS / ASKED).decode()
    except (OSError, ValueError):
        return None


def _unused(run: Run) -> Iterator[tuple[Path, int]]:
    """Yield folders of solves that nobody works in, each locked by its handle, which the caller closes."""
    for folder in sorted(run.solves.glob(f"{BEGUN}*")):
        try:
            place = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            # Older versions locked the folder itself, and made no file to lock.
            if not os.path.lexists(folder / LOCK) and not try_lock(place):
                continue
            handle = open_own(folder / LOCK, os.O_RDWR, linked=True)
        except (OSError, UserError):
            continue
        finally:
            os.close(place)
        if try_lock(handle) and same_file(handle, folder / LOCK):  # not removed before it was locked
            yield folder, handle
        else:
            os.close(handle)
