"""The log that a command writes into its run (`system.log`): its arguments, what happened, how it ended.

If it cannot be written, the run goes on without it. Commands that only inspect a run write none.
"""

import logging
import os
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock

from cntk_bench.errors import UserError
from cntk_bench.system import log, paths

WAITING = 1000  # most lines that wait for the run's directory


class _Log(logging.Handler):
    """A command's log lines; they wait until the folder is a run's, and are dropped if it never is."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(logging.INFO)
        self.arguments, self.folder, self.started = arguments, Path(), time.monotonic()
        self.writing = RLock()  # reentrant: a signal may be logged while a line is written
        self.begun, self.waiting = False, deque[bytes](maxlen=WAITING)

    def emit(self, record: logging.LogRecord) -> None:
        self.line(record.levelname.lower(), self.format(record))

    def line(self, kind: str, text: str, more: Sequence[str] = ()) -> None:
        """Append a line, and `more` lines that belong to it."""
        with self.writing:
            self.waiting.append(log.lines(kind, text, more))
            self.write()

    def write(self) -> None:
        """Write the waiting lines, if the folder is a run's by now."""
        with self.writing:
            runs = (self.folder / own for own in ("record.json", "converge"))
            if self.waiting and self.begun and any(map(os.path.exists, runs)):
                with suppress(OSError, UserError):
                    log.append(self.folder / log.NAME, b"".join(self.waiting))
                self.waiting.clear()


_open: _Log | None = None


@contextmanager
def kept(arguments: Sequence[str]) -> Iterator[None]:
    """Collect a command's log lines until its end."""
    global _open
    before, _open = _open, (lines := _Log(arguments))
    logging.getLogger().addHandler(lines)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(lines)
        _open = before


def begin(run: Path) -> None:
    """Log into a run's directory from now on, beginning with the command line."""
    if _open is None or _open.begun:
        return
    import shlex

    from cntk_bench.records import provenance

    _open.folder, _open.begun = run, True
    asked = shlex.join(["cntk-bench", *_open.arguments])
    commit = provenance.commit()
    version = f"version {provenance.__version__}" + (f", commit {commit}" if commit else "")
    _open.line("asked", f"{asked}; {version}; in {paths.current() or 'a folder that was removed'}")


def catch_up() -> None:
    """Write the waiting lines, now that the directory is a run's, before workers write theirs."""
    if _open is not None:
        _open.write()


def note(kind: str, text: str) -> None:
    """Log a line, if a log is kept."""
    if _open is not None:
        _open.line(kind, text)


def end(code: int, message: str | None = None, error: BaseException | None = None) -> None:
    """Log how the command ended; for an unforeseen error, with its traceback."""
    if _open is None:
        return
    if message is not None:
        known = isinstance(error, UserError | KeyboardInterrupt) or error is None
        lines = [] if known else "".join(traceback.format_exception(error)).splitlines()
        _open.line("error", message.removeprefix("error: "), lines)  # the kind says it already
    _open.line("ended", f"exit code {code} after {time.monotonic() - _open.started:.1f} s")
