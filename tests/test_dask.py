"""Dask's schedulers: which ports listen, who may connect, and what signals do where there are no workers."""

import gc
import http.client
import json
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

distributed = pytest.importorskip(
    "distributed", reason="Dask is not installed: pip install 'cntk-bench[cluster]'"
)
psutil = pytest.importorskip("psutil")  # a dependency of Dask

CALL = """
import sys
from pathlib import Path
from errands import Errand, Job
from cntk_bench import executors
from cntk_bench.cli import streams
from cntk_bench.system import interruption
streams.prepare()
job, tasks = Job(Path(sys.argv[1]), 0.2), map(Errand, range(10**6))
try:
    with streams.logged(), interruption.handled(), interruption.noted() as asked:
        executors.run("dask", job, tasks, lambda task: print(task.number, flush=True), asked.is_set,
                      executors.Workers(({}, {})))
except interruption.Interrupted as stopped:
    sys.exit(128 + stopped.signum)
"""


@pytest.fixture
def scheduler():
    """A running scheduler without workers; its cluster can add some."""
    with distributed.LocalCluster(
        n_workers=0, processes=False, threads_per_worker=2, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def run(folder, tasks, stopped=lambda: False, **workers):
    told = []
    executors.run("dask", Job(folder, 0.01), tasks, told.append, stopped, Workers(**workers))
    return sorted(task.number for task in told)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_lets_workers_finish_what_they_do(tmp_path, signum):
    """Like Ctrl-C at a terminal, which reaches every process started from it."""

    def usual():
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-c", CALL, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=usual, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    # `readline` would take more than one line from the pipe
    while not errands.done(tmp_path) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signum)
    told, said = process.communicate(timeout=300)
    assert (process.returncode, said) == (128 + signum, "")
    done = set(errands.done(tmp_path))
    assert set(errands.begun(tmp_path)) == done == set(map(int, told.split()))


def test_it_can_be_stopped_while_there_are_no_workers(tmp_path, scheduler, monkeypatch, caplog):
    from cntk_bench.executors import dask

    monkeypatch.setattr(dask, "WAITING", 0.5)
    told = []

    def stopped():
        told.append(time.monotonic())
        return told[-1] - told[0] > 3

    assert run(tmp_path, map(Errand, range(100)), stopped, scheduler=scheduler.scheduler_address) == []
    assert caplog.text.count("there are no workers") == 1
    assert errands.begun(tmp_path) == {}


def test_a_scheduler_that_goes_away_is_one_line(tmp_path, monkeypatch):
    from cntk_bench.executors import connections

    monkeypatch.setattr(connections, "CONNECTING", "2s")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
               "--no-dashboard", "--scheduler-file", tmp_path / "scheduler"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "scheduler").exists():
            time.sleep(0.05)

        def tasks():
            yield Errand(0)
            process.kill()
            yield from map(Errand, range(1, 100))

        address = json.loads((tmp_path / "scheduler").read_text())["address"]
        with pytest.raises(UserError, match="the connection to the scheduler was lost: what was finished is"):
            run(tmp_path, tasks(), scheduler=address)


def test_workers_that_come_later_do_the_tasks(tmp_path, scheduler):
    asked = []

    def stopped():
        if not asked:
            asked.append(scheduler.scale(1))
        return False

    assert run(tmp_path, map(Errand, range(9)), stopped, scheduler=scheduler.scheduler_address) == [*range(9)]


def test_workers_of_another_version_are_refused(tmp_path, scheduler, monkeypatch):
    from cntk_bench.executors import dask

    scheduler.scale(1)
    with distributed.Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(1)
    monkeypatch.setattr(dask, "__version__", "9.9")
    with pytest.raises(UserError, match="the worker inproc.* has cntk-bench .*: install cntk-bench 9.9"):
        run(tmp_path, [Errand(0)], scheduler=scheduler.scheduler_address)


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:9", "tls://127.0.0.1:9"])
def test_an_address_that_cannot_be_one_is_an_error_and_leaves_nothing_behind(tmp_path, address, monkeypatch):
    left = []
    monkeypatch.setattr(sys, "unraisablehook", left.append)
    with pytest.raises(UserError, match=f"compute.scheduler {address} cannot be reached"):
        run(tmp_path, [Errand(0)], scheduler=address)
    gc.collect()
    assert not left


def test_a_scheduler_of_our_own_listens_on_this_machine_alone_and_serves_no_pages(tmp_path):
    ports, served = [], []

    def tasks():
        yield Errand(0)
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            found = [c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            assert {place.ip for place in found} <= {"127.0.0.1"}
            ports.extend(place.port for place in found)
        for page in ("/status", "/info/main/workers.html", "/health"):
            served.extend(port for port in ports if _answer(port, page) == 200)
        yield Errand(1)

    assert run(tmp_path, tasks()) == [0, 1]
    assert len(ports) >= 3 and not served


def _answer(port, page):
    """The status with which a port answers a request without a certificate; None if it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", page)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
