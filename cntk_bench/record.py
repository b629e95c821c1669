"""The record of a run: one versioned JSON file that says what was done, where, and what came out.

A record is a plain dict; every function here returns a new one. It has the keys

    format     version of this layout
    tool       version of cntk-bench that started it
    commit     git commit of the checkout the tool ran from ("-dirty" appended if changed), or null
    date       start, UTC, ISO 8601
    name       name of the run
    config     the whole config
    data       facts of the images used: name, fingerprint, n_train, n_test, classes, preprocess
    versions   Python and libraries
    machine    platform, CPU, cores, memory in bytes, GPU
    timings    stage -> seconds, and where pairs were computed pairs and pairs_per_second
    solutions  list, one of each column and depth: column, depth, accuracy in percent, ridge, and
               what the solver reported (condition, residual, ...); null stands for a number that
               is not finite
"""

import json
import math
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cntk_bench import __version__
from cntk_bench.errors import UserError, writing

FORMAT = 1

_RECORD = {
    "name": str,
    "config": dict,
    "data": dict,
    "versions": dict,
    "machine": dict,
    "timings": dict,
    "solutions": list,
}
_DATA = {"name": str, "fingerprint": str, "n_train": int, "n_test": int, "classes": int, "preprocess": str}
_SOLUTION = {"column": str, "depth": int, "accuracy": int | float, "ridge": int | float}
_LIBRARIES = (
    "numpy scipy numba zarr pydantic scikit-learn torch torchvision cupy-cuda12x cupy-cuda13x matplotlib"
).split()


def start(config: dict, data: dict) -> dict:
    """A new record of this machine and this moment, without timings or solutions.

    Parameters
    ----------
    config : dict
        The whole config, plain (`config.model_dump(mode="json")`).
    data : dict
        At least name (of the data set), fingerprint, n_train, n_test, classes, preprocess.
    """
    return {
        "format": FORMAT,
        "tool": __version__,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "name": config["name"],
        "config": config,
        "data": plain(data),
        "versions": versions(),
        "machine": machine(),
        "timings": {},
        "solutions": [],
    }


def with_timing(record: dict, stage: str, seconds: float, pairs: int | None = None, **facts: Any) -> dict:
    """A record that also says how long a stage took, in place of what it said of that stage.

    Parameters
    ----------
    record : dict
    stage : str
        "compute", "solve", ...
    seconds : float
        Of all calls together, where the stage was interrupted and resumed.
    pairs : int, optional
        Pairs of images computed in these seconds.
    **facts
        What else the stage wants kept, such as backend="cpu".
    """
    timing = {"seconds": seconds, **facts}
    if pairs is not None:
        timing |= {"pairs": pairs, "pairs_per_second": pairs / seconds if seconds else None}
    return {**record, "timings": {**record["timings"], stage: plain(timing)}}


def with_solutions(record: dict, solutions: list[dict]) -> dict:
    """A record with these solutions in place of those it had.

    Parameters
    ----------
    record : dict
    solutions : list of dict
        Each with at least column, depth, accuracy (percent) and ridge (relative to the mean
        diagonal); NumPy scalars are welcome.
    """
    return {**record, "solutions": plain(solutions)}


def save(record: dict, path: str | Path) -> None:
    """Write the record so that the file is at every moment the old one or the new one, whole.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    path = Path(path)
    new = path.with_name(path.name + ".new")
    try:
        with writing(path):
            with open(new, "w", encoding="utf-8") as file:
                json.dump(record, file, indent=2, allow_nan=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def load(path: str | Path) -> dict:
    """Read a record.

    Raises
    ------
    UserError
        If it is missing, damaged, or of another format; the message says which of file and tool
        is too old.
    """
    try:
        record = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"no record at {path}: name the --output directory of a run") from None
    except OSError as error:
        raise UserError(f"cannot read the record {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON: {error}") from None
    version = record.get("format") if isinstance(record, dict) else None
    if type(version) is not int:
        raise _damaged(path, "no format number")
    if version != FORMAT:
        remedy = (
            "upgrade cntk-bench" if version > FORMAT else "the file is too old: move it away and run again"
        )
        raise UserError(
            f"{path} has format {version} (cntk-bench {record.get('tool')}); "
            f"this cntk-bench reads format {FORMAT}: {remedy}"
        )
    _check(path, "", record, _RECORD)
    _check(path, "data.", record["data"], _DATA)
    for i, solution in enumerate(record["solutions"]):
        _check(path, f"solutions.{i}.", solution, _SOLUTION)
    return record


def _check(path: str | Path, prefix: str, entry: Any, layout: dict) -> None:
    for key, kind in layout.items():
        if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
            raise _damaged(path, f"{prefix}{key} is missing or of a wrong type")


def _damaged(path: str | Path, problem: str) -> UserError:
    return UserError(f"the record {path} is damaged ({problem}): move it away and run again")


def plain(value: Any) -> Any:
    """Dicts, lists, strings, numbers and None only; JSON has no number that is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries installed, by name."""
    found = {"python": platform.python_version()}
    return found | {name: installed(name) for name in _LIBRARIES if installed(name)}


def machine() -> dict[str, Any]:
    """Platform, CPU model, cores this process may use, memory in bytes, and GPU names."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        memory = None
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    gpus = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": len(cores),
        "memory": memory,
        "gpus": gpus.splitlines() if gpus else [],
    }


def _cpu() -> str | None:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def commit() -> str | None:
    """The commit of the checkout this file is tracked in; None where it was installed."""
    folder = Path(__file__).parent
    git = ("git", "--no-optional-locks", "-C", str(folder))
    if not _output(*git, "ls-files", Path(__file__).name):
        return None
    return _output(*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def installed(library: str) -> str | None:
    """A library's version; None where it is not installed."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """What a command prints, or None if it is not there or fails."""
    if not shutil.which(command[0]):
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
