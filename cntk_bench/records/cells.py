"""The cells of a solve under way, in a folder of their own: an interrupted solve leaves those that it has
filled, with which the same solve goes on."""

import io
import json
import os
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cntk_bench.records import provenance
from cntk_bench.records.directory import Run
from cntk_bench.system.files import attempt, read_plain, write_whole

BEGUN = ".solving-"  # begins the name of the folder of a solve that is not published
CELLS, ASKED = "cells", "asked.json"  # in such a folder: the solutions so far, and of what they are


def interrupted(run: Run, asked: str) -> tuple[Path, int] | None:
    """The folder of an interrupted solve that was asked the same, locked by its handle, if there is one."""
    for folder, handle in _unused(run):
        if _asked(folder) == asked:
            return folder, handle
        os.close(handle)
    return None


def begin(run: Run, asked: str) -> tuple[Path, int]:
    """A new folder for a solve, locked by its handle; others must be kept out by the run's lock."""
    folder = run.solves / f"{BEGUN}{uuid.uuid4().hex}"
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        attempt(handle)
        (folder / CELLS).mkdir()
        write_whole(folder / CELLS / ASKED, asked)
    except BaseException:
        end(folder, handle)
        raise
    return folder, handle


def end(folder: Path, handle: int) -> None:
    """Give up the lock of a folder, which goes if it has no cell."""
    os.close(handle)
    if not _has_cell(folder):
        shutil.rmtree(folder, ignore_errors=True)


def remove_useless(run: Run) -> None:
    """Remove folders that nobody works in and no solve goes on from: without a cell, or of other code."""
    for folder, handle in _unused(run):
        if not _has_cell(folder) or _code(folder) != provenance.code():
            shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def keep_cell(folder: Path, solution: dict) -> None:
    """Keep a cell's solution in the folder of a solve; its arrays must be there."""
    file = folder / CELLS / f"{stem(solution['column'], solution['depth'])}.json"
    write_whole(file, json.dumps(solution, allow_nan=False))


def stem(column: str, depth: int | None) -> str:
    """What the names of a cell's files begin with."""
    return column if depth is None else f"{column}-{depth}"


def solved_cell(folder: Path, column: str, depth: int | None) -> dict | None:
    """A cell's solution, where the folder of a solve has it whole."""
    name = stem(column, depth)
    file, arrays = folder / CELLS / f"{name}.json", folder / f"{name}.npz"
    try:
        found = json.loads(read_plain(file))
        with np.load(io.BytesIO(read_plain(arrays)), allow_pickle=False) as whole:
            for array in whole.files:
                whole[array]  # its checksum is looked at
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RecursionError):
        return None
    same = isinstance(found, dict) and (found.get("column"), found.get("depth")) == (column, depth)
    return found if same else None


def _has_cell(folder: Path) -> bool:
    return any(file.name != ASKED for file in (folder / CELLS).glob("*.json"))


def _code(folder: Path) -> str | None:
    """Of which code the cells of a folder are."""
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
    """Folders of solves that nobody works in, each locked by its handle, which the caller closes."""
    for folder in sorted(run.solves.glob(f"{BEGUN}*")):
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        except OSError:
            continue
        if attempt(handle):
            yield folder, handle
        else:
            os.close(handle)
