"""Files of a run: who may write them, under any umask; and none of them contains a secret."""

import os
import re
import shutil
import stat

import pytest
import s3
from test_cli import call

from cntk_bench.config import config
from cntk_bench.errors import UserError

CONFIG = """
name: small
dataset: {name: digits, train: 20, test: 10}
kernel: {columns: [CNTK-V], depths: [3]}
compute: {tile: 8, backend: cpu}
"""


@pytest.fixture
def masked():
    """A function that sets the umask, which is restored at the end."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("umask, executor", [(0o000, "processes"), (0o002, "local"), (0o077, "local")])
def test_nobody_else_may_write_and_a_group_may_where_the_umask_says_so(tmp_path, masked, umask, executor):
    (tmp_path / "small.yaml").write_text(CONFIG)
    masked(umask)
    run = tmp_path / "runs" / "run"
    workers = ("--executor", executor, "--set", "compute.workers=1")
    arguments = (tmp_path / "small.yaml", "--output", run, *workers)
    assert call("run", *arguments).returncode == 0
    assert call("compute", *arguments, "--set", "dataset.train=26").returncode == 0  # the run grew
    unsolved = ("--set", "solve.solver=cg", "--set", "solve.iterations=1")
    exported = ("--column", "CNTK-V", "--depth", 3, "--to", run / "k.npz")
    for more in (("solve", run, *unsolved), ("curve", run), ("verify", run), ("export", run, *exported)):
        assert call(*more).returncode in (0, 2)
    assert os.umask(umask) == umask  # the calling process has its own umask again
    found = [run.parent, run, *run.rglob("*")]
    names = {re.sub("-[0-9a-f]{16}", "", path.name) for path in found}
    assert {"record.json", "config.yaml", "c.0.0.0", "lock", "ntk-v-3-all.npz", "report", "k.npz"} <= names
    for path in found:
        mode = path.stat().st_mode
        assert not mode & stat.S_IWOTH, path
        assert bool(mode & stat.S_IWGRP) == (umask != 0o077), path
        assert umask != 0o077 or not mode & 0o077, path


@pytest.mark.parametrize(
    "command", [("run",), ("compute",), ("solve",), ("sweep", "--over", "solve.ridge=[0.1,1]")]
)
def test_no_command_replaces_files_of_its_user(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    texts = {"config.yaml": f"# mine\n{CONFIG}", "report/thesis.txt": "mine", "solutions/answers.txt": "mine"}
    texts |= {"log.txt": "mine", "sweep/table.csv": "mine"}
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    where = (".",) if command == ("solve",) else ("config.yaml", "--output", ".")
    done = call(*command, *where)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert ("has config.yaml and solutions and report" in done.stderr) == (command != ("solve",))
    found = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: path.read_text() for name, path in found.items()} == texts


def test_a_run_continues_from_its_own_config_beside_unrelated_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG)
    (tmp_path / "run" / "sweep").mkdir(parents=True)
    for name in ("run/thesis.txt", "run/sweep/table.csv"):
        (tmp_path / name).write_text("mine")
    assert call("compute", "small.yaml", "--output", "run").returncode == 0
    assert call("run", "run/config.yaml", "--output", "run").returncode == 0
    done = call("sweep", "run/config.yaml", "--output", "run", "--over", "solve.ridge=[0.1,1]")
    assert done.returncode == 2 and "run/sweep has files that cntk-bench did not write" in done.stderr
    assert (
        (tmp_path / "run/thesis.txt").read_text() == (tmp_path / "run/sweep/table.csv").read_text() == "mine"
    )


def test_a_backup_by_hard_links_stays_as_it_is_while_the_run_continues(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG)
    run, backup = tmp_path / "run", tmp_path / "backup"
    assert call("run", "small.yaml", "--output", run).returncode == 0
    shutil.copytree(run, backup, copy_function=os.link)
    before = {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()}
    grown = ("--set", "dataset.train=26")  # tiles that were not whole are computed again
    for command in (("solve", run), ("run", "small.yaml", *grown, "--output", run), ("verify", run)):
        done = call(*command)
        assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()} == before
    assert (run / "log.1.txt").samefile(backup / "log.txt") and "asked: " in (run / "log.txt").read_text()
    assert call("solve", backup).returncode == 0


@pytest.mark.parametrize("key", ["environment", "directives"])
def test_credentials_in_a_config_are_refused_and_not_repeated(tmp_path, key):
    file, line = tmp_path / "small.yaml", f"--export=ALL,AWS_SECRET_ACCESS_KEY={s3.SECRET}"
    file.write_text(f"{CONFIG}\n")
    asked = f'compute.slurm.{key}=["{line}"]'
    with pytest.raises(UserError, match="^--set: compute.slurm: credentials would stand in scripts") as told:
        config.load(file, [asked])
    assert s3.SECRET not in str(told.value)
    file.write_text(CONFIG.replace("backend: cpu", f'backend: cpu, slurm: {{{key}: ["{line}"]}}'))
    for command in ("slurm-script", "compute"):
        done = call(command, file, "--output", tmp_path / "run", "--verbose")
        assert done.returncode == 2 and "small.yaml line 5: compute.slurm: credentials" in done.stderr
        assert s3.SECRET not in done.stdout + done.stderr and not (tmp_path / "run").exists()
    usual = 'slurm: {environment: [module load aws, "export AWS_PROFILE=lab"]}'
    file.write_text(CONFIG.replace("backend: cpu", f"backend: cpu, {usual}"))
    assert config.load(file).compute.slurm.environment[1] == "export AWS_PROFILE=lab"
