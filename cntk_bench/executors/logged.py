"""What a worker writes into the log of the run that it works for: its beginning, its errors, its end.

Only one that is in another process than the job was made in: what happens in that one is in its log already.
On a machine that does not see the run's directory nothing is written; errors come back to the command that
hears of every worker's loss, and are in its log.
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
RUN = "config.yaml"  # which every run's directory has


@contextmanager
def logged(worker: AbstractContextManager[Start], file: Path | None, home: log.Place) -> Iterator[Start]:
    """The worker, who is logged unless the process is the job's own.

    Parameters
    ----------
    worker : context manager
        As a job's `worker` gives it.
    file : Path or None
        The log; with None nothing is logged.
    home : (str, int)
        Where the job was made.
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
    """Lines of one worker; where they cannot be written, it works on without."""

    def __init__(self, file: Path) -> None:
        super().__init__(logging.WARNING)
        self.file, self.done = file, 0
        self._told: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.add(record.levelname.lower(), self.format(record))

    def add(self, kind: str, text: str, more: Sequence[str] = ()) -> None:
        if os.path.exists(self.file.with_name(RUN)):
            with suppress(OSError, UserError):
                log.append(self.file, log.lines(kind, text, more))

    def failed(self, error: BaseException, task: Any = None) -> None:
        """Log an error, once on its way; of one that nobody foresaw, where it arose, too."""
        if error in self._told or isinstance(error, GeneratorExit):
            return
        self._told.append(error)
        if isinstance(error, EOFError | ConnectionError):
            self.add("error", "the process that it works for has gone")
            return
        of = "" if task is None else f"{task}: "
        lines = [] if isinstance(error, UserError) else traceback.format_exception(error)
        self.add("error", f"{of}{type(error).__name__}: {error}", "".join(lines).splitlines())

    def watching(self, start: Start) -> Start:
        """`start`, whose tasks are counted, and their errors logged."""

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
