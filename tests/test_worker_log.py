"""What workers in other processes write to the log of their run."""

import logging
import os
import re
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from cntk_bench.errors import UserError
from cntk_bench.executors import worker_log
from cntk_bench.system import log

ELSEWHERE = ("other-machine", 1)
HEAD = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ process (\d+) on (\S+): (.*)")


def stored(error=None):
    found = Future()
    found.set_exception(error) if error else found.set_result(None)
    return found


@contextmanager
def worker(raised=None, at="start"):
    """A worker whose task "bad" fails when it is begun, computed or stored; or that cannot begin at all."""
    if at == "enter":
        raise raised

    def start(task):
        def fails(when):
            if task == "bad" and at == when:
                raise raised

        def end():
            fails("end")
            return stored(raised if task == "bad" and at == "store" else None)

        fails("start")
        return end

    yield start


@pytest.fixture
def file(tmp_path):
    (tmp_path / "config.yaml").touch()
    return tmp_path / "log.txt"


def told(file):
    """The text of each line; all lines must be from this process."""
    found = [HEAD.fullmatch(line) for line in file.read_text().splitlines()]
    assert {(line[1], line[2]) for line in found} == {(str(os.getpid()), os.uname().nodename)}
    return [line[3] for line in found]


def test_a_worker_tells_of_its_beginning_its_warnings_and_its_end(file):
    with worker_log.logged(worker(), file, ELSEWHERE) as start:
        for task in "ab":
            start(task)().result()
        logging.getLogger("cntk_bench.grams").warning("the disk is slow")
        logging.getLogger("cntk_bench.grams").info("not this")
    logging.getLogger("cntk_bench.grams").warning("nor this")
    begun, warned, ended = told(file)
    assert begun == "worker begun: for process 1 on other-machine"
    assert warned == "warning: the disk is slow"
    assert re.fullmatch(r"worker ended: 2 tasks done in [\d.]+ s", ended)


@pytest.mark.parametrize("at", ["enter", "start", "end", "store"])
def test_an_error_that_nobody_foresaw_is_told_once_and_where_it_arose(file, at):
    error = ZeroDivisionError("of s3://ada:hunter2@store, {'token': 'abc123'}")
    with pytest.raises(ZeroDivisionError):
        with worker_log.logged(worker(error, at), file, ELSEWHERE) as start:
            start("good")().result()
            start("bad")().result()
    lines = told(file)
    what = "" if at == "enter" else "bad: "
    assert [line for line in lines if line.startswith("error: ")] == [
        f"error: {what}ZeroDivisionError: of s3://...@store, {{'token': ...}}"
    ]
    frame = {"enter": ", in worker", "start": ", in fails", "end": ", in fails", "store": ""}[at]
    assert any(line.startswith("  ") and line.endswith(frame) for line in lines)
    assert lines[-1].startswith(f"worker ended: {0 if at == 'enter' else 1} tasks done")
    assert "hunter2" not in file.read_text() and "abc123" not in file.read_text()


@pytest.mark.parametrize("at", ["start", "end", "store"])
def test_an_error_is_told_where_the_worker_goes_on(file, at):
    """Dask's workers go on like this, and hand errors to whoever waits for the task."""
    with worker_log.logged(worker(UserError("the disk is full: make room"), at), file, ELSEWHERE) as start:
        with pytest.raises(UserError):
            start("bad")().result()
        start("good")().result()
    assert told(file)[1:-1] == ["error: bad: UserError: the disk is full: make room"]
    assert told(file)[-1].startswith("worker ended: 1 tasks done")


@pytest.mark.parametrize("error", [EOFError(), BrokenPipeError(32, "Broken pipe")])
def test_a_worker_whose_command_was_killed_says_so(file, error):
    with pytest.raises(type(error)):
        with worker_log.logged(worker(), file, ELSEWHERE):
            raise error
    assert told(file)[1] == "error: the process that it works for has gone"


def test_the_process_that_made_the_job_has_a_log_of_its_own(file):
    for where, home in ((file, log.place()), (None, ELSEWHERE)):
        with worker_log.logged(worker(), where, home) as start:
            start("a")().result()
    assert not file.exists()


@pytest.mark.parametrize("place", ["no run", "no folder", "link", "full"])
def test_a_log_that_cannot_be_written_stops_no_worker(file, tmp_path, monkeypatch, place):
    if place == "no run":
        (tmp_path / "config.yaml").unlink()
    elif place == "link":
        file.symlink_to(tmp_path / "victim")
    elif place == "full":
        monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    where = tmp_path / "nowhere" / "log.txt" if place == "no folder" else file
    with worker_log.logged(worker(), where, ELSEWHERE) as start:
        start("a")().result()
    assert not (tmp_path / "victim").exists() and (place == "full" or not where.exists())


def test_a_lock_that_others_keep_delays_a_line_and_loses_none(file, monkeypatch):
    import fcntl

    monkeypatch.setattr(log, "PATIENCE", 0.01)
    monkeypatch.setattr(log, "MOST", 10)
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        log.append(file, b"first\n")
        log.append(file, b"second\n")
        # A log that another process may be writing is not rotated.
        assert file.read_text() == "first\nsecond\n"
    log.append(file, b"third\n")
    assert file.read_text() == "third\n" and file.with_name("log.1.txt").read_text() == "first\nsecond\n"
