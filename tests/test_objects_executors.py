# ruff: noqa: F811 (fixtures)
"""Workers writing to an object store: the bits of a single process, whoever is killed; and no secrets."""

import json
import os
import pickle
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from functools import partial

import numpy as np
import pytest
import s3
from test_cli import call, start
from toy_store import direct, place, server, small  # noqa: F401

from cntk_bench import backends
from cntk_bench.config import config
from cntk_bench.errors import UserError
from cntk_bench.executors.workers import AHEAD
from cntk_bench.grams import store
from cntk_bench.grams.compute import Job
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute as computing
from cntk_bench.system.bucket import Bucket

pytest.importorskip("moto", reason="moto is not installed")
pytest.importorskip("obstore", reason="obstore is not installed: pip install 'cntk-bench[cluster]'")

CONFIG = small(train=36, test=12, tile=6)
TILES = 6 * 7 // 2 + 2 * 6
CREDENTIALS = f"[default]\naws_access_key_id = {s3.KEY}\naws_secret_access_key = {s3.SECRET}\n"
NO_DASK = "Dask is not installed: pip install 'cntk-bench[cluster]'"


def settings(folder, *overrides):
    (folder / "small.yaml").write_text(CONFIG)
    return config.load(folder / "small.yaml", overrides)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The matrices that a single process computes into a store on disk."""
    folder = tmp_path_factory.mktemp("local")
    run = Run(folder / "run")
    computing.compute(run, settings(folder))
    return matrices(run.gram)


def matrices(place):
    grams = store.open(place)
    assert grams.progress.missing() == [] and grams.progress.disputed == set()
    return [grams.matrix(part, name, np.float32) for name in grams.readouts for part in ("train", "test")]


def require_same(run, local):
    for found, right in zip(matrices(run.gram), local, strict=True):
        np.testing.assert_array_equal(found, right)


LINES = re.compile(r"-(\d+)-[0-9a-f]{8}\.(\d+)-(\d+)\.jsonl$")


def counted(place):
    """How many tiles each process has finished, from a listing alone."""
    found = {}
    for one in Bucket(place).list("journals"):
        process, _, last = map(int, LINES.search(one.name).groups())
        found[process] = max(found.get(process, 0), last + 1)
    return found


def writers(place):
    """The tiles that each process has finished."""
    bucket, found = Bucket(place), {}
    for one in bucket.list("journals"):
        data = bucket.get(one.name)
        process = int(LINES.search(one.name)[1])
        # While lines are being joined, some are there twice.
        for line in data[0].splitlines() if data else ():
            found.setdefault(process, set()).add(json.loads(line)["tile"])
    return found


def tiles(place):
    return Counter(tile for some in writers(place).values() for tile in some)


def no_secrets(place, folder, *texts):
    """Secrets are in no file of the folder, no object, and none of the texts."""
    bucket = Bucket(place)
    files = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    found = [bucket.get(one.name)[0] for one in bucket.list()]
    assert len(files) > 2 and len(found) > TILES
    for text in (*files, *found, *texts):
        assert s3.SECRET.encode() not in text and s3.KEY.encode() not in text


class Killer(threading.Thread):
    """Kills one worker that has finished some tiles."""

    def __init__(self, place):
        super().__init__(daemon=True)
        self.place, self.killed, self.ended = place, [], threading.Event()

    def run(self):
        while not self.ended.wait(0.02):
            for process, count in counted(self.place).items():
                if process != os.getpid() and count > 2:
                    os.kill(process, signal.SIGKILL)
                    self.killed.append(process)
                    return

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()


@pytest.mark.parametrize("executor", ["processes", "dask"])
def test_a_killed_worker_costs_its_tiles_in_flight(local, place, tmp_path, executor, caplog):
    """This process first computes a share of the tiles, which the workers must not compute again."""
    if executor == "dask":
        pytest.importorskip("distributed", reason=NO_DASK)
    caplog.set_level("DEBUG")
    run = Run(tmp_path / "run")
    computing.compute(run, settings(tmp_path, f"compute.store={place}"), shard=(1, 3))
    first = tiles(place)
    asked = settings(tmp_path, f"compute.store={place}", f"compute.executor={executor}", "compute.workers=2")
    with Killer(place) as killer:
        computing.compute(run, asked)
    lost = "a worker was lost" in caplog.text
    # Dask may be idle in the worker that is killed: then only that worker's nanny notices.
    assert len(killer.killed) == 1 and (lost or executor == "dask" and "Restarting worker" in caplog.text)
    times = tiles(place)
    assert len(first) == TILES // 3 and all(times[tile] == 1 for tile in first)
    flying = AHEAD if executor == "processes" else 2 * AHEAD  # Dask may have given all of them to one worker
    assert len(times) == TILES and sum(times.values()) - TILES <= flying
    require_same(run, local)
    log = (run.path / "log.txt").read_text()
    assert f"process {killer.killed[0]} on " in log and log.count("worker begun: ") >= 2
    assert f"process {killer.killed[0]} on " not in "".join(re.findall(".*worker ended: .*", log))
    no_secrets(place, tmp_path, caplog.text.encode())
    told = call("status", run.path)
    assert told.returncode == 0 and f"{TILES} of {TILES} tiles done" in told.stdout
    assert ("workers lost: 1" in told.stdout) == lost


def test_a_killed_share_is_ended_by_others_of_another_kind(local, place, tmp_path):
    run, asked = Run(tmp_path / "run"), settings(tmp_path, f"compute.store={place}")
    share = start(
        "compute",
        tmp_path / "small.yaml",
        "--output",
        tmp_path / "share",
        "--shard",
        "2/2",
        "--set",
        f"compute.store={place}",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 300
    while counted(place).get(share.pid, 0) < 3:
        assert time.monotonic() < end and share.poll() is None
        time.sleep(0.01)
    share.send_signal(signal.SIGKILL)
    said = share.communicate()
    before = tiles(place)
    assert 3 <= len(before) < -(-TILES // 2)
    computing.compute(run, asked, shard=(1, 2))
    computing.compute(run, asked)
    assert set(tiles(place).values()) == {1} and set(before) < set(tiles(place))
    require_same(run, local)
    no_secrets(place, tmp_path, *(text.encode() for text in said))


def test_workers_say_by_themselves_who_they_are(local, place, tmp_path, monkeypatch):
    """The scheduler runs already; first its worker has no credentials at all, then a file with them."""
    distributed = pytest.importorskip("distributed", reason=NO_DASK)
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    env = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"), "") | {
        "HOME": str(home)
    }
    options = {"n_workers": 1, "threads_per_worker": 2, "host": "127.0.0.1", "dashboard_address": None}
    run = Run(tmp_path / "run")
    with distributed.LocalCluster(**options, env=env, local_directory=str(tmp_path / "dask")) as cluster:
        asked = settings(tmp_path, f"compute.store={place}", "compute.executor=dask",
                         f"compute.scheduler={cluster.scheduler_address}")  # fmt: skip
        with pytest.raises(
            UserError, match="a worker on .* cannot begin: nothing says who you are.*AWS_ACCESS_KEY_ID"
        ) as told:
            computing.compute(run, asked)
        assert "\n" not in str(told.value) and not tiles(place)
        (home / ".aws" / "credentials").write_text(CREDENTIALS)
        computing.compute(run, asked)
        kept = b"".join(file.read_bytes() for file in (tmp_path / "dask").rglob("*") if file.is_file())
    (home / ".aws" / "credentials").unlink()
    assert set(tiles(place).values()) == {1}
    require_same(run, local)
    no_secrets(place, tmp_path, kept)


@pytest.mark.parametrize("of", ["variables", "file"])
def test_a_job_and_its_pickle_have_no_secrets(place, tmp_path, monkeypatch, of):
    pytest.importorskip("distributed", reason=NO_DASK)
    from cntk_bench.executors.dask import Station

    if of == "file":
        (tmp_path / "credentials").write_text(CREDENTIALS)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
    run = Run(tmp_path / "run")
    wanted = settings(tmp_path, f"compute.store={place}", "dataset.train=6", "dataset.test=2")
    computing.compute(run, wanted)  # so a client was made with these credentials, and used
    other = store.open(run.gram)
    job = Job(other, partial(backends.create, "cpu"), np.zeros((6, 1, 8, 8)), np.zeros((2, 1, 8, 8)))
    with other.shared():
        for data in (
            pickle.dumps(job),
            pickle.dumps(other.path),
            pickle.dumps(Station(pickle.dumps(job), 1.0)),
        ):
            assert place.encode() in data
            assert s3.SECRET.encode() not in data and s3.KEY.encode() not in data
