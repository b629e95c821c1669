"""Where a number came from, asked of a machine whose programs may answer anything."""

import os
import re
import subprocess
import sys

import pytest

from cntk_bench import provenance


def test_the_machine_is_this_one():
    found = provenance.machine()
    assert 1 <= found["cores"] <= os.cpu_count()
    assert found["memory"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert provenance.versions()["python"] == ".".join(map(str, sys.version_info[:3]))
    assert provenance.installed("no-such-library") is None


@pytest.mark.parametrize(
    ("script", "gpus"),
    [
        ("echo 'NVIDIA H100'; echo 'NVIDIA H200'", ["NVIDIA H100", "NVIDIA H200"]),
        ("printf 'a\\033]0;title\\007b\\377'", [r"a\x1b]0;title\x07b\ufffd".replace(r"\ufffd", "\ufffd")]),
        ("exit 9", []),
        ("exec yes", []),  # prints without end
        ("kill -9 $$", []),
        ("sleep 1000 & exit 0", []),  # leaves a process that holds the pipe
    ],
)
def test_a_tool_that_prints_rubbish(tmp_path, monkeypatch, script, gpus):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "PATIENCE", 1)
    assert provenance.machine()["gpus"] == gpus


def test_commit_is_that_of_the_checkout_the_tool_is_tracked_in(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    module = tmp_path / "provenance.py"
    module.write_text("one")
    monkeypatch.setattr(provenance, "__file__", str(module))
    (tmp_path / "other").write_text("")
    git("init")
    git("add", "other")
    git("commit", "-m", "a")
    assert provenance.commit() is None  # not tracked: installed beside
    git("add", ".")
    git("commit", "-m", "b")
    clean = provenance.commit()
    assert re.fullmatch(r"[0-9a-f]{40}", clean)
    module.write_text("two")
    assert provenance.commit() == f"{clean}-dirty"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as git sets it for its hooks
    assert provenance.commit() == f"{clean}-dirty"
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None  # no git
