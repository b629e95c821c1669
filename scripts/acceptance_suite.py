"""Run the project's tests on a GPU machine: files in parallel, each in its own process, with a time limit."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, deque
from pathlib import Path

from cntk_bench.records import provenance

ROOT = Path(__file__).resolve().parents[1]
VERDICTS = ("PASSED", "FAILED", "ERROR", "SKIPPED")
FINE = (0, 5)  # pytest's exit codes: all passed; a file without a test for this machine


def missing_packages() -> list[str]:
    """Packages that the project's tests need and this machine lacks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w-]+", package)[0] for package in (*project["dependencies"], "pytest")]
    return [name for name in names if not provenance.installed(name)]


def run(files, seconds: float, at_once: int = 1) -> dict:
    """Run test files; returns counts, and whether all passed: None if time ran out before any failed."""
    deadline = time.monotonic() + seconds
    waiting, running, ended = deque(files), {}, {}
    try:
        while (waiting or running) and time.monotonic() < deadline:
            while waiting and len(running) < at_once:
                file = waiting.popleft()
                running[file] = _start(file)
            time.sleep(0.05)
            for file in [file for file, (process, _) in running.items() if process.poll() is not None]:
                ended[file] = running.pop(file)
    finally:  # also if the user interrupts
        for process, _ in running.values():
            os.killpg(process.pid, signal.SIGKILL)  # the tests' own processes, too
            process.wait()
    outputs = {file: _read(output) for file, (_, output) in {**ended, **running}.items()}
    counts = Counter(
        verdict
        for output in outputs.values()
        for verdict in re.findall(rf"^\S+::.* ({'|'.join(VERDICTS)})\b", output, re.M)
    )
    wrong = [outputs[file] for file, (process, _) in ended.items() if process.returncode not in FINE]
    stopped = [str(file) for file in (*running, *waiting)]
    found = {"tests": {verdict.lower(): counts[verdict] for verdict in VERDICTS}}
    if stopped:
        found["stopped"] = f"after {seconds:.0f} s: {', '.join(stopped)}"
    if wrong:
        found["output"] = "\n".join(output[-2000:] for output in wrong)
    if wrong or counts["FAILED"] or counts["ERROR"] or not (counts["PASSED"] or stopped):
        return {"passed": False, **found}
    return {"passed": None if stopped else True, **found}


def _start(file):
    """pytest on one file, with its processes in a group of their own, and where its output goes."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--color=no", str(file)]
    output = tempfile.TemporaryFile()
    # Options for the user's own calls of pytest might choose other tests, or print them otherwise.
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
    )
    return process, output


def _read(output) -> str:
    with output:
        output.seek(0)
        return output.read().decode(errors="replace")
