"""How much memory this process has used."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cntk_bench.system import memory

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")


def test_the_peak_rises_with_what_is_taken_and_does_not_fall():
    before = memory.peak()
    some = np.ones(2**26, np.uint8)  # 64 MiB, written to, so really taken
    after = memory.peak()
    assert after >= before and after > some.nbytes
    del some
    assert memory.peak() == pytest.approx(after, rel=0.1)


@linux
def test_a_process_does_not_begin_with_the_peak_of_the_one_that_started_it():
    """`getrusage` would say so: a plan started from a notebook that holds images would get their peak."""
    child = "from cntk_bench.system import memory; print(memory.peak())"
    parent = f"""
import subprocess, sys
held = bytearray(b"x") * 2**29
found = subprocess.run([sys.executable, "-c", {child!r}], capture_output=True, text=True, check=True)
print(found.stdout)
"""
    found = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 2**29


def test_elsewhere_the_systems_account_is_taken(monkeypatch):
    class Missing(type(Path())):
        def read_text(self, *arguments, **named):
            raise FileNotFoundError(self)

    monkeypatch.setattr(memory, "Path", Missing)
    monkeypatch.setattr(memory.resource, "getrusage", lambda _: type("Usage", (), {"ru_maxrss": 1000}))
    for platform, expected in (
        ("linux", 1_024_000),
        ("freebsd14", 1_024_000),
        ("darwin", 1000),
    ):  # KiB, but bytes on macOS
        monkeypatch.setattr(memory.sys, "platform", platform)
        assert memory.peak() == expected
