"""The script for the first calls on a GPU machine, run here without a GPU."""

import json
import os
import re
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "gpu_steps.sh"
JOIN = ROOT / "scripts" / "join_npz.py"
STEPS = {
    "keep": {},
    "checks": {"memory": 0, "growing": 0, "packages": 0, "cuda-tests": 0, "made-up": 0, "smoke": 0},
    "quick": {"quick": 2},  # there is no GPU, and it says so
    "sanitizers": {},
    "v": {"made-up": 0, "v": 0},
    "acceptance": {"acceptance": 2},
    "profile": {"made-up": 0},
    "gap-2k": {"made-up": 0, "gap-2k": 0},
    "lap-2k": {"made-up": 0, "lap-2k": 0},
    "cifar2-gap": {"made-up": 0, "cifar2-gap": 0},
    "low-data": {"made-up": 0, "low-data": 0, "curve": 0},
    "networks": {"made-up": 0, "networks": 0} if find_spec("torch") else {},
}
# Calls that solve a run of their own name; `checks` has one of another name.
SOLVED = {name: name for name, steps in STEPS.items() if name in steps} | {"checks": "smoke"}
del SOLVED["quick"], SOLVED["acceptance"]
GAP = {"CNTK-GAP", "CNTK-V", "CNN-GP-GAP", "CNN-GP-V"}
WINDOWS = ("V", *(f"LAP{c}" for c in range(4, 29, 4)), "LAP31")
POOLS = (*WINDOWS, *(f"{window}-FLIP" for window in WINDOWS))
COLUMNS = {
    "smoke": {"CNTK-V"},
    "v": {"CNTK-V"},
    "gap-2k": GAP,
    "lap-2k": {f"{kernel}-{pool}" for kernel in ("CNTK", "CNN-GP") for pool in POOLS},
    "cifar2-gap": GAP,
    "low-data": {"CNTK-GAP"},
    "networks": {"CNN-V", "CNTK-V", "CNN-GAP", "CNTK-GAP"},
}


def call(name, folder, **more):
    places = {
        "OUT": folder / "out",
        "STASH": folder / "stash",
        "PARTS": folder / "parts",
        "WHEELS": folder / "none",
    }
    environment = os.environ | {name: str(path) for name, path in places.items()}
    environment |= {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""} | more
    done = subprocess.run(
        ["bash", SCRIPT, *([name] if name else [])], env=environment, capture_output=True, text=True
    )
    return done, folder / "out"


@pytest.mark.parametrize("name", STEPS)
def test_every_step_runs_in_the_dry(tmp_path, name):
    done, out = call(name, tmp_path, DRY="1")
    said = dict(re.findall(r"^([\w-]+): exit code (\d+)", (out / f"call-{name}.txt").read_text(), re.M))
    assert {step: int(said[step]) for step in STEPS[name]} == STEPS[name], done.stdout
    assert len(list(out.iterdir())) <= 8 and sum(path.stat().st_size for path in out.iterdir()) < 2**24
    with tarfile.open(out / f"call-{name}.tar.gz") as archive:
        names = archive.getnames()
    assert {f"./{step}.log" for step in STEPS[name]} <= set(names)
    column = SOLVED.get(name)
    assert [path.name for path in out.glob("*-record.json")] == ([f"{column}-record.json"] if column else [])
    if column:
        record = json.loads((out / f"{column}-record.json").read_text())
        trained = ["train"] if name == "networks" else []
        assert [stage["stage"] for stage in record["stages"]] == ["compute", *trained, "solve"]
        assert record["stages"][-1]["solver"] == "cholesky"
        assert {one["column"] for one in record["solutions"]} == COLUMNS[column]
        assert record["data"].get("draws", 1) == (10 if name == "low-data" else 1)
        assert ("./low-data-curve/CNTK-GAP-3.json" in names) == (name == "low-data")
        assert f"./{column}-report/table.md" in names and "s.e." in done.stdout
        assert not (tmp_path / "stash" / f"{column}.run" / "gram.zarr").exists()


def test_what_a_stopped_column_has_computed_stays_for_the_next_call(tmp_path):
    """A stand-in program ends as a stopped one does, with some tiles and a cell finished."""
    run = tmp_path / "stash" / "v.run"
    (run / "gram.zarr").mkdir(parents=True)
    cells = run / "solves" / ".solving-1" / "cells"
    cells.mkdir(parents=True)
    (cells / "CNTK-V-3.json").write_text('{"accuracy": 64.0}\n')
    (run / "record.json").write_text("{}")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$2" = cntk_bench ] && exit 143\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done, out = call("v", tmp_path, DRY="1", PYTHON=str(python))
    assert "v: exit code 143" in done.stdout and (run / "gram.zarr").is_dir()
    assert json.loads((out / "v-cells.json").read_text()) == {"accuracy": 64.0}
    assert (out / "v-record.json").exists()


def test_the_depths_of_two_classes_may_be_chosen(tmp_path):
    call("cifar2-gap", tmp_path, DRY="1", DEPTHS="[3, 11]")
    record = json.loads((tmp_path / "out" / "cifar2-gap-record.json").read_text())
    assert record["data"]["classes_used"] == [0, 1]
    assert {one["depth"] for one in record["solutions"]} == {3, 11}


@pytest.mark.parametrize("name", [None, "1", "quick "])
def test_a_wrong_call_shows_how(name):
    done, _ = call(name, Path("nowhere"))
    assert done.returncode == 2 and "DRY=1 scripts/gpu_steps.sh CALL" in done.stderr
    assert all(f"gpu_steps.sh {known} " in done.stderr for known in STEPS)


def test_parts_that_came_with_several_calls_make_one_file(tmp_path):
    (tmp_path / "parts").mkdir()
    for number in range(2):
        for file in (tmp_path / "parts").iterdir():
            file.unlink()
        images = np.full((2, 1), number, np.uint8)
        np.savez(tmp_path / "parts" / f"part-{number}.npz", x_train=images, x_test=images[:1])
        call("keep", tmp_path, DRY="1")
    parts, whole = sorted((tmp_path / "stash").glob("part-*.npz")), tmp_path / "whole.npz"
    missing = subprocess.run(
        [sys.executable, JOIN, whole, "4", "2", parts[0]], capture_output=True, text=True
    )
    assert missing.returncode == 1 and "1 parts have (2, 1) training and test images" in missing.stderr
    assert not whole.exists()
    subprocess.run([sys.executable, JOIN, whole, "4", "2", *reversed(parts)], check=True)
    with np.load(whole) as found:
        assert found["x_train"].tolist() == [[0], [0], [1], [1]] and found["x_test"].tolist() == [[0], [1]]
    before = whole.read_bytes()
    subprocess.run([sys.executable, JOIN, whole, "4", "2"], check=True)  # without parts, as the file exists
    assert whole.read_bytes() == before and sorted(file.name for file in tmp_path.glob("*.npz")) == [
        "whole.npz"
    ]


def test_no_call_is_planned_for_more_than_ten_minutes():
    """Added up from the time limits of its steps, most of which end long before."""
    text = SCRIPT.read_text()
    calls = dict(re.findall(r"^([\w-]+)\)(.*?);;$", text, re.M | re.S))
    assert set(STEPS) - {"keep"} <= set(calls)
    helpers = {name: int(re.search(rf"step (\d+) {name}", text).group(1)) for name in ("join", "made-up")}
    for name in set(STEPS) - {"keep"}:
        part = calls[name]
        times = 2 if "for " in part else 1
        most = times * sum(map(int, re.findall(r"(?:step|column) (\d+)", part)))
        most += helpers["join"] * ("    cifar10\n" in part) + helpers["made-up"] * ("made_up" in part)
        wheels = int(re.search(r"step (\d+) wheels", text).group(1))
        assert 0 < wheels + most <= 600, name
