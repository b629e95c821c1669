"""Executors: a job pickled into other processes does the same there as in this process."""

import json
import os
import pickle
import re
from functools import partial

import numpy as np
import pytest
import spawned

from cntk_bench import backends, executors
from cntk_bench.config import config
from cntk_bench.errors import UserError
from cntk_bench.grams import compute as grams
from cntk_bench.grams import growth, matrix, store
from cntk_bench.grams.compute import Job, Task
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.journal import FOLDER
from cntk_bench.grams.tiles import Plan
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute as computing
from cntk_bench.runs import solve as solving
from cntk_bench.system import plugins

CONFIG = """
name: small
dataset: {name: digits, train: 20, test: 10}
kernel: {columns: [CNTK-V, CNN-GP-V], depths: [3]}
compute: {tile: 8, backend: cpu}
"""


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(plugins, "names", lambda group: ("spawned",) if group == executors.GROUP else ())
    monkeypatch.setattr(plugins, "load", lambda group, name: spawned.run)


def settings(folder, *overrides):
    (folder / "small.yaml").write_text(CONFIG)
    return config.load(folder / "small.yaml", overrides)


def matrices(run):
    grams = store.open(run.gram)
    return {
        (name, part): matrix.matrix(grams, part, name, np.float32)
        for name in grams.readouts
        for part in ("train", "test")
    }


def lines(run):
    """What the journals say of each tile, without times and places; and the number of journals."""
    files = list((run.gram / FOLDER).iterdir())
    found = [json.loads(line) for file in files for line in file.read_text().split("\n") if line]
    return sorted((line["tile"], line.get("readouts"), line["digests"]) for line in found), len(files)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    run, wanted = Run(folder / "local"), settings(folder)
    computing.compute(run, wanted)
    return run, solving.solve(run, wanted)["solutions"]


def test_two_processes_give_the_numbers_journals_and_table_of_one(local, tmp_path):
    run, wanted, told = Run(tmp_path / "run"), settings(tmp_path, "compute.executor=spawned"), []
    computing.compute(run, wanted, lambda plan, tasks: told.append)
    for key, values in matrices(local[0]).items():
        np.testing.assert_array_equal(matrices(run)[key], values)
    (said, files), (right, one) = lines(run), lines(local[0])
    assert said == right and (files, one) == (2, 1)
    plan = store.open(run.gram).plan
    assert {task.tile for task in told} == set(plan.tiles())
    stage = json.loads(run.record.read_text())["stages"][-1]
    assert stage["pairs"] == plan.pairs
    again = solving.solve(run, wanted)["solutions"]
    assert [s["accuracy"] for s in again] == [s["accuracy"] for s in local[1]]


def test_workers_are_in_the_log_of_the_run(tmp_path):
    run = Run(tmp_path / "run")
    computing.compute(run, settings(tmp_path, "compute.executor=spawned", "kernel.columns=[FC-NTK]"))
    said = (run.path / "log.txt").read_text()
    begun = re.findall("process ([0-9]+) on .*: worker begun: for process ([0-9]+) on ", said)
    ended = re.findall("process ([0-9]+) on .*: worker ended: ([0-9]+) tasks done in ", said)
    assert len(begun) == 2 and {who for who, _ in begun} == {who for who, _ in ended} != {str(os.getpid())}
    assert {home for _, home in begun} == {str(os.getpid())}
    assert sum(int(tasks) for _, tasks in ended) == store.open(run.gram).plan.count


def test_they_take_from_another_run(local, tmp_path):
    run, wanted = (
        Run(tmp_path / "run"),
        settings(tmp_path, "compute.executor=spawned", "kernel.depths=[3, 4]"),
    )
    computing.compute(run, wanted, donor=local[0])
    grams = store.open(run.gram)
    counts = grams.progress.counts()
    assert counts.in_part == counts.tiles == grams.plan.count
    stage = json.loads(run.record.read_text())["stages"][-1]
    assert stage["tiles_taken"] == grams.plan.count and stage["pairs"] == grams.plan.pairs
    for key, values in matrices(local[0]).items():
        np.testing.assert_array_equal(matrices(run)[key], values)


def test_an_error_of_a_worker_is_the_same_line(tmp_path):
    x = np.full((3, 1, 2, 2), 1e30, np.float32)
    gram = growth.create(tmp_path / "g", Plan(3, 0, 3, 1), {"readouts": ["ntk-gap-3-hidden"]}, facts(3))
    job = Job(gram, partial(backends.create, "cpu"), x, x[:0])
    with pytest.raises(UserError, match="scale the images down"):
        grams.compute(job, executor="spawned")


def facts(n):
    return ImageFacts((np.zeros(n, int), np.zeros(0, int)))


def test_a_pickled_job_is_small_and_holds_no_open_file(tmp_path):
    """It contains the store's path, but nothing that is open or compiled."""
    x = np.zeros((3, 1, 2, 2), np.float32)
    gram = growth.create(tmp_path / "g", Plan(3, 0, 3, 1), {"readouts": ["ntk-v-3-all"]}, facts(3))
    ready = object()  # equals nothing that a worker needs
    job = Job(gram, partial(backends.create, "cpu"), x, x[:0], ready=ready)
    with gram.shared():
        again = pickle.loads(pickle.dumps(job))
    assert again.ready is None and again.store.path == gram.path and again.store.plan == gram.plan
    assert len(pickle.dumps(job)) < 1000
    task = Task(gram.plan.tiles()[0], (0,))
    assert pickle.loads(pickle.dumps(task)) == task


def test_a_forked_process_writes_a_journal_of_its_own(tmp_path):
    gram = growth.create(tmp_path / "g", Plan(3, 0, 2, 1), {"readouts": ["r"]}, facts(3))
    first, second, third = gram.plan.tiles()
    with gram.shared():
        gram.write(first, np.zeros((1, 2, 2)))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with gram.shared():
                    gram.write(second, np.zeros((1, 1, 2)))
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        gram.write(third, np.zeros((1, 1, 1)))
    assert store.open(gram.path).progress.missing() == []
    assert len(list((gram.path / FOLDER).iterdir())) == 2
