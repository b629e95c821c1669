"""RUN/log.txt, to which all processes that work on a run append: whole lines, bounded and without secrets.

    2026-11-28T15:08:29.123Z process 4711 on machine: begun: computing

A line, or several that belong together, is appended by one system call, so that lines of several processes do
not mix; a lock on the file ensures this also on network file systems, where several machines append. A file
of `MOST` bytes is renamed to log.1.txt, replacing the previous one.
"""

import errno
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cntk_bench.system import files
from cntk_bench.text import one_line, redacted

NAME, BEFORE = "log.txt", "log.1.txt"
MOST = 2**22  # bytes of a file, at most
LONGEST = 2000  # characters of a line, at most
PATIENCE = 0.5  # seconds to wait for other processes that append; a line is worth no more
PAUSE = 0.002  # seconds between two tries

Place = tuple[str, int]


def place() -> Place:
    """The machine's name and the ID of this process."""
    return os.uname().nodename, os.getpid()


def named(where: Place) -> str:
    """Describe a place in words."""
    return f"process {where[1]} on {where[0]}"


def lines(kind: str, text: str, more: Sequence[str] = ()) -> bytes:
    """Format a line of this process, and `more` lines that belong to it, without possible secrets."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    first, *others = [one_line(redacted(one_line(each, 5 * LONGEST)), LONGEST) for each in (text, *more)]
    head = f"{now} {named(place())}:"
    said = [f"{head} {kind}: {first}", *(f"{head}   {each}" for each in others)]
    return "".join(f"{each}\n" for each in said).encode("utf-8", "backslashreplace")


def append(path: Path, content: bytes) -> None:
    """Append lines by one system call; a full file is renamed first, and so is one with a second name.

    Such a file may be that of a backup by `cp -al`, or planted (`files.open_own`).

    Raises
    ------
    OSError
        If the file cannot be written.
    UserError
        If the path is no plain file.
    """
    while True:
        handle = files.open_own(path, os.O_WRONLY | os.O_APPEND, linked=True)
        try:
            alone = _alone(handle)
            if alone and not files.same_file(handle, path):  # another process has just renamed it
                continue
            size, linked = os.fstat(handle).st_size, os.fstat(handle).st_nlink > 1
            if alone and (linked or size > 0 and size + len(content) > MOST):
                os.replace(path, path.with_name(BEFORE))
                continue
            if linked:
                raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), str(path))
            os.write(handle, content[:MOST])
            return
        finally:
            os.close(handle)


def _alone(handle: int) -> bool:
    """Try for a short while to lock an open file; lines are appended even without a lock."""
    end = time.monotonic() + PATIENCE
    while (found := files.try_lock(handle)) is False and time.monotonic() < end:
        time.sleep(PAUSE)
    return bool(found)
