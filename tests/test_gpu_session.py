"""The script of the first half hour on a GPU machine, run through without one."""

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "gpu_session.sh"
STEPS = {
    1: {"memory": 0, "disk": 0, "packages": 0, "quick": 2},  # 2: no GPU, and it says so
    2: {"acceptance": 2},
    3: {"join": 0, "v-column": 0, "gap-2k": 0},
}


def call(number, folder, **more):
    places = {
        "OUT": folder / "out",
        "STASH": folder / "stash",
        "PARTS": folder / "parts",
        "WHEELS": folder / "none",
    }
    environment = os.environ | {name: str(path) for name, path in places.items()} | more
    environment |= {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        ["bash", SCRIPT, *([str(number)] if number else [])], env=environment, capture_output=True, text=True
    )
    return done, folder / "out"


@pytest.mark.parametrize("number", STEPS)
def test_every_step_runs_in_the_dry(tmp_path, number):
    done, out = call(number, tmp_path, DRY="1")
    said = dict(re.findall(r"^([\w-]+): exit code (\d+)", (out / f"call-{number}.txt").read_text(), re.M))
    assert {name: int(said[name]) for name in STEPS[number]} == STEPS[number], done.stdout
    assert len(list(out.iterdir())) <= 8 and sum(path.stat().st_size for path in out.iterdir()) < 2**24
    with tarfile.open(out / f"call-{number}.tar.gz") as archive:
        names = archive.getnames()
    assert {f"./{name}.log" for name in STEPS[number]} <= set(names)
    if number == 3:
        record = json.loads((out / "v-record.json").read_text())
        assert [stage["stage"] for stage in record["stages"]] == ["compute", "solve"]


def test_a_wrong_call_shows_how():
    done, _ = call(None, Path("nowhere"))
    assert done.returncode == 2 and "DRY=1 scripts/gpu_session.sh N" in done.stderr


def test_no_call_is_planned_for_more_than_ten_minutes():
    """By the limits of its steps, most of which end long before."""
    text = SCRIPT.read_text()
    calls = re.split(r"^[123]\)$", text, flags=re.M)[1:]
    assert len(calls) == 3
    for part in calls[:2]:
        assert sum(int(seconds) for seconds in re.findall(r"step (\d+)", part)) <= 660
