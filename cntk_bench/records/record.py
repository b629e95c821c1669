"""The record of a run: one versioned JSON file that says what was done, where, and with which results.

Settings of the next stage are in config.yaml only; a record keeps, for each stage that ran, the settings
that it used. A record is a plain dict; every function here returns a new one. Its keys:

    format     version of this layout
    name       name of the run
    data       facts about the images that the solutions are for: name, fingerprint, n_train, n_test, classes,
               preprocess, statistics, train_index, test_index (indices in the data set, separated by spaces),
               and test_images, a digest of the unprepared test images, their indices and labels;
               if there are several draws, draws, of n_train images each, and images_of_draws, the
               fingerprint of each draw's images; classes_used, the source's labels of the classes, if some
               were chosen; class_names, if classes have names; and for pictures size, fit, channels,
               test_share, if they were given; for each draw unseen_classes, the number of classes without a
               training image, and seen_test_images, the percentage of test images of the others, if there
               are such classes; repeated_test_images, how many are training images, too, if there are such;
               largest_pixels of training and test images, if they look as if they had different units
    computed   the same facts about the images computed last, which the next solve uses
    asked      the config's sections dataset and preprocess by which those were chosen and prepared
    stages     list with an entry for each call that did something, in order of their starts:
               stage      "compute", "train", "solve", "verify", ...
               started    UTC, ISO 8601
               seconds    wall time; null if it was killed
               process    process ID and machine, which containers may share
               call       unique digits of this call
               tool       version of cntk-bench
               commit     git commit of the checkout that it ran from ("-dirty" appended if changed), or null
               versions   Python and libraries
               machine    platform, CPU, cores, memory in bytes, GPUs
               settings   the sections of the config that it used
               and what the stage adds: backend, pairs, pairs_per_second, numerics, device, solver,
                          peak_memory (bytes of the process); a solve adds grams (`matrix.fingerprint` by
                          readout); verify adds checked, damaged, entries, largest_error, ...
    solve      number of the last solve; absent before the first
    solutions  list of the last solve's cells, by column and depth: column, depth (null for a column without
               depths), accuracy in percent (null if every network failed) and its standard_error, ridge,
               and what the solver reported (condition, residual, ...); elsewhere null stands for a number
               that is not finite
    digest     SHA-256 of the solutions, and the number of their solve; absent in older records
"""

import hashlib
import json
import math
import uuid
from pathlib import Path
from types import NoneType
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.records import provenance
from cntk_bench.report.rows import draws
from cntk_bench.system.files import read_plain, write_json
from cntk_bench.text import one_line, short

FORMAT = 2

_RECORD = {"name": str, "data": dict, "stages": list, "solutions": list}
_DATA = {"name": str, "fingerprint": str, "n_train": int, "n_test": int, "classes": int, "preprocess": str}
_LEAST = {"n_train": 1, "n_test": 1, "classes": 2}
_STAGE = {"stage": str, "started": str, "versions": dict, "machine": dict, "settings": dict}
_SOLUTION = {"column": str, "accuracy": int | float | None}


def start(name: str, data: dict) -> dict:
    """Make a new record, before the first stage.

    Parameters
    ----------
    name : str
        Name of the run.
    data : dict
        At least name (of the data set), fingerprint, n_train, n_test, classes, preprocess.
    """
    return {"format": FORMAT, "name": name, "data": plain(data), "stages": [], "solutions": []}


def stage(name: str, settings: dict) -> dict:
    """Make the entry of a stage that starts now: time, program, versions, machine and settings.

    Parameters
    ----------
    name : str
        "compute", "solve", ...
    settings : dict
        The config's sections that the stage uses, as plain values (`model_dump(mode="json")`).
    """
    call = {"call": uuid.uuid4().hex[:12]}
    return {"stage": name, "seconds": None, **provenance.stamp(), **call, "settings": plain(settings)}


def with_stage(record: dict, stage: dict) -> dict:
    """Return a record with a stage added as the newest, replacing an entry of the same call.

    If the stage has pairs, its rate in pairs per second is added.
    """
    if stage.get("pairs") is not None and stage["seconds"]:
        stage = {**stage, "pairs_per_second": stage["pairs"] / stage["seconds"]}
    call = ("stage", "started", "process", "call")
    others = [other for other in record["stages"] if any(other.get(key) != stage.get(key) for key in call)]
    return {**record, "stages": [*others, plain(stage)]}


def with_solutions(record: dict, number: int, solutions: list[dict]) -> dict:
    """Return a record with the number and solutions of a solve instead of those it had.

    Parameters
    ----------
    record : dict
    number : int
    solutions : list of dict
        Each with at least column, depth, accuracy (percent) and ridge (relative to the mean
        diagonal); NumPy scalars are converted.
    """
    kept = {"solve": number, "sha256": digest(solutions)}
    return {**record, "solve": number, "solutions": plain(solutions), "digest": kept}


def digest(said: Any) -> str:
    """SHA-256 (hex) of a file's content, kept with it: else a flipped bit could change a number unnoticed."""
    return hashlib.sha256(json.dumps(plain(said), sort_keys=True).encode()).hexdigest()


def _check_digest(path: str | Path, found: dict) -> None:
    """Refuse solutions that do not have their digest; one of another solve, left by an older version that
    writes none, is ignored."""
    kept = found.get("digest")
    if isinstance(kept, dict) and kept.get("solve", found.get("solve")) == found.get("solve"):
        if kept.get("sha256") != digest(found["solutions"]):
            raise _damaged(path, "the digest of its solutions does not fit")


def computed(record: dict) -> dict:
    """Facts about the images computed last; for records that do not distinguish them, about those solved."""
    return record.get("computed", record["data"])


def asked(record: dict, config: dict) -> dict:
    """Config sections for the images computed last; for records without them, those given as `config`."""
    return record.get("asked", plain(config))


def sizes(facts: dict) -> tuple[int, int]:
    """(number of training images of all draws, number of test images)."""
    return facts["n_train"] * draws(facts), facts["n_test"]


def save(record: dict, path: str | Path) -> None:
    """Write the record atomically: at any moment, the file is either the whole old one or the whole new one.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    write_json(path, record)


def load(path: str | Path) -> dict:
    """Read a record.

    Raises
    ------
    UserError
        If it is missing, damaged, or of another format; the message says whether the file or the
        tool is too old.
    """
    record = read_json(path)
    version = record.get("format") if isinstance(record, dict) else None
    if type(version) is not int:
        raise _damaged(path, "no format number")
    if version != FORMAT:
        remedy = (
            "upgrade cntk-bench"
            if version > FORMAT
            else "the file is too old: move it away, then run `compute` and `solve` again; the tiles are kept"
        )
        raise UserError(
            f"{short(str(path))} has format {short(version)} (cntk-bench {short(record.get('tool', '?'))}); "
            f"this cntk-bench reads format {FORMAT}: {remedy}"
        )
    _check(path, "", record, _RECORD)
    for part in ("data", "computed"):
        if part in record:
            _check_data(path, part, record[part])
    for i, entry in enumerate(record["stages"]):
        _check(path, f"stages.{i}.", entry, _STAGE)
    check_solutions(path, record["solutions"])
    _check_digest(path, record)
    return record


def read_json(path: str | Path) -> Any:
    """Read a JSON file of a run; UserError if it cannot be read."""
    try:
        return json.loads(read_plain(path))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no record at {short(str(path))}: name the --output directory of a run") from None
    except OSError as error:
        raise UserError(
            f"cannot read the record {short(str(path))} ({error.strerror}): make it readable"
        ) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON: {one_line(error, 80)}") from None


def check_solve(path: str | Path, found: Any) -> None:
    """Refuse content that is not a valid solve.json, naming the file that it was read from."""
    _check(path, "", found, {"solutions": list})
    if "data" in found:
        _check_data(path, "data", found["data"])
    if not isinstance(found.get("settings", {}), dict):
        raise _damaged(path, "settings is of a wrong type")
    if not isinstance(found.get("settings", {}).get("solve", {}), dict):
        raise _damaged(path, "settings.solve is of a wrong type")
    check_solutions(path, found["solutions"])
    _check_digest(path, found)
    if not found["solutions"]:
        raise _damaged(path, "it has no solutions")


def check_solutions(path: str | Path, solutions: Any) -> None:
    """Refuse content that is not a valid list of solutions, naming the file that it was read from."""
    if not isinstance(solutions, list):
        raise _damaged(path, "solutions is no list")
    for i, solution in enumerate(solutions):
        _check(path, f"solutions.{i}.", solution, _SOLUTION)
        if type(solution.get("depth", "")) not in (int, NoneType):
            raise _damaged(path, f"solutions.{i}.depth is missing or of a wrong type")
        if "accuracy" not in solution:
            raise _damaged(path, f"solutions.{i}.accuracy is missing")
        accuracy = solution["accuracy"]  # None if there is none
        if accuracy is not None and not 0 <= accuracy <= 100:
            raise _damaged(path, f"solutions.{i}.accuracy is not between 0 and 100")


def _check_data(path: str | Path, part: str, data: Any) -> None:
    _check(path, f"{part}.", data, _DATA)
    for key, least in _LEAST.items():
        if data[key] < least:
            raise _damaged(path, f"{part}.{key} is {short(data[key])}")


def _check(path: str | Path, prefix: str, entry: Any, layout: dict) -> None:
    for key, kind in layout.items():
        if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
            raise _damaged(path, f"{prefix}{key} is missing or of a wrong type")


def _damaged(path: str | Path, problem: str) -> UserError:
    return UserError(
        f"the record {short(str(path))} is damaged ({problem}): move it away, then run `compute` and `solve` "
        "again; the tiles are kept"
    )


def plain(value: Any) -> Any:
    """Convert to plain dicts, lists, strings, numbers and None, for JSON; numbers not finite become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # a NumPy scalar or array
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
