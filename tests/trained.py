"""A small run with networks, and the command line that trains it, for several test files."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cntk_bench.cli import program
from cntk_bench.errors import UserError
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.runs.material import Material, jobs

REPOSITORY = Path(__file__).parents[1]
CONFIG = """
name: nets
dataset: {name: digits, train: 30, test: 40}
kernel: {columns: [CNN-V], depths: [2]}
network: {width: 16, rates: [5, 30], trials: 2, batch: 16, epochs: 4, epochs_after: 2, curve: true}
"""


def write(tmp_path, monkeypatch):
    """Write the config into a folder and go there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.yaml").write_text(CONFIG)
    return tmp_path


def call(*arguments, code=0):
    """A command's standard output or, if an error is expected, its one line."""
    done = CliRunner().invoke(program.cli, [*map(str, arguments)])
    if code == 0:
        assert done.exit_code == 0 and (done.return_value or 0) == 0, (done.output, done.exception)
        return done.output
    with pytest.raises(UserError) as caught:
        raise done.exception
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300
    return str(caught.value)


def changed(*overrides):
    return [word for override in overrides for word in ("--set", override)]


def material(run="runs/nets", *overrides):
    settings = Run(Path(run)).config(overrides)
    return settings, Material(
        Run(Path(run)), settings, record.computed(record.load(Path(run) / "record.json"))
    )


def digests(run="runs/nets"):
    """By label, every network's predictions, history of losses and accuracies, and epoch reached."""
    found = {}
    for _, _, some in jobs(*material(run)):
        for job in some:
            result = job.result()
            found[job.label] = (result.predicted.tobytes(), tuple(result.history), result.reached)
    return found


def solutions(run="runs/nets"):
    return json.loads((Path(run) / "record.json").read_text())["solutions"]


def start(*arguments):
    def default():
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, "-m", "cntk_bench", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE, preexec_fn=default)
