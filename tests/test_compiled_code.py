"""Code compiled by Numba: kept on disk where possible, and compiled anew if the kept code is unusable."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cntk_bench.backends.cpu import compilation

CODE = """
import numpy as np
from cntk_bench import Readout, gram
x = np.random.default_rng(0).standard_normal((2, 16, 1, 1)).astype("f4")
print(gram(x, readouts=[Readout("fc-ntk", "", 3)], backend="cpu").tobytes().hex())
"""  # this kernel compiles fastest; `test_every_kernel_is_kept_so` is about the others


LOUD = f"import logging; logging.basicConfig(level=logging.INFO)\n{CODE}"


def kept(folder):
    return {file.name: file.read_bytes() for file in folder.glob("*.nbc")}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that runs code in a new process, with a copy of the package, and returns its output."""
    site = tmp_path_factory.mktemp("site")
    source = Path(compilation.__file__).parents[2]
    shutil.copytree(source, site / source.name, ignore=shutil.ignore_patterns("__pycache__"))

    def run(folder, code=CODE, **environment):
        ours = {"PYTHONPATH": str(site), "NUMBA_CACHE_DIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | ours | nowhere | environment,
            cwd=site,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip(), done.stderr

    return run


@pytest.fixture(scope="module")
def warm(run, tmp_path_factory):
    """A cache with the compiled code of `CODE`, and what `CODE` prints."""
    folder = tmp_path_factory.mktemp("cache")
    printed, _ = run(folder)
    assert list(folder.glob("*.nbc"))
    return folder, printed


def test_every_kernel_is_kept_so():
    from cntk_bench.backends.cpu import fully_connected, planes

    assert all(isinstance(f._cache, compilation.CodeCache) for f in (fully_connected.task, planes.recursion))


def cut(content):
    return content[:100]


DAMAGES = {
    "nothing": lambda content: b"",
    "a cut": cut,
    "garbage": lambda content: os.urandom(len(content)),
    "a flipped bit": lambda content: content[:500] + bytes([content[500] ^ 1]) + content[501:],
    "another version's": lambda content: b"\0" * 32 + content[32:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_code_is_compiled_anew_and_replaced(run, warm, tmp_path, damage):
    folder = shutil.copytree(warm[0], tmp_path / "cache")
    for file in folder.glob("*.nbc"):
        file.write_bytes(damage(file.read_bytes()))
    damaged = kept(folder)
    assert run(folder, LOUD)[0] == warm[1]
    mended = kept(folder)
    assert mended.keys() == damaged.keys() and not set(mended.values()) & set(damaged.values())
    printed, said = run(folder, LOUD)  # now the kept code is used
    assert (printed, kept(folder)) == (warm[1], mended) and "not used" not in said


@pytest.mark.parametrize("kind", ["a file", "a device", "a missing folder", "a link to itself", "read only"])
def test_a_place_that_cannot_be_written_costs_only_time(run, warm, tmp_path, kind):
    folder = tmp_path / "place"
    match kind:
        case "a file":
            folder.write_text("precious")
        case "a device":
            folder = Path("/dev/null")
        case "a missing folder":
            folder = folder / "deep" / "down"
        case "a link to itself":
            folder.symlink_to(folder)
        case "read only":
            folder = Path("/proc")
    printed, _ = run(folder)
    assert printed == warm[1]
    if kind == "a file":
        assert folder.read_text() == "precious"


def test_where_nothing_can_be_kept_a_warning_says_what_to_do(tmp_path, monkeypatch, caplog):
    import numba

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compilation, "folders", lambda: iter([tmp_path / "file" / "below"]))

    @compilation.keep_code
    @numba.njit
    def twice(x):
        return 2 * x

    assert twice(21) == 42 and twice(0.5) == 1.0
    (message,) = caplog.messages
    assert "cannot be kept" in message and "set NUMBA_CACHE_DIR" in message


def test_code_of_another_user_is_not_run(run, warm, tmp_path):
    if os.geteuid():
        pytest.skip("only root may give files away")
    folder = shutil.copytree(warm[0], tmp_path / "cache")
    for file in folder.glob("*.nbc"):
        os.chown(file, 12345, 12345)
    printed, said = run(folder, LOUD)
    assert printed == warm[1] and "of another user" in said


def test_importing_and_computing_change_nothing_of_the_process(run, tmp_path):
    """A user's own functions are compiled as before; signals, warnings and variables stay as they were."""
    code = """
import os, signal, warnings
import numba, numpy as np
def state():
    config = {name: repr(getattr(numba.config, name)) for name in dir(numba.config) if name.isupper()}
    signals = [signal.getsignal(s) for s in (2, 15, 1)]
    return config, dict(os.environ), signals, list(warnings.filters), np.geterr()
before = state()
from cntk_bench import Readout, gram
x = np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype("f4")
gram(x, readouts=[Readout("ntk", "v", 3)], backend="cpu")
names = ("numba", "environment", "signals", "warnings", "errors")
print([name for name, one, other in zip(names, before, state()) if one != other])
"""
    assert run(tmp_path, code)[0] == "[]"


def test_a_broken_cupy_is_hidden_from_libraries_that_look_for_it(run, tmp_path):
    (tmp_path / "cupy.py").write_text("raise OSError('no home')")
    code = "import sys, cntk_bench.grams.store; print('cupy' in sys.modules)"
    path = f"{tmp_path}:{Path(compilation.__file__).parents[3]}"
    assert run(tmp_path, code, PYTHONPATH=path)[0] == "False"
