"""The script that `slurm-script` prints, as read by bash and by sbatch."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from cntk_bench.cli.program import call
from cntk_bench.config import sections
from cntk_bench.records.directory import Run
from cntk_bench.runs import sbatch
from cntk_bench.runs.status import Follower

CONFIG = """
dataset: {name: npz, path: images.npz}
kernel: {columns: [CNTK-V], depths: [3]}
compute: {tile: 8, backend: cpu, executor: slurm}
"""
ODD = [
    "plain",
    "two words",
    "it's",
    'a"b',
    "$(touch pwned)",
    "`x`",
    "a\\b",
    "line\nfeed",
    "tab\t",
    "é",
    "\udcff",
    "-x",
]


@pytest.mark.parametrize("word", ODD)
def test_bash_reads_each_word_as_it_was(word):
    text = sbatch.quoted(word)
    assert text.isascii() and text.isprintable()
    said = subprocess.run(["bash", "-c", f"printf %s {text}"], capture_output=True, check=True).stdout
    assert said == os.fsencode(word)


def script(capsys, *arguments):
    assert call(["slurm-script", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def directives(text):
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]


def test_it_asks_for_what_the_config_says(tmp_path, capsys):
    file = tmp_path / "my run.yaml"
    file.write_text(
        "compute: {slurm: {partition: gpu, account: me, gres: 'gpu:2', time: '1-00:00:00', memory: 1.5GB, "
        "cores: 4, directives: [--qos=long], environment: [module load cuda]}}"
    )
    text = script(capsys, file, "--shards", 3)
    assert directives(text) == [
        "--job-name=cntk-bench-my-run", "--partition=gpu", "--account=me", "--gres=gpu:2",
        "--time=1-00:00:00", "--cpus-per-task=4", "--mem=1536M", "--array=1-3", "--requeue",
        "--signal=B:TERM@60", "--open-mode=append", "--qos=long",
    ]  # fmt: skip
    lines = text.splitlines()
    assert lines.index("module load cuda") < len(lines) - 1
    assert lines[-1].startswith("exec ") and lines[-1].endswith('--shard "$SLURM_ARRAY_TASK_ID/3"')


def test_jobs_of_odd_paths_submitted_from_anywhere_compute_the_run(tmp_path, monkeypatch, capsys):
    """A newline in a path could end a comment; images are found relative to where the script was written."""
    numpy = pytest.importorskip("numpy")
    folder = tmp_path / "it's\n$(touch pwned)"
    folder.mkdir()
    monkeypatch.chdir(folder)
    x, y = numpy.random.default_rng(0).normal(size=(12, 1, 4, 4)), numpy.arange(12) % 2
    numpy.savez("images.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (folder / "odd.yaml").write_text(CONFIG)
    text = script(capsys, "odd.yaml", "--shards", 2, "--set", "kernel.columns=[CNTK-V, CNTK-GAP]")
    assert "--executor auto" in text  # otherwise each job of the array would submit jobs
    (tmp_path / "array.sh").write_text(text)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for task in "12":
        done = subprocess.run(
            ["bash", "../array.sh"], cwd=elsewhere, capture_output=True, text=True, timeout=300,
            env=os.environ | {"SLURM_ARRAY_TASK_ID": task, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert Follower(Run(folder / "runs" / "odd")).look().finished
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing(tmp_path, capsys):
    file = tmp_path / "it's $x.yaml"
    file.write_text("name: odd\ncompute: {slurm: {environment: ['export A=\"b c\"']}}")
    text = script(capsys, file, "--set", "dataset.train=20")
    subprocess.run(["shellcheck", "--severity=warning", "-"], input=text, text=True, check=True)


@pytest.mark.parametrize(
    "memory, expected", [("8GB", "8192M"), ("1.5GB", "1536M"), ("2TB", "2097152M"), ("0.3MB", "1M")]
)
def test_memory_is_whole_mebibytes(memory, expected):
    assert f"--mem={expected}" in sbatch.script(
        sections.Slurm(memory=memory).model_dump(), "x", ["x"], Run("r").path, Run("f").path, 1
    )


@pytest.mark.parametrize(
    "value, words",
    [
        ('partition="a b"', "compute.slurm.partition is 'a b': expected the name of a partition"),
        ("time=soon", "compute.slurm.time is 'soon': expected a time limit in the format of Slurm"),
        ("memory=16G", "compute.slurm.memory is '16G': expected the memory of a job, such as 16GB"),
        ("cores=0", "compute.slurm.cores is 0: expected the cores of a job"),
        ('environment=["a\\nb"]', "compute.slurm.environment is .*: expected a list of shell lines"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_with_its_key(tmp_path, capsys, value, words):
    (tmp_path / "x.yaml").write_text("{}")
    assert call(["slurm-script", str(tmp_path / "x.yaml"), "--set", f"compute.slurm.{value}"]) == 2
    assert re.search(words, capsys.readouterr().err)
