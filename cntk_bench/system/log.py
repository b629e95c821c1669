"""RUN/log.txt, to which all processes that work on a run append: whole lines, bounded, and no secret in them.

    2026-11-28T15:08:29.123Z process 4711 on machine: begun: computing

A line, or some that belong together, is appended by one call of the system, so that those of several
processes do not mix; a lock on the file makes that hold on network file systems, too, where several machines
append. A file of `MOST` bytes becomes log.1.txt, in the place of the one before.
"""

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cntk_bench.system import files
from cntk_bench.text import one_line, redacted

NAME, BEFORE = "log.txt", "log.1.txt"
MOST = 2**22  # bytes of a file
LONGEST = 2000  # characters of a line
PATIENCE = 0.5  # seconds to wait for others who append; a line is worth no more
PAUSE = 0.002

Place = tuple[str, int]


def place() -> Place:
    """The machine, and the number of this process on it."""
    return os.uname().nodename, os.getpid()


def named(where: Place) -> str:
    """A place in words."""
    return f"process {where[1]} on {where[0]}"


def lines(kind: str, text: str, more: Sequence[str] = ()) -> bytes:
    """A line of this process, and `more` lines that belong to it; what may be a secret is left out."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    first, *others = [one_line(redacted(one_line(each, 5 * LONGEST)), LONGEST) for each in (text, *more)]
    head = f"{now} {named(place())}:"
    said = [f"{head} {kind}: {first}", *(f"{head}   {each}" for each in others)]
    return "".join(f"{each}\n" for each in said).encode("utf-8", "backslashreplace")


def append(path: Path, content: bytes) -> None:
    """Append lines by one call; a file that is full makes place first.

    Raises
    ------
    OSError
        If it cannot be written.
    UserError
        If the path is no plain file.
    """
    while True:
        handle = files.open_own(path, os.O_WRONLY | os.O_APPEND)
        try:
            alone = _alone(handle)
            if alone and not files.same_file(handle, path):  # another process has just put it away
                continue
            size = os.fstat(handle).st_size
            if alone and size > 0 and size + len(content) > MOST:
                os.replace(path, path.with_name(BEFORE))
                continue
            os.write(handle, content[:MOST])
            return
        finally:
            os.close(handle)


def _alone(handle: int) -> bool:
    """Lock an open file, if that can be had soon; without, lines are appended all the same."""
    end = time.monotonic() + PATIENCE
    while (found := files.attempt(handle)) is False and time.monotonic() < end:
        time.sleep(PAUSE)
    return bool(found)
