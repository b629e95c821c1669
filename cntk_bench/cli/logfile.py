"""What a command writes into the log of its run (`system.log`): what was asked, what happened, how it ended.

Where nothing can be written, the run goes on without. What only looks at a run writes nothing.
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

WAITING = 1000  # lines that wait for the run's directory


class _Log(logging.Handler):
    """Lines of one command; they wait until the directory is a run's, and are dropped if it never is."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(logging.INFO)
        self.arguments, self.folder, self.started = arguments, Path(), time.monotonic()
        self.writing = RLock()  # again where a signal is told of while a line is written
        self.begun, self.waiting = False, deque[bytes](maxlen=WAITING)

    def emit(self, record: logging.LogRecord) -> None:
        self.line(record.levelname.lower(), self.format(record))

    def line(self, kind: str, text: str, more: Sequence[str] = ()) -> None:
        """Append a line, and `more` lines that belong to it."""
        with self.writing:
            self.waiting.append(log.lines(kind, text, more))
            self.write()

    def write(self) -> None:
        """Write what waits, if the directory is a run's by now."""
        with self.writing:
            runs = (self.folder / own for own in ("config.yaml", "converge"))
            if self.waiting and self.begun and any(map(os.path.exists, runs)):
                with suppress(OSError, UserError):
                    log.append(self.folder / log.NAME, b"".join(self.waiting))
                self.waiting.clear()


_open: _Log | None = None


@contextmanager
def kept(arguments: Sequence[str]) -> Iterator[None]:
    """Keep what is logged of a command, until its end."""
    global _open
    before, _open = _open, (lines := _Log(arguments))
    logging.getLogger().addHandler(lines)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(lines)
        _open = before


def begin(run: Path) -> None:
    """Log into a run's directory from now on, what was asked first."""
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
    """Write what has waited for the directory to become a run's, before workers write their lines."""
    if _open is not None:
        _open.write()


def note(kind: str, text: str) -> None:
    """Log a line, if a log is kept."""
    if _open is not None:
        _open.line(kind, text)


def end(code: int, message: str | None = None, error: BaseException | None = None) -> None:
    """Log how the command ended; of an error that nobody foresaw, where it came from, too."""
    if _open is None:
        return
    if message is not None:
        known = isinstance(error, UserError | KeyboardInterrupt) or error is None
        lines = [] if known else "".join(traceback.format_exception(error)).splitlines()
        _open.line("error", message, lines)
    _open.line("ended", f"exit code {code} after {time.monotonic() - _open.started:.1f} s")
