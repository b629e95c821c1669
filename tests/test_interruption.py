"""Signals that ask the program to end: when they raise, when they are held back or left alone."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from cntk_bench.system import interruption
from cntk_bench.system.interruption import SIGNALS, Interrupted, handled, noted

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def usual(monkeypatch):
    """All signals as in a new process, even if tests run in the background; none has asked to end yet."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(interruption, "_asked", -float("inf"))
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def dispositions():
    return {signum: signal.getsignal(signum) for signum in SIGNALS}


def test_a_script_that_goes_on_after_the_program_has_its_own_signals():
    """`main` restores the caller's signals; after `console`, a signal would only end the process."""
    code = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {str(REPOSITORY)!r})
sys.argv = ["cntk-bench", "--version"]
from cntk_bench.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("theirs")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.endswith("theirs\n"), done.stderr


@pytest.mark.parametrize("signum", SIGNALS)
def test_each_is_raised_and_everything_is_as_it_was_afterwards(signum):
    before, hook = dispositions(), sys.unraisablehook
    with pytest.raises(Interrupted) as caught:
        with handled():
            signal.raise_signal(signum)
    assert caught.value.signum == signum and str(caught.value) == signal.Signals(signum).name
    assert isinstance(caught.value, KeyboardInterrupt)
    assert dispositions() == before and sys.unraisablehook is hook


def test_ignored_and_foreign_signals_are_left_alone():
    heard = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    signal.signal(signal.SIGUSR1, lambda *_: heard.append("theirs"))
    with handled(), noted() as event:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGUSR1)
        assert not event.is_set()
    assert heard == ["theirs"] and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_the_same_request_again_does_not_disturb_the_tidying_up(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tidied = []
    with pytest.raises(Interrupted):
        with handled():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                now = 0.9
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGINT)
                tidied.append(True)
                now = 1.1
                with pytest.raises(Interrupted):  # someone who presses Ctrl-C again means it
                    signal.raise_signal(signal.SIGINT)
                now = 11.2
                with pytest.raises(Interrupted):
                    signal.raise_signal(signal.SIGTERM)
    assert tidied


@pytest.mark.parametrize("signum", SIGNALS)
def test_noted_holds_each_back_until_the_end(signum):
    reached = False
    with handled():
        with pytest.raises(Interrupted) as caught:
            with noted() as event:
                signal.raise_signal(signum)
                reached = event.is_set()
        assert reached and caught.value.signum == signum
        assert all(signal.getsignal(other) is interruption._raise for other in SIGNALS)


def test_noted_in_the_process_of_others_holds_back_ctrl_c_alone():
    before = dispositions()
    with pytest.raises(KeyboardInterrupt) as caught:
        with noted() as event:
            found = dispositions()
            signal.raise_signal(signal.SIGINT)
            assert event.is_set()
    assert type(caught.value) is KeyboardInterrupt
    assert dispositions() == before
    assert [signum for signum in SIGNALS if found[signum] != before[signum]] == [signal.SIGINT]


def test_a_second_ctrl_c_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt):
        with noted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it went on")


def test_another_error_comes_before_the_signal():
    with handled(), pytest.raises(ZeroDivisionError):
        with noted():
            signal.raise_signal(signal.SIGTERM)
            1 / 0  # noqa: B018


def test_other_threads_change_nothing():
    before, found = dispositions(), []

    def work():
        with handled(), noted() as event:
            found.append((dispositions(), event.is_set()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(before, False)]


def test_what_python_could_only_print_is_delivered_again(capfd):
    class Thing:
        pass

    def cleared(_):
        signal.raise_signal(signal.SIGTERM)
        for _ in range(1000):  # the handler runs here, where no exception can be raised
            pass

    with pytest.raises(Interrupted):
        with handled():
            thing = Thing()
            reference = weakref.ref(thing, cleared)
            del thing
            gc.collect()
            assert reference() is None
            end = time.monotonic() + 30
            while time.monotonic() < end:
                time.sleep(0.01)
    assert "Traceback" not in capfd.readouterr().err


# A signal at every stage of a process: just before some module is looked for, the program sends the
# signal to itself, once.
STAGES = """
import os, signal, sys

class Finder:
    seen = 0

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        cls.seen += 1
        if cls.seen == {number}:
            os.kill(os.getpid(), {signum})

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {repository!r})
sys.argv = ["cntk-bench", *{arguments!r}]
from cntk_bench.cli import console
sys.meta_path.insert(0, Finder)
if {number} < 0:
    import atexit
    atexit.register(os.kill, os.getpid(), {signum})
console()
"""


def at(number, signum, *arguments):
    code = STAGES.format(number=number, signum=int(signum), repository=str(REPOSITORY), arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("number", [1, 2, 5, 10, 20, 40, 80, 120, 200, 400, 700, 1000])
def test_ctrl_c_while_the_program_starts_is_one_line(number):
    done = at(number, signal.SIGINT, "info")
    assert (done.returncode, done.stderr) in ((130, "interrupted\n"), (0, "")), done.stderr
    assert number > 200 or done.returncode == 130


@pytest.mark.parametrize("number", [40, 100])  # earlier, it simply ends: there is nothing to tidy up
def test_sigterm_while_the_program_starts_is_one_line(number):
    done = at(number, signal.SIGTERM, "info")
    assert (done.returncode, done.stderr) == (143, "ended by SIGTERM\n")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("arguments", "code"), [(("--version",), 0), (("frob",), 2)])
def test_a_signal_while_the_program_ends_changes_nothing(signum, arguments, code):
    done = at(-1, signum, *arguments)
    assert done.returncode == code and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (code != 0)


def test_importing_the_package_changes_no_signal():
    code = (
        "import signal; before = [signal.getsignal(n) for n in signal.valid_signals()]\n"
        "import cntk_bench, cntk_bench.cli, cntk_bench.cli.program\n"
        "import cntk_bench.runs.compute, cntk_bench.runs.solve\n"
        "assert before == [signal.getsignal(n) for n in signal.valid_signals()]"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
