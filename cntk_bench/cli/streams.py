"""Standard streams that may be closed, full, broken off, or in an encoding that lacks a character."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cntk_bench.cli import document, logfile
from cntk_bench.text import MOST, one_line, visible

STREAMS = ("stdin", "stdout", "stderr")  # by their file descriptors, 0 to 2
MOST_LOGGED = 1000  # characters of a line that is logged


def prepare() -> None:
    """Make the streams usable.

    A closed one is replaced by the null device: else the next file opened would get its descriptor, and
    all that a library prints. A character that an encoding lacks is printed as its escape.
    """
    for number, name in enumerate(STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper) and number:
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print lines for people, as `put`; nothing if a JSON document is printed instead (`document`)."""
    if not document.asked():
        put(text)


def put(text: str) -> None:
    """Print lines to standard output, escaping what a terminal would act on.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    sys.stdout.write("\n".join(map(visible, text.removesuffix("\n").split("\n"))) + "\n")
    sys.stdout.flush()


def line(name: str, value: object) -> None:
    """Print a value after its name; errors as for `say`."""
    say(f"{name:16} {value}")


def complain(text: str, most: int = MOST) -> None:
    """Warn in one line on standard error, in the run's log and in a document."""
    logfile.note("warning", text)
    _warn(text, most)


def tell(text: str) -> None:
    """Report progress in one line on standard error, and in the run's log."""
    logfile.note("progress", text)
    complain_at_length(one_line(text))


def _warn(text: str, most: int) -> None:
    document.message(one_line(text, most))
    complain_at_length(one_line(text, most))


def complain_at_length(text: str) -> None:
    """Print lines to standard error, ignoring failures to do so."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def drain() -> None:
    """Flush the standard streams, dropping what cannot be written.

    Otherwise Python would try again when it exits, print a traceback, and exit with a code of its own.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
                stream.flush()
        except ValueError:  # it was closed
            pass


def terminal() -> bool:
    """Whether standard error is a terminal, where a progress bar can be seen."""
    with suppress(AttributeError, OSError, ValueError):
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return False


class _Lines(logging.Handler):
    """Prints what is logged, but a warning once per command: each of its stages may log it."""

    warnings: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.WARNING:
            if text in self.warnings:
                return
            self.warnings.add(text)
        _warn(text, MOST_LOGGED)


_lines = _Lines()


@contextmanager
def logged() -> Iterator[None]:
    """Print warnings that are logged while this is open; after `tell_more`, also what is being done."""
    ours = logging.getLogger("cntk_bench")
    level = ours.level
    ours.setLevel(logging.INFO)  # the run's log always has these
    _lines.setLevel(logging.WARNING)
    _lines.warnings = set()
    logging.getLogger().addHandler(_lines)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(_lines)
        ours.setLevel(level)


def tell_more() -> None:
    """Print what is being done, too, as --verbose asks."""
    _lines.setLevel(logging.INFO)
