"""The record of a run: one versioned JSON file that says what was done, where, and what came out.

What the next stage is asked stands in config.yaml alone; a record keeps, for each stage that ran, the
settings that it used then. A record is a plain dict; every function here returns a new one. Its keys:

    format     version of this layout
    name       name of the run
    data       facts of the images that the solutions are of: name, fingerprint, n_train, n_test, classes,
               preprocess, statistics, train_index, test_index (places in the data set separated by spaces),
               and test_images, a digest of the test images as the source has them, and of their places;
               also draws, where there are several, of n_train images each, and images_of_draws, the
               fingerprint of each draw's images; classes_used, the source's labels of the classes, where some
               were chosen; class_names, where classes have names; and of pictures size, fit, channels,
               test_share, where they were asked for
    computed   the same facts of the images that were computed last, which the next solve uses
    asked      the sections dataset and preprocess of the config, by which those were chosen and prepared
    stages     list, one of each call that did something, in order of their starts:
               stage      "compute", "train", "solve", "verify", ...
               started    UTC, ISO 8601
               seconds    wall time; null if it was ended from outside
               process    number of the process, and its machine: containers may have both in common
               call       digits of this call alone
               tool       version of cntk-bench
               commit     git commit of the checkout that it ran from ("-dirty" appended if changed), or null
               versions   Python and libraries
               machine    platform, CPU, cores, memory in bytes, GPUs
               settings   the sections of the config that it used
               and what the stage adds: backend, pairs, pairs_per_second, numerics, device, solver,
                          peak_memory (bytes of the process), of a solve grams (`matrix.fingerprint` by
                          readout), of verify checked, damaged, entries, largest_error, ...
    solve      number of the last solve; absent before the first
    solutions  list of the last solve, one of each column and depth: column, depth (null for a column without
               depths), accuracy in percent (null where there is none: every network failed) and its
               standard_error, ridge, and what the solver reported (condition, residual, ...); elsewhere null
               stands for a number that is not finite
    digest     SHA-256 of them, and of which solve they are; absent in records of before
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
from cntk_bench.system.files import read_plain, write_json
from cntk_bench.text import one_line, short

FORMAT = 2

_RECORD = {"name": str, "data": dict, "stages": list, "solutions": list}
_DATA = {"name": str, "fingerprint": str, "n_train": int, "n_test": int, "classes": int, "preprocess": str}
_LEAST = {"n_train": 1, "n_test": 1, "classes": 2}
_STAGE = {"stage": str, "started": str, "versions": dict, "machine": dict, "settings": dict}
_SOLUTION = {"column": str, "accuracy": int | float | None}


def start(name: str, data: dict) -> dict:
    """A new record, before its first stage.

    Parameters
    ----------
    name : str
        Of the run.
    data : dict
        At least name (of the data set), fingerprint, n_train, n_test, classes, preprocess.
    """
    return {"format": FORMAT, "name": name, "data": plain(data), "stages": [], "solutions": []}


def stage(name: str, settings: dict) -> dict:
    """A stage that starts now: when, by which program and versions, where, and with which settings.

    Parameters
    ----------
    name : str
        "compute", "solve", ...
    settings : dict
        The sections of the config that the stage uses, plain (`model_dump(mode="json")`).
    """
    call = {"call": uuid.uuid4().hex[:12]}
    return {"stage": name, "seconds": None, **provenance.stamp(), **call, "settings": plain(settings)}


def with_stage(record: dict, stage: dict) -> dict:
    """A record with a stage: in the place of the same call's, or as its newest.

    Where the stage has pairs, its rate in pairs per second is added.
    """
    if stage.get("pairs") is not None and stage["seconds"]:
        stage = {**stage, "pairs_per_second": stage["pairs"] / stage["seconds"]}
    call = ("stage", "started", "process", "call")
    others = [other for other in record["stages"] if any(other.get(key) != stage.get(key) for key in call)]
    return {**record, "stages": [*others, plain(stage)]}


def with_solutions(record: dict, number: int, solutions: list[dict]) -> dict:
    """A record of a solve's number and solutions in place of those it had.

    Parameters
    ----------
    record : dict
    number : int
    solutions : list of dict
        Each with at least column, depth, accuracy (percent) and ridge (relative to the mean
        diagonal); NumPy scalars are welcome.
    """
    kept = {"solve": number, "sha256": digest(solutions)}
    return {**record, "solve": number, "solutions": plain(solutions), "digest": kept}


def digest(said: Any) -> str:
    """SHA-256 (hex) of what a file says, kept beside it: a flipped bit would make another number of one."""
    return hashlib.sha256(json.dumps(plain(said), sort_keys=True).encode()).hexdigest()


def _check_digest(path: str | Path, found: dict) -> None:
    """Refuse solutions that are not those of their digest; a version that writes none leaves that of another
    solve."""
    kept = found.get("digest")
    if isinstance(kept, dict) and kept.get("solve", found.get("solve")) == found.get("solve"):
        if kept.get("sha256") != digest(found["solutions"]):
            raise _damaged(path, "the digest of its solutions does not fit")


def computed(record: dict) -> dict:
    """Facts of the images that were computed last; of records that do not tell them apart, those solved."""
    return record.get("computed", record["data"])


def asked(record: dict, config: dict) -> dict:
    """The sections that say which images were computed last; of records that do not, a run's config's."""
    return record.get("asked", plain(config))


def draws(facts: dict) -> int:
    """How many draws the training images are of which a record's facts tell; n_train are those of one."""
    found = facts.get("draws", 1)
    return found if type(found) is int and found > 0 else 1


def sizes(facts: dict) -> tuple[int, int]:
    """(training images of all draws, test images)."""
    return facts["n_train"] * draws(facts), facts["n_test"]


def save(record: dict, path: str | Path) -> None:
    """Write the record so that the file is at every moment the old one or the new one, whole.

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
        If it is missing, damaged, or of another format; the message says which of file and tool
        is too old.
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
    """What a JSON file of a run holds; a UserError where it cannot be read."""
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
    """Refuse what is no solve.json, naming the file that it was read from."""
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
    """Refuse what is no list of solutions, naming the file that it was read from."""
    if not isinstance(solutions, list):
        raise _damaged(path, "solutions is no list")
    for i, solution in enumerate(solutions):
        _check(path, f"solutions.{i}.", solution, _SOLUTION)
        if type(solution.get("depth", "")) not in (int, NoneType):
            raise _damaged(path, f"solutions.{i}.depth is missing or of a wrong type")
        if "accuracy" not in solution:
            raise _damaged(path, f"solutions.{i}.accuracy is missing")
        accuracy = solution["accuracy"]  # null where there is none
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
    """Dicts, lists, strings, numbers and None only; JSON has no number that is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # of NumPy: a scalar, or an array
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
