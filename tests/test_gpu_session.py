"""The script of the first calls on a GPU machine, run through without one."""

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "gpu_session.sh"
STEPS = {
    0: {},
    1: {"memory": 0, "disk": 0, "packages": 0, "quick": 2},  # 2: no GPU, and it says so
    2: {"join": 0, "v": 0},
    3: {"acceptance": 2},
    4: {"join": 0, "gap-2k": 0},
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
        ["bash", SCRIPT, *([] if number is None else [str(number)])],
        env=environment,
        capture_output=True,
        text=True,
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
    assert len(list(out.glob("*-record.json"))) == (number in (2, 4))
    for path in out.glob("*-record.json"):
        record = json.loads(path.read_text())
        assert [stage["stage"] for stage in record["stages"]] == ["compute", "solve"]


def test_a_wrong_call_shows_how():
    done, _ = call(None, Path("nowhere"))
    assert done.returncode == 2 and "DRY=1 scripts/gpu_session.sh N" in done.stderr


def test_parts_that_came_with_several_calls_make_one_file(tmp_path):
    (tmp_path / "parts").mkdir()
    for number in range(2):
        for file in (tmp_path / "parts").iterdir():
            file.unlink()
        images = np.full((2, 1), number, np.uint8)
        np.savez(tmp_path / "parts" / f"part-{number}.npz", x_train=images, y_train=images[:, 0])
        call(0, tmp_path, DRY="1")
    join = SCRIPT.read_text().split("<<'PYTHON'\n")[1].split("\nPYTHON\n")[0]
    whole = tmp_path / "stash" / "cifar10.npz"
    subprocess.run([sys.executable, "-c", join, whole, whole.parent], check=True)
    with np.load(whole) as found:
        assert found["x_train"].tolist() == [[0], [0], [1], [1]] and found["y_train"].tolist() == [0, 0, 1, 1]


def test_no_call_is_planned_for_more_than_ten_minutes():
    """By the limits of its steps, most of which end long before; the first two fit a quarter of an hour with
    three minutes for a machine to start and for the images to travel."""
    text = SCRIPT.read_text()
    calls = re.split(r"^[0-4]\)", text, flags=re.M)[1:]
    assert len(calls) == len(STEPS)
    join = int(re.search(r"step (\d+) join", text).group(1))
    most = [
        sum(map(int, re.findall(r"(?:step|column) (\d+)", part))) + join * ("cifar10\n" in part)
        for part in calls
    ]
    assert max(most) <= 660 and most[1] + most[2] <= 840
