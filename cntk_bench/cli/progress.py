"""Progress: a bar on a terminal; elsewhere, as in a batch job's output, lines at growing intervals."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, TextIO, cast

from cntk_bench.cli import logfile, streams, units
from cntk_bench.text import one_line

SECONDS = 30.0  # least time between two lines of progress
PAUSE = "CNTK_BENCH_PROGRESS_SECONDS"  # environment variable to replace SECONDS; inf for no lines
SHARE = 0.05  # least time between two lines, as a share of the time passed


@contextmanager
def bar(title: str, unit: str | None = None) -> Iterator[Callable]:
    """Show a stage's progress, log its beginning and end; yields advance(count, total=, done=, said=)."""
    began = time.monotonic()
    logfile.note("begun", title)
    try:
        with (
            _shown(title, unit) if streams.terminal() else nullcontext(_Lines(title, unit).advance) as advance
        ):
            yield advance
    except BaseException as error:
        logfile.note("stopped", f"{title} after {time.monotonic() - began:.1f} s by {type(error).__name__}")
        raise
    logfile.note("done", f"{title} in {time.monotonic() - began:.1f} s")


class _Lines:
    """Progress as lines on standard error: amount done, pace, and the time left at that pace."""

    def __init__(self, title: str, unit: str | None) -> None:
        self.title, self.unit = title, f" {unit}" if unit else ""
        self.total, self.now = 0, 0
        self.first: int | None = None  # done before the stage began
        self.began = self.last = time.monotonic()
        self.pause = SECONDS
        with suppress(ValueError):  # not a number
            self.pause = float(os.environ.get(PAUSE, SECONDS))

    def advance(
        self, count: int, total: int | None = None, done: int | None = None, said: str | None = None
    ) -> None:
        self.total = self.total if total is None else total
        self.now = count + (self.now if done is None else done)
        self.first = self.now - count if self.first is None else self.first
        passed = time.monotonic() - self.began
        if time.monotonic() - self.last >= max(self.pause, SHARE * passed):
            self.last = time.monotonic()
            self._tell((self.now - self.first) / passed if passed else 0)

    def _tell(self, rate: float) -> None:
        whole = f" of {self.total:,}" if self.total else ""
        pace = f", {rate:,.0f}{self.unit}/s" if self.unit and rate else ""
        left = (self.total - self.now) / rate if rate else 0
        time_left = f", about {units.duration(left)} left" if left > 0 else ""
        streams.tell(f"{self.title}: {self.now:,}{whole}{self.unit}{pace}{time_left}")


@contextmanager
def _shown(title: str, unit: str | None) -> Iterator[Callable]:
    """A bar on the terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    said_last = TextColumn("{task.fields[said]}", markup=False)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn(), said_last)
    console = Console(file=cast(TextIO, _Lasting(sys.stderr)), force_terminal=True)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None, rate="", said="")

        def advance(
            count: int, total: int | None = None, done: int | None = None, said: str | None = None
        ) -> None:
            if said is not None:
                progress.update(task, said=one_line(said, 100))
            if total is not None:
                progress.update(task, total=total, completed=done)
            progress.advance(task, count)
            speed = progress.tasks[0].speed
            if unit and speed:
                progress.update(task, rate=f"{speed:,.0f} {unit}/s")

        yield advance


def reporter(advance: Callable) -> Callable[[str], None]:
    """Return what shows words beside a bar, and prints them as well, at most every half minute."""
    last = -float("inf")

    def tell(words: str) -> None:
        nonlocal last
        advance(0, said=words)
        if time.monotonic() - last >= SECONDS:
            streams.tell(words)
            last = time.monotonic()

    return tell


class _Lasting:
    """A terminal that may be closed while we write to it, as when a run goes on after log-out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:  # encoding, isatty, fileno
        return getattr(self._stream, name)
