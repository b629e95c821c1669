"""Progress on a terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from cntk_bench.cli import streams
from cntk_bench.text import one_line

SECONDS = 30.0  # between lines that say how far it is


@contextmanager
def bar(title: str, unit: str | None = None) -> Iterator[Callable]:
    """A progress bar on the terminal, nothing elsewhere; gives advance(count, total=, done=, said=)."""
    if not streams.terminal():
        yield lambda count, total=None, done=None, said=None: None
        return
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


def told(advance: Callable) -> Callable[[str], None]:
    """What says words beside a bar, and prints them, too: the first, then some every half a minute."""
    last = -float("inf")

    def tell(words: str) -> None:
        nonlocal last
        advance(0, said=words)
        if time.monotonic() - last >= SECONDS:
            streams.complain(words)
            last = time.monotonic()

    return tell


class _Lasting:
    """A terminal that may be closed while we write to it, as where a run goes on after the log-out."""

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
