"""Other people's settings of the libraries that we use change nothing, or are told in a line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SMALL = ("dataset.train=20", "dataset.test=10", "kernel.columns=[CNTK-V]", "kernel.depths=[3]")


def call(*arguments, folder, **environment):
    command = [sys.executable, "-m", "cntk_bench", *map(str, arguments)]
    variables = os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=120)


def run(folder, **environment):
    overrides = [word for override in SMALL for word in ("--set", override)]
    return call("run", "quickstart", *overrides, "--output", "run", folder=folder, **environment)


@pytest.mark.parametrize(
    "variables",
    [
        {"ZARR_DEFAULT_ZARR_FORMAT": "2"},
        {"ZARR_ASYNC__CONCURRENCY": "0"},
        {"ZARR_JSON_INDENT": "abc", "ZARR_CODEC_PIPELINE__BATCH_SIZE": "0"},
        {"ZARR_CODEC_PIPELINE__PATH": "nonsense.X"},
    ],
    ids=str,
)
def test_settings_of_zarr(tmp_path, variables):
    done = run(tmp_path, **variables)
    assert (done.returncode, done.stderr) == (0, "") and "CNTK-V" in done.stdout


@pytest.mark.parametrize("text", ["default_zarr_format: 2\n", "{"])
def test_files_of_zarr(tmp_path, text):
    """Those that ZARR_CONFIG names are not read; a broken one below the home directory is told."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "zarr.yaml").write_text(text)
    done = run(tmp_path, ZARR_CONFIG=str(tmp_path / "theirs"))
    assert (done.returncode, done.stderr) == (0, "")
    home = tmp_path / "home" / ".config"
    home.mkdir(parents=True)
    (tmp_path / "theirs").rename(home / "zarr")
    done = run(tmp_path, HOME=str(home.parent), XDG_CONFIG_HOME=str(home), XDG_CACHE_HOME=str(tmp_path))
    if text == "{":
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "Zarr cannot be imported" in done.stderr and "~/.config/zarr" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")


def test_numba_without_its_compiler(tmp_path):
    done = run(tmp_path, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "NUMBA_DISABLE_JIT is set" in done.stderr and "unset it" in done.stderr


def test_a_pipe_as_settings_of_matplotlib(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    done = run(tmp_path, MATPLOTLIBRC=str(tmp_path / "pipe"))
    assert done.returncode == 0 and (tmp_path / "run" / "report" / "accuracy.png").exists()


@pytest.mark.parametrize("variables", [{}, {"COMP_WORDS": "cntk-bench ta", "COMP_CWORD": "x"}])
def test_a_completion_without_the_shells_variables_ends_quietly(tmp_path, variables):
    done = call(folder=tmp_path, _CNTK_BENCH_COMPLETE="bash_complete", **variables)
    assert (done.returncode, done.stderr) == (1, "")
