"""A worker's entries in the log of its run: its start, its errors and its end.

Only workers in other processes than the one that made the job write entries, since that process keeps the log
itself. On a machine that does not see the run's directory nothing is written; errors, and the loss of a
worker, then appear only in the log of the command that gave it tasks.
"""

import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.system import log

Start = Callable[[Any], Callable[[], Future]]
RUN = "config.yaml"  # every run's directory has this file


@contextmanager
def logged(worker: AbstractContextManager[Start], file: Path | None, home: log.Place) -> Iterator[Start]:
    """Enter a worker and log what it does, unless this process is the one that made the job.

    Parameters
    ----------
    worker : context manager
        As returned by a job's `worker`.
    file : Path or None
        The log; with None nothing is logged.
    home : (str, int)
        Host and process in which the job was made.
    """
    if file is None or home == log.place():
        with worker as start:
            yield start
        return
    lines, began = _Lines(file), time.monotonic()
    lines.add("worker begun", f"for {log.named(home)}")
    ours = logging.getLogger("cntk_bench")
    ours.addHandler(lines)
    try:
        with worker as start:
            yield lines.watching(start)
    except BaseException as error:
        lines.failed(error)
        raise
    finally:
        ours.removeHandler(lines)
        lines.add("worker ended", f"{lines.done} tasks done in {time.monotonic() - began:.1f} s")


class _Lines(logging.Handler):
    """Logging handler of one worker; lines that cannot be written are dropped."""

    def __init__(self, file: Path) -> None:
        super().__init__(logging.WARNING)
        self.file, self.done = file, 0
        self._reported: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.add(record.levelname.lower(), self.format(record))

    def add(self, kind: str, text: str, more: Sequence[str] = ()) -> None:
        if os.path.exists(self.file.with_name(RUN)):
            with suppress(OSError, UserError):
                log.append(self.file, log.lines(kind, text, more))

    def failed(self, error: BaseException, task: Any = None) -> None:
        """Log an error once, however often it is seen while it propagates; with traceback if no UserError."""
        if error in self._reported or isinstance(error, GeneratorExit):
            return
        self._reported.append(error)
        if isinstance(error, EOFError | ConnectionError):
            self.add("error", "the process that it works for has gone")
            return
        of = "" if task is None else f"{task}: "
        lines = [] if isinstance(error, UserError) else traceback.format_exception(error)
        self.add("error", f"{of}{type(error).__name__}: {error}", "".join(lines).splitlines())

    def watching(self, start: Start) -> Start:
        """Wrap `start` to count the tasks done and log their errors."""

        def watched(task: Any) -> Callable[[], Future]:
            end = self._tried(task, lambda: start(task))

            def ended() -> Future:
                rest = self._tried(task, end)
                rest.add_done_callback(lambda stored: self._settled(task, stored))
                return rest

            return ended

        return watched

    def _tried(self, task: Any, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except Exception as error:
            self.failed(error, task)
            raise

    def _settled(self, task: Any, stored: Future) -> None:
        if stored.cancelled() or (error := stored.exception()) is None:
            self.done += not stored.cancelled()
        else:
            self.failed(error, task)
