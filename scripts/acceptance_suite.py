"""The project's tests on a GPU machine: files side by side, each in a process of its own, within a time."""

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERDICTS = ("PASSED", "FAILED", "ERROR", "SKIPPED")
FINE = (0, 5)  # pytest's exit codes: all passed; a file without a test for this machine


def installed(name: str) -> str | None:
    """A package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing_packages() -> list[str]:
    """What the project's tests need and this machine lacks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w-]+", package)[0] for package in (*project["dependencies"], "pytest")]
    return [name for name in names if not installed(name)]


def run(files, seconds: float, at_once: int = 1) -> dict:
    """Counts, and whether all passed: None if the time ran out before any failed."""
    deadline = time.monotonic() + seconds
    with ThreadPoolExecutor(at_once) as pool:
        ended = list(pool.map(lambda file: _run(file, deadline), files))
    counts = Counter(
        verdict
        for _, output in ended
        for verdict in re.findall(rf"^\S+::.* ({'|'.join(VERDICTS)})\b", output, re.M)
    )
    stopped = [str(file) for file, (code, _) in zip(files, ended, strict=True) if code is None]
    wrong = [output for code, output in ended if code is not None and code not in FINE]
    found = {"tests": {verdict.lower(): counts[verdict] for verdict in VERDICTS}}
    if stopped:
        found["stopped"] = f"after {seconds:.0f} s: {', '.join(stopped)}"
    if wrong:
        found["output"] = "\n".join(output[-2000:] for output in wrong)
    if wrong or counts["FAILED"] or counts["ERROR"] or not (counts["PASSED"] or stopped):
        return {"passed": False, **found}
    return {"passed": None if stopped else True, **found}


def _run(file, deadline) -> tuple[int | None, str]:
    """pytest's exit code, None if it was stopped; its output."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--color=no", str(file)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=max(deadline - time.monotonic(), 0))
            code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the tests' own processes, too
            (output, _), code = process.communicate(), None
    return code, output.decode(errors="replace")
