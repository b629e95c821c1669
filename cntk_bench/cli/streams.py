"""Standard streams as they come: closed, full, broken off, or in an encoding that lacks a character."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cntk_bench.text import MOST, one_line, visible

STREAMS = ("stdin", "stdout", "stderr")  # by their file descriptors, 0 to 2
MOST_LOGGED = 1000  # characters of a line that is logged


def prepare() -> None:
    """Make the streams usable.

    A closed one becomes the null device: else the next file opened would get its descriptor, and all
    that a library prints. A character that an encoding lacks is shown as its escape.
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
    """Print lines to standard output, with what a terminal would obey as escapes.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    sys.stdout.write("\n".join(map(visible, text.removesuffix("\n").split("\n"))) + "\n")
    sys.stdout.flush()


def complain(text: str, most: int = MOST) -> None:
    """Print one line to standard error, if it takes it."""
    complain_at_length(one_line(text, most))


def complain_at_length(text: str) -> None:
    """Print lines of our own to standard error, if it takes them."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def drain() -> None:
    """Write what is still to be written, and drop what cannot be.

    Python would try again when it exits, print a traceback, and exit with a code of its own.
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
    def emit(self, record: logging.LogRecord) -> None:
        complain(self.format(record), MOST_LOGGED)


@contextmanager
def logged() -> Iterator[None]:
    """Print what is logged, until the end: warnings of everything, and of this package what was asked for."""
    lines, ours = _Lines(), logging.getLogger("cntk_bench")
    level = ours.level
    logging.getLogger().addHandler(lines)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(lines)
        ours.setLevel(level)
