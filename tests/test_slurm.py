"""A real one-node Slurm: arrays of shares, and jobs that are workers, cancelled or out of time."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import one_node
import pytest
import s3

from cntk_bench import Readout
from cntk_bench.config import config
from cntk_bench.grams import store
from cntk_bench.grams.journal import FOLDER
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute as computing
from cntk_bench.system.bucket import Bucket

pytestmark = pytest.mark.skipif(bool(one_node.missing()), reason=f"no Slurm here: {one_node.missing()}")

CONFIG = """
name: array
dataset: {name: digits, train: 240, test: 60}
kernel: {columns: [CNTK-GAP], depths: [4]}
compute: {tile: 20, backend: cpu, slurm: {memory: 2GB, time: "10"}}
"""
READOUT = Readout("ntk", "gap", 4)
TILES = 12 * 13 // 2 + 3 * 12


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with one_node.running(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The matrices computed by a single process."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "array.yaml").write_text(CONFIG)
    run = Run(folder / "run")
    computing.compute(run, config.load(folder / "array.yaml"))
    return matrices(run)


def matrices(run):
    grams = store.open(run.gram)
    return [grams.matrix(part, READOUT, np.float32) for part in ("train", "test")]


def program(environment, folder, *arguments):
    command = [sys.executable, "-m", "cntk_bench", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def submit(environment, folder, *options):
    command = ["sbatch", "--parsable", *options, "array.sh"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def lines(run):
    """The lines of all journals."""
    files = (run.gram / FOLDER).glob("*.jsonl") if run.gram.exists() else ()
    return [json.loads(line) for file in files for line in file.read_text().split("\n") if line.endswith("}")]


def until(condition):
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def scancel(environment, *arguments):
    subprocess.run(["scancel", *arguments], env=environment, check=True, timeout=60)


def tiles(run):
    return [line["tile"] for line in lines(run)]


@pytest.fixture
def folder(tmp_path, slurm):
    (tmp_path / "array.yaml").write_text(CONFIG)
    script = program(slurm, tmp_path, "slurm-script", "array.yaml", "--shards", 2, "--output", "run")
    assert script.returncode == 0, script.stderr
    (tmp_path / "array.sh").write_text(script.stdout)
    return tmp_path


def test_an_array_that_is_cancelled_keeps_its_tiles_and_the_next_one_does_the_rest(
    slurm, alone, folder, faults
):
    faults("scancel of an array of shares in the middle (Slurm)", 2)
    run = Run(folder / "run")
    first = submit(slurm, folder)
    until(lambda: len(tiles(run)) > 5)
    scancel(slurm, first)
    until(lambda: not one_node.queued(slurm))
    kept = len(tiles(run))
    assert 5 < kept < TILES
    said = [log.read_text() for log in folder.glob("slurm-*.out")]
    assert said and all("ended by SIGTERM: finished tiles are stored" in text for text in said), said
    submit(slurm, folder)
    until(lambda: not one_node.queued(slurm))
    assert len(tiles(run)) == len(set(tiles(run))) == TILES  # the second array repeated nothing
    for found, right in zip(matrices(run), alone, strict=True):
        np.testing.assert_array_equal(found, right)
    solved = program(slurm, folder, "solve", "run")
    assert solved.returncode == 0 and "CNTK-GAP" in solved.stdout


def test_a_job_out_of_time_ends_by_itself_and_keeps_its_tiles(slurm, folder, faults):
    """Slurm warns it half a minute before its time limit; if it had no tile by then, it gets more time.

    10,000 images make tens of minutes of work for two fast cores, so that no machine is done before the
    signal; a tile is seconds of work for a slow one.
    """
    faults("a job out of time (Slurm)")
    images, labels = np.random.default_rng(0).random((10_000, 8, 8, 1)), np.arange(10_000) % 10
    np.savez(folder / "many.npz", x_train=images, y_train=labels, x_test=images[:9] / 2, y_test=labels[:9])
    script = program(slurm, folder, "slurm-script", "array.yaml", "--output", "run", "--shards", 1,
                     "--set", "dataset={name: npz, path: many.npz}", "--set", "compute.tile=100",
                     "--set", "kernel.depths=[21]")  # fmt: skip
    assert script.returncode == 0, script.stderr
    (folder / "array.sh").write_text(script.stdout.replace("TERM@60", "TERM@30"))
    run = Run(folder / "run")
    for minutes in (1, 2, 4):
        job = submit(slurm, folder, f"--time={minutes}")
        until(lambda: not one_node.queued(slurm))
        if run.gram.exists() and tiles(run):
            break
    assert "ended by SIGTERM: finished tiles are stored" in (folder / f"slurm-{job}_1.out").read_text()
    counts = store.open(run.gram).progress.counts()
    assert len(tiles(run)) == counts.tiles < counts.all_tiles


def test_jobs_that_are_workers_come_again_after_they_were_cancelled(slurm, alone, folder, faults):
    pytest.importorskip("dask_jobqueue", reason="not installed: pip install 'cntk-bench[cluster]'")
    run = Run(folder / "jobs")
    command = [sys.executable, "-m", "cntk_bench", "compute", "array.yaml", "--output", "jobs",
               "--executor", "slurm", "--set", "compute.slurm.interface=lo"]  # fmt: skip
    with subprocess.Popen(command, cwd=folder, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as process:  # fmt: skip
        until(lambda: len(tiles(run)) > 5 or process.poll() is not None)
        running = [line.split()[0] for line in one_node.queued(slurm, "--states=RUNNING")]
        assert running
        faults("scancel of a job that is a worker (Slurm)", len(running))
        scancel(slurm, *running)
        said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said
    assert len(set(tiles(run))) == TILES
    for found, right in zip(matrices(run), alone, strict=True):
        np.testing.assert_array_equal(found, right)
    until(lambda: not one_node.queued(slurm))
    assert not list(folder.glob(".cntk-bench-*"))  # the certificates are removed
    told = (run.path / "log.txt").read_text()  # from the cancelled jobs and from their replacements
    assert told.count(f": worker begun: for process {process.pid} on ") > len(running)


def test_jobs_of_either_kind_write_to_an_object_store(slurm, alone, folder, monkeypatch):
    """An array that is cancelled, then jobs that are workers; no script and no log contains credentials."""
    for name in ("moto", "obstore", "dask_jobqueue"):
        pytest.importorskip(name, reason="not installed: pip install 'cntk-bench[cluster]'")
    place, run = f"s3://{s3.BUCKET}/slurm", Run(folder / "objects")
    asked = ("array.yaml", "--output", "objects", "--set", f"compute.store={place}")
    with s3.serving() as url:
        environment = slurm | s3.environment(url)
        for name, value in s3.environment(url).items():
            monkeypatch.setenv(name, value)
        script = program(environment, folder, "slurm-script", *asked, "--shards", 2)
        (folder / "array.sh").write_text(script.stdout)
        first = submit(environment, folder)
        until(lambda: len(list(Bucket(place).list("journals"))) > 3)
        scancel(slurm, first)
        until(lambda: not one_node.queued(slurm))
        kept = len(store.open(Bucket(place)).progress.done())
        assert 3 < kept < TILES
        done = program(environment, folder, "compute", *asked, "--verbose", "--executor", "slurm",
                       "--set", "compute.slurm.interface=lo")  # fmt: skip
        assert done.returncode == 0, done.stderr
        for found, right in zip(matrices(run), alone, strict=True):
            np.testing.assert_array_equal(found, right)
        journals = [Bucket(place).get(one.name)[0] for one in Bucket(place).list("journals")]
        assert sum(len(text.splitlines()) for text in journals) == TILES  # no tile was computed twice
    until(lambda: not one_node.queued(slurm))
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {"array.sh", "record.json"} < {file.name for file in files} and list(folder.glob("slurm-*.out"))
    told = (run.path / "log.txt").read_text()  # this file is searched with the others
    assert told.count("asked: cntk-bench compute") == 3 and ": worker begun: " in told
    said = [script.stdout, done.stdout, done.stderr]
    for text in (*said, *(file.read_bytes().decode("latin1") for file in files)):
        assert s3.SECRET not in text and s3.KEY not in text
