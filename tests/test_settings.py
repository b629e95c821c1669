"""A user's settings for libraries that we use change nothing, or an error of one line names them."""

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
    """Files named by ZARR_CONFIG are not read; a broken one below the home directory is reported."""
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


def test_nonsense_that_libraries_would_heed(tmp_path):
    """All at once: OpenMP would print or hang, Numba and CuPy would warn, XDG would make a folder named ~."""
    (tmp_path / "stub" / "cupy").mkdir(parents=True)
    (tmp_path / "stub" / "cupy" / "__init__.py").write_text("import warnings\nwarnings.warn('two CuPys')\n")
    openmp = ("OMP_PLACES", "OMP_PROC_BIND", "OMP_SCHEDULE", "OMP_NUM_THREADS", "GOMP_CPU_AFFINITY")
    done = run(
        tmp_path,
        **dict.fromkeys(openmp, "zzz"),
        **{name: "~/.cache" for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")},
        NUMBA_OPT="zzz",
        PYTHONPATH=os.pathsep.join((str(tmp_path / "stub"), str(REPOSITORY))),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "") and "CNTK-V" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["run", "stub"]


def test_a_cupy_that_ends_the_process_is_none(tmp_path):
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text("import sys\nsys.exit('CuPy is broken')\n")
    path = os.pathsep.join((str(tmp_path), str(REPOSITORY)))
    done = run(tmp_path, PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    done = call("compute", tmp_path / "run" / "config.yaml", "--backend", "cuda", "--output", "gpu",
                folder=tmp_path, PYTHONPATH=path)  # fmt: skip
    assert done.returncode == 2 and "the cuda backend cannot import CuPy (CuPy is broken)" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_threads: [\n", "Numba cannot be imported (ParserError: "),
        (
            "disable_jit: 1\n",
            "NUMBA_DISABLE_JIT is set (or disable_jit in .numba_config.yaml of the current ",
        ),
    ],
)
def test_a_file_of_numbas_settings(tmp_path, text, words):
    (tmp_path / ".numba_config.yaml").write_text(text)
    done = run(tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert words in done.stderr and ".numba_config.yaml" in done.stderr


def test_files_of_the_current_folder_are_not_imported(tmp_path):
    for name in ("yaml", "statistics", "random", "click", "logging", "numpy", "queue"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported')\n")
    done = call("info", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_current_folder_that_was_removed(tmp_path):
    """Absolute paths work from there; for other paths an error says that the folder was removed."""
    script = 'mkdir gone; cd gone; rmdir ../gone; exec "$@"'
    program = ["sh", "-c", script, "sh", sys.executable, "-m", "cntk_bench"]
    overrides = [word for override in SMALL for word in ("--set", override)]
    for output, words in ((tmp_path / "run", None), ("run", "the current folder was removed: cd to one")):
        command = [*program, "compute", "quickstart", *overrides, "--output", str(output)]
        variables = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == (0 if words is None else 2), done.stderr
        assert done.stderr == "" if words is None else words in done.stderr
    assert "in a folder that was removed" in (tmp_path / "run" / "log.txt").read_text()
