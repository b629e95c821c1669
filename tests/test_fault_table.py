"""The tables of faults: counted over several processes, and merged with earlier counts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import fault_table

HERE = Path(__file__).parent
TEXT = """# Title
<!-- faults: one process -->
<!-- end -->
between
<!-- faults: clusters -->
9 faults, all survived.

| kind of fault | injected | survived | commit |
|---|---:|---:|---|
| old | 5 | 5 | abc |
| poison | 4 | 4 | abc |
<!-- end -->
the rest
"""


def test_rows_are_replaced_by_kind_and_the_rest_stays():
    text = fault_table.updated(TEXT, {("clusters", "poison"): (7, 6), ("one process", "a"): (1, 1)}, "def")
    assert text.startswith("# Title\n") and text.endswith("the rest\n") and "between" in text
    assert "| a | 1 | 1 | def |" in text and "1 faults, all survived." in text
    assert "| old | 5 | 5 | abc |\n| poison | 7 | 6 | def |\n<!-- end -->" in text
    assert "12 faults, 11 survived." in text
    assert fault_table.updated(text, {}, "x") == text


TESTS = """
import pytest
@pytest.mark.parametrize("n", range(5))
def test_one(faults, n):
    faults("kill", 2)
    faults("stop")
    assert n != 3
@pytest.mark.skip
def test_none(faults):
    faults("kill")
"""


def test_faults_are_added_up_over_the_processes_of_xdist(tmp_path):
    shutil.copy(HERE / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "table.md").write_text(TEXT)
    options = ("-q", "-n1", "-p", "no:cacheprovider", "--faults-table=table.md")
    command = [sys.executable, "-m", "pytest", *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert "1 failed, 4 passed, 1 skipped" in done.stdout, done.stdout
    text = (tmp_path / "table.md").read_text()
    assert "| kill | 10 | 8 | " in text and "| stop | 5 | 4 | " in text and "| old | 5 | 5 | abc |" in text
