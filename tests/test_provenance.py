"""Where a number came from, on a machine whose programs may answer anything."""

import io
import os
import platform
import re
import socket
import subprocess
import sys
import threading
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from cntk_bench.records import provenance


def test_the_machine_is_this_one():
    found = provenance.machine()
    assert found["platform"] == f"{os.uname().sysname} {os.uname().machine}"
    assert 1 <= found["cores"] <= os.cpu_count()
    assert found["memory"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert provenance.versions()["python"] == ".".join(map(str, sys.version_info[:3]))
    assert provenance.installed("no-such-library") is None


def test_a_stamp_says_when_by_what_and_where(monkeypatch):
    for name in ("commit", "versions", "machine"):
        monkeypatch.setattr(provenance, name, lambda name=name: f"its {name}")
    stamp = provenance.stamp()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", stamp.pop("started"))
    assert stamp == {
        "process": f"{os.getpid()} on {socket.gethostname()}",
        "tool": provenance.__version__,
        "commit": "its commit",
        "versions": "its versions",
        "machine": "its machine",
    }


def test_every_library_that_a_number_may_depend_on_has_its_version_told():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(line for name in ("cuda12", "cuda13", "torch", "gpytorch") for line in optional[name]),
    ]
    names = {re.match(r"[\w-]+", line)[0] for line in wanted}
    # These only print, download or count threads.
    names -= {"click", "jinja2", "pooch", "rich", "threadpoolctl"}
    assert names | {"llvmlite"} == set(provenance.LIBRARIES)  # llvmlite is numba's compiler
    found = provenance.versions()
    assert found.pop("python") == platform.python_version()
    assert found["numpy"] == metadata.version("numpy")
    assert set(found) <= set(provenance.LIBRARIES) and all(found.values())


def test_a_library_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(provenance, "LIBRARIES", ("numpy", "no-such-library"))
    assert set(provenance.versions()) == {"python", "numpy"}


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda process: range(5 if process == 0 else 7), raising=False
    )
    assert provenance.machine()["cores"] == 5
    monkeypatch.delattr(os, "sched_getaffinity")  # some systems do not have it
    for count, cores in ((3, 3), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert provenance.machine()["cores"] == cores


@pytest.mark.parametrize(
    ("cpuinfo", "processor", "cpu"),
    [
        ("processor\t: 0\nmodel name\t: A CPU: 2\x1b GHz \nmodel name\t: another\n", "", r"A CPU: 2\x1b GHz"),
        (
            "cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: A CPU\nflags\t: fma avx2 avx512f\n\nmodel\t: 3\n",
            "",
            "A CPU (family 26, model 2, AVX-512)",
        ),
        ("model name\t: A CPU\nflags\t: fma avx2\n", "", "A CPU (AVX2)"),
        ("processor\t: 0\nCPU part\t: 0xd4f\n", "aarch64", "aarch64 (part 0xd4f)"),
        ("processor\t: 0\nCPU part\t: 0xd4f\n", "", None),
        ("", "", None),
        (None, "arm", "arm"),  # the file does not exist
    ],
)
def test_the_cpu_is_named_as_the_system_names_it(monkeypatch, cpuinfo, processor, cpu):
    def opened(*_, **__):
        if cpuinfo is None:
            raise FileNotFoundError
        return io.StringIO(cpuinfo)

    monkeypatch.setattr(provenance, "open", opened, raising=False)
    monkeypatch.setattr(platform, "processor", lambda: processor)
    assert provenance.machine()["cpu"] == cpu


@pytest.mark.parametrize(
    ("script", "gpus"),
    [
        ("echo 'NVIDIA H100'; echo 'NVIDIA H200'", ["NVIDIA H100", "NVIDIA H200"]),
        ("printf 'a\\033]0;title\\007b\\377'", [r"a\x1b]0;title\x07b\ufffd".replace(r"\ufffd", "\ufffd")]),
        ("echo rubbish; exit 9", []),
        ("exec yes", []),  # prints without end
        ("yes | head -c 30000; exec sleep 1000", []),
        ("echo rubbish; kill -9 $$", []),
        ("echo 'NVIDIA H100'; exec >&-; sleep 0.2", ["NVIDIA H100"]),  # closes its output, then ends
        ("echo rubbish; exec >&-; exec sleep 1000", []),
        ("yes | head -n 100", ["y"] * 64),
        ("sleep 1000 & exit 0", []),  # leaves a process that holds the pipe open
    ],
)
def test_a_tool_that_prints_rubbish(tmp_path, monkeypatch, script, gpus):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "PATIENCE", 1)
    assert provenance.machine()["gpus"] == gpus


@pytest.mark.parametrize(("script", "gpus"), [("printf 1234567", ["1234567"]), ("exec yes", [])])
def test_an_answer_of_bounded_length_is_not_waited_for_longer_than_it_takes(
    tmp_path, monkeypatch, script, gpus
):
    """Nothing is left behind that could later signal an unrelated process with the same number."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "PATIENCE", 1000)
    monkeypatch.setattr(provenance, "MOST", 7)
    before = set(threading.enumerate())
    assert provenance.machine()["gpus"] == gpus
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()


def test_no_thread_to_wait_in(tmp_path, monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100'; exec sleep 1000\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert provenance.machine()["gpus"] == []


def test_commit_is_that_of_the_checkout_the_tool_is_tracked_in(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    module = tmp_path / "provenance.py"
    module.write_text("one")
    monkeypatch.setattr(provenance, "__file__", str(module))
    (tmp_path / "other").write_text("")
    git("init")
    git("add", "provenance.py")
    assert provenance.commit() is None  # there is no commit yet
    git("reset")
    git("add", "other")
    git("commit", "-m", "a")
    assert provenance.commit() is None  # not tracked, so it is installed inside another repository
    for told, known in (
        ("abcdef0", "abcdef0"),
        ("0123abc-dirty", "0123abc-dirty"),
        ("master", None),
        ("", None),
    ):
        monkeypatch.setenv(provenance.COMMIT, told)
        assert provenance.commit() == known
    monkeypatch.setenv(provenance.COMMIT, "abcdef0")  # once git knows a commit, it takes precedence
    git("add", ".")
    git("commit", "-m", "b")
    clean = provenance.commit()
    assert re.fullmatch(r"[0-9a-f]{40}", clean)
    index = (tmp_path / ".git" / "index").read_bytes()
    os.utime(module, (1e9, 1e9))  # git would now update its index, as the content is unchanged
    assert provenance.commit() == clean
    assert (tmp_path / ".git" / "index").read_bytes() == index  # but asking does not change the index
    (tmp_path / "untracked").write_text("")
    assert provenance.commit() == clean
    module.write_text("two")
    assert provenance.commit() == f"{clean}-dirty"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as git sets it for hooks
    assert provenance.commit() == f"{clean}-dirty"
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() == "abcdef0"  # git cannot be found
    monkeypatch.delenv(provenance.COMMIT)
    assert provenance.commit() is None
