"""Signals that ask the program to end: Ctrl-C's, and those that terminals and schedulers send.

The command line, which owns its process, lets each of them raise `Interrupted` (`handled`). Code that
must not be stopped half way holds them back for a while (`noted`). If the package is used from Python,
nothing is changed except that `noted` holds back Ctrl-C.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2")
SIGNALS = tuple(getattr(signal, name) for name in NAMES)
# Seconds in which a repeated signal counts as the same request: `timeout` and `uv run` pass on signals
# that the whole process group gets anyway, and SIGXCPU comes every second. But a second Ctrl-C is meant.
PATIENCE: dict[int, float] = {signal.SIGINT: 1.0}
OTHERS_PATIENCE = 10.0

_asked = -float("inf")  # when the program was asked to end, by time.monotonic


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end.

    Parameters
    ----------
    signum : int
        Number of the signal; by the convention of shells, the exit code is 128 more.
    """

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextmanager
def handled() -> Iterator[None]:
    """Let each of `SIGNALS` raise `Interrupted` in the main thread, in this context.

    Ignored signals stay ignored (nohup, background jobs), and other handlers stay in place. Where an
    exception cannot propagate (for example while a weak reference is cleared), Python would only
    print it; the signal is then delivered again.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers can be set only there
        yield
        return
    free = (signal.SIG_DFL, signal.default_int_handler)
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    ours = [signum for signum, handler in before.items() if handler in free]
    hook = sys.unraisablehook

    def lost(unraisable: "sys.UnraisableHookArgs") -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            _again(getattr(unraisable.exc_value, "signum", signal.SIGINT))
        else:
            hook(unraisable)

    sys.unraisablehook = lost
    try:
        for signum in ours:
            signal.signal(signum, _raise)
        yield
    finally:
        for signum in ours:
            signal.signal(signum, before[signum])
        sys.unraisablehook = hook


@contextmanager
def noted() -> Iterator[threading.Event]:
    """Hold the first signal back until the end of this context, so that no work is stopped half way.

    Yields an event that the signal sets. At the end the signal is raised, unless another error is. A
    second signal is raised at once, unless it is the same request. Signals that we do not handle are
    left alone: outside `handled`, all but a SIGINT with Python's own handler; in other threads, all.
    """
    event = threading.Event()
    first: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    usual = {}
    for signum in SIGNALS:
        handler = signal.getsignal(signum)
        if handler is _raise or (signum == signal.SIGINT and handler is signal.default_int_handler):
            usual[signum] = handler
    holding = True

    def note(signum: int, frame: FrameType | None) -> None:
        if first or not holding:
            usual[signum](signum, frame)
            return
        first.append(signum)
        _remember()
        event.set()

    try:
        for signum in usual:
            signal.signal(signum, note)
        yield event
    finally:
        holding = False
        for signum, handler in usual.items():
            signal.signal(signum, handler)
    if first:
        raise Interrupted(first[0]) if usual[first[0]] is _raise else KeyboardInterrupt


@contextmanager
def blocked() -> Iterator[None]:
    """Block `SIGNALS` for this thread in this context; they are delivered at its end.

    Threads and processes started meanwhile, and those that these start, have them blocked for good: a
    terminal's Ctrl-C, which goes to the whole process group, does not stop them half way.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(code: int) -> None:
    """Let signals end the process at once with this exit code, while Python shuts down.

    For a program's last moment; handlers that are neither `handled`'s nor Python's own stay in place.
    """
    for signum in SIGNALS:
        if signal.getsignal(signum) in (_raise, signal.SIG_DFL, signal.default_int_handler):
            signal.signal(signum, lambda *_: os._exit(code))


def _raise(signum: int, _frame: FrameType | None) -> None:
    if time.monotonic() - _asked >= PATIENCE.get(signum, OTHERS_PATIENCE):
        _remember()
        raise Interrupted(signum)


def _remember() -> None:
    global _asked
    _asked = time.monotonic()


def _again(signum: int) -> None:
    global _asked
    _asked = -float("inf")
    resend = threading.Timer(0.02, os.kill, (os.getpid(), signum))
    resend.daemon = True
    resend.start()
