"""Executors with their own workers: what is lost if workers are killed, hang or fail."""

import os
import signal
import subprocess
import sys
import time

import errands
import pytest
from errands import Errand, Job

from cntk_bench import executors
from cntk_bench.errors import UserError
from cntk_bench.executors import Workers
from cntk_bench.executors.workers import AHEAD, ATTEMPTS

PLACES = ({"PLACE": "a"}, {"PLACE": "b"})


@pytest.fixture(params=["processes", "dask"])
def name(request):
    if request.param == "dask":
        pytest.importorskip("distributed", reason="Dask is not installed: pip install 'cntk-bench[cluster]'")
    return request.param


def run(folder, tasks, name="processes", stopped=lambda: False, **workers):
    told = []
    job = Job(
        folder, *(workers.pop(k, v) for k, v in {"pause": 0.01, "broken": False, "ballast": b""}.items())
    )
    try:
        executors.run(name, job, tasks, told.append, stopped, Workers(**{"places": PLACES} | workers))
    finally:
        assert len(told) == len(set(told))
        assert {task.number for task in told} <= set(errands.done(folder))
    return sorted(task.number for task in told)


def test_every_task_is_done_once_by_workers_in_their_places(tmp_path, name):
    assert run(tmp_path, [Errand(n) for n in range(40)], name, pause=0.05) == list(range(40))
    assert set(errands.begun(tmp_path).values()) == {1}
    assert sorted(errands.crew(tmp_path)) == ["a", "b"]


def test_no_more_workers_than_there_is_work_for(tmp_path):
    assert run(tmp_path, [Errand(0)], places=({},) * 50) == [0]
    assert len(errands.crew(tmp_path)) == 1
    assert run(tmp_path, []) == []


def test_a_killed_worker_costs_its_tasks_in_flight_and_nothing_else(tmp_path, name, caplog, faults):
    faults(f"SIGKILL of a worker by its task ({name})", 2)
    tasks = [Errand(n, "once" if n in (3, 11) else "") for n in range(30)]
    assert run(tmp_path, tasks, name) == list(range(30))
    again = [n for n, times in errands.begun(tmp_path).items() if times > 1]
    assert {3, 11} <= set(again) and len(again) <= 2 * AHEAD
    assert "a worker was lost" in caplog.text


def test_a_task_that_kills_every_worker_is_named_after_all_others_are_done(tmp_path, name, faults):
    faults(f"a task that kills every worker ({name})")
    tasks = [Errand(n, "always" if n == 5 else "") for n in range(20)]
    with pytest.raises(UserError, match="errand 5 ended 3 workers or more.*(SIGKILL|killed)"):
        run(tmp_path, tasks, name)
    assert errands.done(tmp_path) == [n for n in range(20) if n != 5]
    # Dask gets one attempt more, as it is less certain who is to blame
    assert errands.begun(tmp_path)[5] == ATTEMPTS + (name == "dask")


def test_two_such_tasks_do_not_accuse_those_beside_them(tmp_path, faults):
    faults("a task that kills every worker (processes)", 2)
    tasks = [Errand(n, "always" if n in (5, 6) else "") for n in range(10)]
    with pytest.raises(UserError, match="and 1 more"):
        run(tmp_path, tasks)
    assert errands.done(tmp_path) == [n for n in range(10) if n not in (5, 6)]


@pytest.mark.parametrize("harm", ["hang", "sleep"])
def test_a_worker_that_is_silent_for_too_long_is_ended(tmp_path, name, harm, caplog, faults):
    faults(f"a worker hangs ({name})")
    tasks = [Errand(n, harm if n == 2 else "") for n in range(10)]
    assert run(tmp_path, tasks, name, timeout=10.0) == list(range(10))
    assert "a worker was lost" in caplog.text


def test_an_error_is_raised_once_what_was_begun_is_done(tmp_path, name, faults):
    faults(f"a task that fails ({name})")
    tasks = [Errand(n, "raise" if n == 4 else "") for n in range(10_000)]
    with pytest.raises(UserError, match="the disk is full: make room"):
        run(tmp_path, tasks, name)
    begun = set(errands.begun(tmp_path))  # maybe by one worker alone: the other may be stopped first
    assert begun - set(errands.done(tmp_path)) == {4} and len(begun) < 10_000


def test_workers_that_cannot_begin_are_an_error(tmp_path, faults):
    faults("workers that cannot begin (processes)", 3)
    with pytest.raises(UserError, match="3 workers ended before they could begin.*exit code 3"):
        run(tmp_path, [Errand(n) for n in range(5)], broken=True)


HANGING = """
import os, time
if os.environ.get("PLACE") == "a":
    try:
        os.mkdir(os.path.join(os.path.dirname(__file__), "hung"))
        time.sleep(10**6)
    except FileExistsError:
        pass
"""


def test_a_worker_that_hangs_before_it_takes_its_job_is_replaced(tmp_path, caplog, faults):
    """Meanwhile the other one works, although the job is larger than what a pipe holds."""
    faults("a worker hangs as it starts (processes)")
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    places = [place | {"PYTHONPATH": str(tmp_path)} for place in PLACES]
    tasks = [Errand(n) for n in range(30)]
    told = run(tmp_path, tasks, places=places, ballast=bytes(10**7), timeout=15.0)
    assert told == list(range(30)) and set(errands.begun(tmp_path).values()) == {1}
    assert "a worker was lost (it finished nothing for 15 seconds)" in caplog.text


def test_asked_to_stop_it_ends_after_the_tasks_that_are_being_done(tmp_path, name):
    asked = []

    def tasks():
        for n in range(10**6):
            if n == 20:
                asked.append(True)
            yield Errand(n)

    told = run(tmp_path, tasks(), name, stopped=lambda: bool(asked), pause=0.02)
    assert 10 < len(told) < 20 + 2 * AHEAD
    assert set(errands.begun(tmp_path)) == set(told)


def test_a_job_that_cannot_be_pickled_is_an_error_at_once(tmp_path):
    with pytest.raises(Exception, match="pickle"):
        executors.run("processes", lambda: None, [Errand(0)], print, lambda: False, Workers())


MAIN = """
import sys
from pathlib import Path
from errands import Errand, Job
from cntk_bench import executors
job, tasks = Job(Path(sys.argv[1]), 0.2), map(Errand, range(10**6))
executors.run("processes", job, tasks, lambda task: print(flush=True), lambda: False,
              executors.Workers(({}, {})))
"""


def test_workers_of_a_killed_process_finish_what_they_do_and_end(tmp_path, faults):
    faults("SIGKILL of the process that hands out tasks (processes)")
    main = subprocess.Popen(
        [sys.executable, "-c", MAIN, tmp_path],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    main.stdout.readline()
    main.send_signal(signal.SIGKILL)
    main.wait()
    pids = [int(file.name.split("-")[1]) for file in tmp_path.glob("worker-*")]
    while any(map(_alive, pids)):
        time.sleep(0.05)
    assert set(errands.begun(tmp_path)) == set(errands.done(tmp_path))


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
