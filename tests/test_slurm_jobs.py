"""Jobs that never become workers, with stand-ins for Slurm's programs (`test_slurm.py` has the real ones)."""

import os
import sys

import pytest
from errands import Errand, Job

from cntk_bench import executors
from cntk_bench.config.sections import Slurm
from cntk_bench.errors import UserError
from cntk_bench.executors import Workers

pytest.importorskip("dask_jobqueue", reason="not installed: pip install 'cntk-bench[cluster]'")
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")

# A job is a process, whose id is in the file jobs/NUMBER. The file `how` has a word for each submission.
SBATCH = """#!/bin/bash
cd "$SLURM" || exit 1
how=$(head -n 1 how); sed -i 1d how
if [ "$how" = refuse ]; then
    echo "sbatch: error: invalid partition specified: nope" >&2
    exit 1
fi
number=$((100 + $(ls scripts | wc -l)))
cp "$1" scripts/$number
if [ "$how" != die ]; then
    setsid bash scripts/$number >jobs/$number.out 2>&1 </dev/null &
    echo $! >jobs/$number
fi
echo "Submitted batch job $number"
"""
SQUEUE = """#!/bin/bash
cd "$SLURM/jobs" || exit 1
for job in $(ls | grep -v out); do kill -0 "$(cat "$job")" 2>/dev/null && echo "$job"; done
exit 0
"""
SCANCEL = """#!/bin/bash
[ -e "$SLURM/jobs/$1" ] && kill -- -"$(cat "$SLURM/jobs/$1")"
exit 0
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with the programs; returns a function that sets how submissions go."""
    from cntk_bench.executors import jobs

    folder = tmp_path / "slurm"
    for name in ("bin", "jobs", "scripts"):
        (folder / name).mkdir(parents=True)
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL}.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(jobs, "LOOK", 1.0)
    monkeypatch.chdir(tmp_path)
    return lambda *how: (folder / "how").write_text("".join(f"{word}\n" for word in how))


def run(folder, count=5, workers=1):
    told = []
    asked = Workers(places=({},) * workers, slurm=Slurm(interface="lo").model_dump())
    executors.run("slurm", Job(folder, 0.01), map(Errand, range(count)), told.append, lambda: False, asked)
    return sorted(task.number for task in told)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "done").mkdir()
    return tmp_path / "done"


def test_what_sbatch_refuses_is_an_error_at_once(slurm, folder):
    slurm("refuse")
    with pytest.raises(UserError, match=r"refuses the jobs \(.*invalid partition specified: nope\): mend"):
        run(folder)


def test_jobs_that_end_before_they_begin_are_an_error(slurm, folder):
    slurm(*["die"] * 9)
    with pytest.raises(UserError, match="3 of Slurm's jobs ended before they could begin: read .*slurm-logs"):
        run(folder)


def test_a_job_that_ends_before_it_begins_is_asked_for_again(slurm, folder, caplog, tmp_path):
    slurm("die", "run", *["refuse"] * 99)
    assert run(folder) == [0, 1, 2, 3, 4]
    assert caplog.text.count("it ended before it could begin") == 1
    script = (tmp_path / "slurm" / "scripts" / "101").read_text()
    assert "umask 077" in script and "PRIVATE KEY" not in script
    assert not list(tmp_path.glob(".cntk-bench-*"))  # the certificates are removed
