"""What the user is told about each way of ending, in one line, and its exit code."""

import errno
import traceback

import click

from cntk_bench.cli import streams
from cntk_bench.errors import Mistakes, UserError
from cntk_bench.system import paths
from cntk_bench.system.interruption import Interrupted
from cntk_bench.text import one_line, short

BROKEN_PIPE = 128 + 13  # as a shell reports a program that SIGPIPE ended
EXIT_CODES = {
    "0": "success",
    "1": "a verification failed",
    "2": "an error (see its message), or a result not to be trusted",
    "130": "interrupted by Ctrl-C; finished tiles are kept",
    "128 + n": "ended by signal n, such as 143 for SIGTERM; finished tiles are kept",
    "141": "the output was closed by its reader (as in `| head`)",
}
_THREADS = (
    "the system lets you start no more threads or processes: end other programs, raise the limit "
    "(ulimit -u), or set OMP_NUM_THREADS=1 and NUMBA_NUM_THREADS=1"
)
_MEMORY = (
    "out of memory: use fewer images (--set dataset.train=...) or smaller tiles (--set compute.tile=...), "
    "or raise the limit (ulimit -v)"
)
_FILES = "too many open files: close other programs, or raise the limit (ulimit -n)"
_BY_NUMBER = {
    errno.ENOMEM: _MEMORY,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.EAGAIN: _THREADS,
}


def message_and_code(error: BaseException) -> tuple[str | None, int]:
    """Return the message for an exception that ended a command (None if none is needed) and the exit code.

    The message is one line, except that several mistakes have a line each.
    """
    if isinstance(error, Mistakes):
        return f"error: {error}", error.exit_code
    message, code = _message_and_code(error)
    return None if message is None else one_line(message), code


def _message_and_code(error: BaseException) -> tuple[str | None, int]:
    if isinstance(error, click.exceptions.Exit):
        return None, error.exit_code
    if isinstance(error, click.ClickException):  # bad usage
        return f"error: {error.format_message()} See --help.", error.exit_code
    if isinstance(error, click.Abort | EOFError):
        return "interrupted", 130
    if isinstance(error, UserError):
        return f"error: {_reason(error)}", error.exit_code
    if stopped := _interruption(error):
        return _stopped(stopped)
    if isinstance(error, OSError) and _while_printing(error):
        if isinstance(error, BrokenPipeError):
            return None, BROKEN_PIPE
        return f"error: cannot write to standard output ({_reason(error)}): send it somewhere else", 2
    return f"error: {_unforeseen(error)}", 2


def _while_printing(error: BaseException) -> bool:
    """Whether an error was raised while printing to standard output, by our function or click's."""
    printers = (streams.put.__code__, click.echo.__code__)
    return any(frame.f_code in printers for frame, _ in traceback.walk_tb(error.__traceback__))


def _interruption(error: BaseException | None) -> BaseException | None:
    """Return the KeyboardInterrupt that an exception is or stems from: libraries may wrap it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, KeyboardInterrupt):
            return error
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


def _stopped(stopped: BaseException) -> tuple[str, int]:
    advice = getattr(stopped, "__notes__", [])
    if isinstance(stopped, Interrupted) and str(stopped) != "SIGINT":
        return ": ".join((f"ended by {stopped}", *advice)), 128 + stopped.signum
    return ": ".join(("interrupted", *advice)), 130


def _unforeseen(error: BaseException) -> str:
    reason = _reason(error)
    if isinstance(error, MemoryError) or "failed to map segment" in reason or "allocate memory" in reason:
        return _MEMORY
    if isinstance(error, OSError):
        if error.errno in _BY_NUMBER:
            return _BY_NUMBER[error.errno]
        if isinstance(error, FileNotFoundError) and paths.current() is None:
            return "the current folder was removed: cd to one that is there, and run the same command again"
        if error.filename is not None:
            return f"{short(_text(error.filename), 120)}: {reason}: use another path, or mend that"
        return f"{reason}: mend that, and run the same command again"
    if isinstance(error, RuntimeError) and "start new thread" in reason:
        return _THREADS
    if isinstance(error, ImportError):
        library = short(error.name or "a library")
        return f"cannot import {library} ({short(reason, 120)}): install cntk-bench again"
    if isinstance(error, UnicodeEncodeError):
        return (
            f"{short(error.object)} cannot be written in this locale's encoding ({error.encoding}): "
            "set LC_ALL=C.UTF-8, or use another name"
        )
    kind = type(error).__name__
    return f"{kind}: {short(reason, 150)}: this is a fault of cntk-bench; see --debug, and report it"


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text if text.strip() not in ("", "None") else type(error).__name__


def _text(name: object) -> str:
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)
