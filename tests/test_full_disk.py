"""A disk that fills while several processes compute: one line each, nothing is lost or computed twice."""

import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from cntk_bench.config import config
from cntk_bench.grams import store
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute as computing

CONFIG = """
name: full
dataset: {name: digits, train: 60, test: 12}
kernel: {columns: [CNTK-V], depths: [3]}
compute: {tile: 4, backend: cpu}
"""
SMALL = 320  # KiB; each tile takes at least a page


def mount(*arguments):
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    return done.returncode == 0, done.stderr


@pytest.fixture
def disk(tmp_path):
    """A small file system of our own, which is soon full."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mounted, why = mount("-t", "tmpfs", "-o", f"size={SMALL}k,mode=0700", "tmpfs", place)
    except OSError as error:
        mounted, why = False, str(error)
    if not mounted:
        pytest.skip(f"no small file system can be mounted here (root alone may): {why.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def compute(folder, *arguments):
    command = [sys.executable, "-m", "cntk_bench", "compute", "full.yaml", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def finished(run):
    """For each tile, how often the journals list it as finished."""
    files = sorted((run.gram / "journals").iterdir())
    texts = [line for file in files for line in file.read_text().split("\n") if line.endswith("}")]
    return Counter(json.loads(line)["tile"] for line in texts)


def test_processes_on_a_disk_that_fills(tmp_path, disk, faults):
    faults("a disk that fills under two workers (processes)")
    (tmp_path / "full.yaml").write_text(CONFIG)
    run, arguments = Run(disk / "run"), ("--executor", "processes", "--set", "compute.workers=2")
    first = compute(tmp_path, "--output", run.path, *arguments)
    assert first.returncode == 2, first.stderr
    (line,) = first.stderr.strip().split("\n")
    assert line.startswith("error: no space left to write") and "what is finished is kept" in line
    kept, plan = store.open(run.gram).progress.done(), store.open(run.gram).plan
    assert 5 < len(kept) < plan.count
    assert mount("-o", "remount,size=8m", disk)[0]
    second = compute(tmp_path, "--output", run.path, *arguments)
    assert second.returncode == 0, second.stderr
    assert len(finished(run)) == plan.count and set(finished(run).values()) == {1}
    alone = Run(tmp_path / "alone")
    computing.compute(alone, config.load(tmp_path / "full.yaml"))
    one, two = (store.open(r.gram) for r in (run, alone))
    for part in ("train", "test"):
        np.testing.assert_array_equal(
            one.matrix(part, "ntk-v-3-all", np.float32), two.matrix(part, "ntk-v-3-all", np.float32)
        )
