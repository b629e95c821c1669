"""Provenance of a number: the program, its commit, the libraries, the machine and the time."""

import hashlib
import os
import platform
import re
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cntk_bench import __version__
from cntk_bench.system import cores
from cntk_bench.text import short

LIBRARIES = (
    *("numpy", "scipy", "numba", "llvmlite", "zarr", "pydantic", "pyyaml", "scikit-learn", "matplotlib"),
    *("pillow", "torch", "torchvision", "gpytorch", "cupy-cuda12x", "cupy-cuda13x"),
)
PATIENCE = 20  # seconds that another program may take to answer
MOST = 10_000  # bytes of its answer that are read, at most
# What Linux says of a CPU besides its name, and how it is called here.
DETAILS = {"cpu family": "family", "model": "model", "CPU part": "part"}
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}  # the widest first
COMMIT = "CNTK_BENCH_COMMIT"  # environment variable with the commit of a copy without git


def stamp() -> dict[str, Any]:
    """Describe the current time, process, program and machine, as plain values."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "process": f"{os.getpid()} on {socket.gethostname()}",
        "tool": __version__,
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries, by name."""
    found = {"python": platform.python_version()}
    return found | {name: version for name in LIBRARIES if (version := installed(name))}


def machine() -> dict[str, Any]:
    """Platform, CPU model, cores this process may use, memory in bytes, and GPU names."""
    gpus = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": cores.bound(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [short(line) for line in gpus.splitlines()[:64]] if gpus else [],
    }


def _cpu() -> str | None:
    """The CPU's name, with its model and its widest vectors, since virtual machines shorten the name."""
    facts = _first_processor()
    name = facts.get("model name") or platform.processor()
    details = [f"{word} {facts[key]}" for key, word in DETAILS.items() if key in facts]
    flags = facts.get("flags", "").split()
    details += [text for flag, text in VECTORS.items() if flag in flags][:1]
    whole = f"{name} ({', '.join(details)})" if name and details else name
    return short(whole, 120) if whole else None


def _first_processor() -> dict[str, str]:
    """What the system says of the first processor; empty if it says nothing."""
    facts: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, colon, value = line.partition(":")
                if not colon:
                    break
                facts.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    return facts


def commit() -> str | None:
    """The commit of the checkout in which this file is tracked; if there is none, that in the environment
    variable `COMMIT`; else None."""
    folder = Path(__file__).parent
    git = ("git", "--no-optional-locks", "-C", str(folder))
    if not _output(*git, "ls-files", Path(__file__).name):
        told = os.environ.get(COMMIT, "")
        return told if re.fullmatch(r"[0-9a-f]{7,64}(-dirty)?", told) else None
    found = _output(*git, "rev-parse", "HEAD")
    # `git describe --dirty` would write to the checkout's index even without optional locks.
    changed = _output(*git, "status", "--porcelain", "--untracked-files=no") != ""
    return f"{found}-dirty" if found and changed else found


@cache
def code() -> str:
    """SHA-256 (hex) of the program's Python files, which unlike a commit identifies an edited checkout."""
    package = Path(__file__).parents[1]
    found = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        content = file.read_bytes()
        found.update(f"{file.relative_to(package)} {len(content)}\n".encode() + content)
    return found.hexdigest()


def installed(library: str) -> str | None:
    """A library's version; None if it is not installed."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """Output of a command; None if it does not exist or fails."""
    quiet = subprocess.DEVNULL
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    text = b""
    try:
        with subprocess.Popen(
            command, stdin=quiet, stderr=quiet, stdout=subprocess.PIPE, env=plain, start_new_session=True
        ) as process:

            def stop() -> None:  # kill it and the processes that it started
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

            patience = threading.Timer(PATIENCE, stop)
            assert process.stdout is not None  # it is a pipe
            try:
                patience.start()
                text = process.stdout.read(MOST + 1)
                if len(text) <= MOST:  # else it may print without end
                    process.wait()
            finally:
                patience.cancel()
                if process.returncode is None:
                    stop()
    except (OSError, RuntimeError):  # no such program, no new process, no new thread
        return None
    return text.decode("utf-8", "replace").strip() if process.returncode == 0 else None
