"""The CPU cores that this process may use."""

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cntk_bench.system import cgroups

# Variables that schedulers and people set to limit a process's threads.
VARIABLES = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "SLURM_CPUS_PER_TASK")
_COUNTS = (*VARIABLES[:2], "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")
# Valid values of OpenMP's variables (specification 5.2, chapter 21, and libgomp's manual).
_PLACES = r"(threads|cores|sockets|ll_caches|numa_domains)(\s*\(\s*\d+\s*\))?"
_BINDINGS, _CPUS = "(master|primary|close|spread)", r"\d+(-\d+(:\d+)?)?"
_FORMS = {
    "OMP_PLACES": rf"\s*({_PLACES}|[\d\s{{}}:,!-]*)\s*",
    "OMP_PROC_BIND": rf"\s*(|true|false|{_BINDINGS}(\s*,\s*{_BINDINGS})*)\s*",
    "OMP_SCHEDULE": r"\s*(|((non)?monotonic:\s*)?(static|dynamic|guided|auto)(\s*,\s*\d+)?)\s*",
    "GOMP_CPU_AFFINITY": rf"\s*({_CPUS}([\s,]+{_CPUS})*)?\s*",
}

_asked: list[int] = []  # limits of the active `limited` contexts, of which the last one counts


def threads() -> int:
    """Number of threads that computing may use, at least 1.

    The minimum of the cores that the process is bound to, the CPU time that a container's control group
    allows, and what the environment (`VARIABLES`), or `limited` instead, asks for.
    """
    asked: list[int | None] = [*_asked[-1:]] or [_number(os.environ.get(name, "")) for name in VARIABLES]
    return max(1, min([bound(), *(math.ceil(limit) for limit in (*asked, _quota()) if limit is not None)]))


def bound() -> int:
    """Number of cores that the process is bound to, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def drop_impossible() -> None:
    """Delete environment variables whose values break Numba's import, or make OpenMP print or hang.

    `threads` ignores such values, too.
    """
    for name in _COUNTS:
        if _number(os.environ.get(name, "1")) is None:
            del os.environ[name]
    for name, form in _FORMS.items():
        if not re.fullmatch(form, os.environ.get(name, ""), re.IGNORECASE | re.ASCII):
            del os.environ[name]


@contextmanager
def limited(to: int | None) -> Iterator[None]:
    """Use at most so many threads in this context, whatever the environment says; None changes nothing."""
    if to is None:
        yield
        return
    _asked.append(to)
    try:
        yield
    finally:
        _asked.pop()


def _number(text: str) -> int | None:
    """The first number in a variable, which may list one per level of nesting; None if it is invalid."""
    first = text.split(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and 0 < int(first) < 10**6 else None


def _quota(root: Path = cgroups.ROOT, membership: Path = cgroups.MEMBERSHIP) -> float | None:
    """CPU time that control groups allow, in cores: the strictest limit of this process's groups."""
    folders = cgroups.folders("cpu", root, membership)
    found = (read(folder) for folder in folders for read in (_second_version, _first_version))
    return min((limit for limit in found if limit is not None), default=None)


def _second_version(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text("utf-8").split()
        return int(quota) / int(period) if quota != "max" else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _first_version(group: Path) -> float | None:
    try:
        quota, period = (
            int((group / f"cpu.cfs_{name}_us").read_text("utf-8")) for name in ("quota", "period")
        )
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
