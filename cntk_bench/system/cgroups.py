"""The control groups of this process (Linux's cgroups, versions 1 and 2), which limit containers and jobs."""

from collections.abc import Iterator
from pathlib import Path

ROOT, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def folders(controller: str, root: Path = ROOT, membership: Path = MEMBERSHIP) -> Iterator[Path]:
    """Folders that may hold limits of a controller, such as "cpu"; they need not exist.

    They are those of the process's own group, then of the groups that contain it, up to the root: all of
    them limit it, and a container may see its own group as the root instead of at its path.
    """
    try:
        lines = membership.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        parts = [part for part in path.split("/") if part and part != ".."]
        if controllers == "":  # version 2
            trees = {root}
        elif controller in controllers.split(","):
            trees = {root / controller, root / controllers}
        else:
            continue
        for tree in trees:
            yield from (tree.joinpath(*parts[:n]) for n in range(len(parts), -1, -1))
