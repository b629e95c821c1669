"""Free memory on the host and on a GPU, and the peak memory of this process."""

import os
import re
import resource
import sys
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.system import cgroups
from cntk_bench.text import one_line

GIB = 2**30
# Files of a control group, of version 2 and of version 1: its limit, and what it uses.
_LIMITS = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def available(device: str = "cpu") -> int:
    """Bytes that can still be allocated on "cpu" or "cuda".

    On Linux the host's figure respects the limits of control groups, and so of containers and
    batch systems. Elsewhere it is the installed memory.

    Raises
    ------
    UserError
        If "cuda" is asked for and there is no CuPy or no working GPU.
    """
    if device == "cuda":
        return _gpu()
    return min([_host(), *_groups()])


def peak() -> int:
    """Peak memory of this process in bytes.

    On Linux `getrusage` is not used, since a process inherits its figure from its parent.
    """
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:  # not Linux
        found = None
    if found:
        return 1024 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _gpu() -> int:
    try:
        import cupy

        found = cupy.cuda.is_available()
        if found:
            cupy.get_default_memory_pool().free_all_blocks()  # what CuPy only caches counts as free
            return cupy.cuda.runtime.memGetInfo()[0]
    except ImportError as error:
        raise UserError(
            f"device 'cuda' needs CuPy ({one_line(error, 60)}): pip install 'cntk-bench[cuda13]', or "
            "[cuda12] for a CUDA 12 driver; or use 'cpu'"
        ) from None
    except (Exception, SystemExit) as error:  # a broken driver or GPU may raise anything
        raise UserError(
            f"device 'cuda' does not work: {one_line(error, 120) or type(error).__name__}: "
            "mend the driver or the GPU (see nvidia-smi), or use 'cpu'"
        ) from None
    raise UserError("device 'cuda' needs an NVIDIA GPU and its driver, and none was found: use 'cpu'")


def _host() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _groups(root: Path = cgroups.ROOT, membership: Path = cgroups.MEMBERSHIP) -> list[int]:
    """Bytes left under the memory limit of each control group of this process that has one.

    Cached file pages are added, since they are freed on demand.
    """
    left: list[int] = []
    for folder in cgroups.folders("memory", root, membership):
        for limit, usage in _LIMITS:
            try:
                bytes_ = int((folder / limit).read_text()) - int((folder / usage).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # not there, or "max": no limit
                continue
            cached = ("active_file", "inactive_file")
            left.append(bytes_ + sum(int(stat.get(f"total_{key}", stat.get(key, 0))) for key in cached))
    return left
