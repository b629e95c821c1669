"""Every way in which commands can end (docs/reference/exit-codes.md): subclass `Endings` and list them.

All run in this one process, which has compiled and imported everything. What needs a process of its own is
tested in test_streams.py and test_interruption.py.
"""

import errno
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_cli import Done, call
from test_document import HEAD

from cntk_bench.cli import main, program
from cntk_bench.system import interruption

CONFIG = """
name: tiny
dataset: {train: 20, test: 10}
kernel: {columns: [FC-NTK, FC-NNGP], depths: [2]}
compute: {tile: 16, backend: cpu}
"""
TRAINED = """
extends: tiny.yaml
dataset: {train: 8, test: 4}
kernel: {columns: [CNN-GAP], depths: [3]}
network: {width: 4, rates: [5], trials: 1, batch: 4, epochs: 1, epochs_after: 1}
converge: {kinds: [FC], depths: [2], widths: [2, 4], seeds: 2, trained: 0, images: 3, steps: 0, iterations: 0}
"""
PAGE = Path(__file__).parents[1] / "docs" / "command-line.md"


@dataclass(frozen=True)
class Case:
    """A command.

    right : arguments with which it succeeds.
    wrong : lists of arguments with which it fails.
    writes : whether it fails where no file can grow.
    sometimes : documented keys of its JSON document that are absent with these arguments.
    """

    right: tuple[str, ...]
    wrong: tuple[tuple[str, ...], ...]
    writes: bool = False
    sometimes: frozenset[str] = frozenset()


def documented(name):
    """The keys that docs/command-line.md lists for a command's document, those common to all included."""
    rows = [line.split("|")[1:-1] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    common = {re.findall("`(.+)`", row[0])[0] for row in rows if len(row) == 2}
    assert common == HEAD
    return common.union(*(re.findall("`([^`]+)`", row[1]) for row in rows if row[0].strip() == f"`{name}`"))


def told(done, code):
    """The single line on standard error of a command, which must have ended with this code."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr and "fault of cntk-bench" not in done.stderr, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and len(lines[0]) <= 301 and lines[0].isprintable(), done.stderr
    return lines[0]


class Raiser:
    """Raises a signal here at the n-th call of a function of the package below the command line."""

    APART = "/cli/", "/interruption.py"

    def __init__(self, number, signum):
        self.left, self.signum = number, signum

    def __call__(self, frame, event, _argument):
        where = frame.f_code.co_filename
        if event == "call" and "/cntk_bench/" in where and not any(one in where for one in self.APART):
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(self.signum)


class Broken(io.StringIO):
    """A standard output on which every write fails with a given errno."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, _text):
        raise OSError(self.number, os.strerror(self.number))


@contextmanager
def full_disk():
    """While this lasts, no file of this process can grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Endings:
    """The tests; `CASES` maps each command's name to its `Case`."""

    CASES: dict[str, Case]

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, tmp_path_factory):
        """A folder with configs, a computed run, and a solved run."""
        folder = tmp_path_factory.mktemp("made")
        (folder / "tiny.yaml").write_text(CONFIG)
        (folder / "trained.yaml").write_text(TRAINED)
        assert call("compute", folder / "tiny.yaml", "-o", folder / "computed").returncode == 0
        shutil.copytree(folder / "computed", folder / "run")
        assert call("solve", folder / "run").returncode == 0
        return folder

    @pytest.fixture
    def there(self, made, tmp_path, monkeypatch):
        """A copy of that folder to work in; placeholders are written instead of drawing figures."""
        from cntk_bench.report import style

        copy = shutil.copytree(made, tmp_path / "there")
        monkeypatch.chdir(copy)
        monkeypatch.setattr(style, "image", lambda figure, kind: b"a figure")
        return copy

    @pytest.fixture
    def usual(self, monkeypatch):
        """Signal handlers as in a new process that has not received any signal."""
        monkeypatch.setattr(interruption, "_asked", -float("inf"))
        before = {signum: signal.getsignal(signum) for signum in interruption.SIGNALS}
        for signum in before:
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        for signum, handler in before.items():
            signal.signal(signum, handler)

    def pytest_generate_tests(self, metafunc):
        if "wrong" in metafunc.fixturenames:
            pairs = [(name, wrong) for name, case in self.CASES.items() for wrong in case.wrong]
            metafunc.parametrize(("name", "wrong"), pairs, ids=[" ".join((n, *w)) for n, w in pairs])
        elif "name" in metafunc.fixturenames:
            full = "full_disk" in metafunc.function.__name__
            metafunc.parametrize("name", [n for n, case in self.CASES.items() if case.writes or not full])

    def words(self, name):
        return name, *self.CASES[name].right

    def test_0_and_one_document(self, there, name):
        """Success: one JSON document, whose keys are those that the page lists, and no other line."""
        done = call(*self.words(name), "--json")
        assert (done.returncode, done.stderr) == (0, "")
        found = json.loads(done.stdout, parse_constant=pytest.fail)
        assert found["exit_code"] == 0 and found["error"] is None and found["command"] == name
        assert set(found) <= documented(name)
        assert documented(name) - set(found) <= self.CASES[name].sometimes

    def test_2_something_to_mend(self, there, name, wrong):
        """An error to mend: one line, also in the document, with the same code; nothing is written."""
        before = sorted(there.rglob("*"))
        line = told(call(name, *wrong), 2)
        assert line.startswith("error: ") and sorted(there.rglob("*")) == before
        done = call(name, *wrong, "--json")
        found = json.loads(done.stdout)
        assert (done.returncode, found["exit_code"], found["error"]) == (2, 2, line.removeprefix("error: "))

    @pytest.mark.parametrize(("signum", "number"), [(signal.SIGINT, 1), (signal.SIGTERM, 30)])
    def test_130_and_143_interrupted(self, there, usual, monkeypatch, name, signum, number):
        """Interrupted at the very beginning or in the middle: one line."""
        raiser, out, err = Raiser(number, signum), io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["cntk-bench", *self.words(name)])
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            sys.setprofile(raiser)
            try:
                main()
            finally:
                sys.setprofile(None)
        assert raiser.left <= 0 or number > 1, "the command ended before the signal was sent"
        if raiser.left <= 0:
            line = told(Done(ended.value.code, "", err.getvalue()), 128 + signum)
            assert line.startswith(("interrupted", "ended by SIGTERM")[signum == signal.SIGTERM])

    @pytest.mark.parametrize(
        ("number", "code", "more"), [(errno.EPIPE, 141, ()), (errno.ENOSPC, 2, ("--json",))]
    )
    def test_output_that_nobody_takes(self, there, name, number, code, more):
        """141 and no message where the reader has gone; 2 and one line where the output cannot be written."""
        err = io.StringIO()
        with redirect_stdout(Broken(number)), redirect_stderr(err):
            found = program.call([*self.words(name), *more])
        if code == 141:
            assert (found, err.getvalue()) == (141, "")
        else:
            assert "cannot write to standard output" in told(Done(found, "", err.getvalue()), code)

    def test_a_full_disk(self, there, name):
        """2 and one line with the reason and the remedy; with space again, the same command succeeds."""
        with full_disk():
            line = told(call(*self.words(name)), 2)
        assert "File too large" in line and "free some" in line
        assert call(*self.words(name)).returncode == 0
