"""The record: what it holds, that it survives writing and a crash, and what damage is told."""

import json
import os
import re
import subprocess
from datetime import UTC, datetime

import numpy as np
import pytest

import cntk_bench
from cntk_bench import record
from cntk_bench.errors import UserError

DATA = {"name": "digits", "fingerprint": "ab12", "n_train": 60, "n_test": 40, "classes": 10}
DATA |= {"preprocess": "standardize"}
SOLUTION = {"column": "CNTK-V", "depth": 3, "accuracy": 91.5, "ridge": 0.0, "condition": 1e4}


@pytest.fixture
def started():
    return record.start({"name": "run", "dataset": {"path": None}}, DATA)


def test_a_new_record_says_what_where_and_when(started):
    assert started["format"] == record.FORMAT
    assert started["tool"] == cntk_bench.__version__
    assert started["name"] == "run" and started["config"]["dataset"] == {"path": None}
    assert started["data"] == DATA
    assert started["timings"] == {} and started["solutions"] == []
    assert started["versions"]["numpy"] == np.__version__
    assert 1 <= started["machine"]["cores"] <= os.cpu_count()
    assert started["machine"]["memory"] is None or started["machine"]["memory"] > 2**28
    age = datetime.now(UTC) - datetime.fromisoformat(started["date"])
    assert 0 <= age.total_seconds() < 60
    assert started["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", started["commit"])
    json.dumps(started, allow_nan=False)


def test_save_and_load_return_the_same(started, tmp_path):
    full = record.with_solutions(record.with_timing(started, "compute", 2.0, 10), [SOLUTION])
    record.save(started, tmp_path / "record.json")
    record.save(full, tmp_path / "record.json")
    assert record.load(tmp_path / "record.json") == full
    assert os.listdir(tmp_path) == ["record.json"]


def test_updates_leave_the_old_record_alone(started):
    before = json.dumps(started)
    record.with_solutions(record.with_timing(started, "compute", 2.0, 10), [SOLUTION])
    assert json.dumps(started) == before


def test_a_timing_replaces_that_of_its_stage_only(started):
    first = record.with_timing(started, "compute", 2.0, 10, backend="cpu")
    assert first["timings"]["compute"] == {
        "seconds": 2.0,
        "pairs": 10,
        "pairs_per_second": 5.0,
        "backend": "cpu",
    }
    second = record.with_timing(record.with_timing(first, "solve", 9.0), "compute", 5.0, 50)
    assert second["timings"] == {
        "compute": {"seconds": 5.0, "pairs": 50, "pairs_per_second": 10.0},
        "solve": {"seconds": 9.0},
    }
    assert record.with_timing(started, "compute", 0.0, 50)["timings"]["compute"]["pairs_per_second"] is None


def test_numpy_scalars_and_infinities_become_json(started, tmp_path):
    solution = SOLUTION | {
        "depth": np.int64(3),
        "accuracy": np.float32(91.5),
        "condition": np.float64(np.inf),
        "path": (np.float64(0.5), float("nan")),
        "positive": np.bool_(True),
    }
    record.save(record.with_solutions(started, [solution]), tmp_path / "r.json")
    text = (tmp_path / "r.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert record.load(tmp_path / "r.json")["solutions"] == [
        SOLUTION | {"condition": None, "path": [0.5, None], "positive": True}
    ]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_record(started, tmp_path, monkeypatch, call):
    path = tmp_path / "record.json"
    record.save(started, path)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(UserError, match="cannot write .*record.json: No space left on device; free space"):
        record.save(record.with_solutions(started, [SOLUTION]), path)
    assert record.load(path) == started
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_folder_that_is_not_there(started, tmp_path):
    with pytest.raises(UserError, match="cannot write .*No such file or directory"):
        record.save(started, tmp_path / "missing" / "record.json")


@pytest.mark.parametrize(
    "version, remedy",
    [
        (record.FORMAT + 1, "upgrade cntk-bench"),
        (record.FORMAT - 1, "the file is too old: move it away and run again"),
    ],
)
def test_load_says_which_of_file_and_tool_is_too_old(started, tmp_path, version, remedy):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(started | {"format": version, "tool": "9.1"}))
    with pytest.raises(UserError) as caught:
        record.load(path)
    assert str(caught.value) == (
        f"{path} has format {version} (cntk-bench 9.1); "
        f"this cntk-bench reads format {record.FORMAT}: {remedy}"
    )


def test_a_missing_record(tmp_path):
    with pytest.raises(UserError, match="no record at .*: name the --output directory of a run"):
        record.load(tmp_path / "record.json")
    with pytest.raises(UserError, match="cannot read the record"):
        record.load(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"3", b'{"format": true}'])
def test_a_file_that_is_no_record(tmp_path, text):
    (tmp_path / "record.json").write_bytes(text)
    with pytest.raises(UserError, match="is damaged .*: move it away and run again$"):
        record.load(tmp_path / "record.json")


@pytest.mark.parametrize(
    "place, problem",
    [
        (("config",), "config is missing"),
        (("data", "n_train"), "data.n_train is missing"),
        (("solutions", 0, "accuracy"), "solutions.0.accuracy is missing"),
    ],
)
def test_a_record_that_lacks_a_part(started, tmp_path, place, problem):
    broken = json.loads(json.dumps(record.with_solutions(started, [SOLUTION])))
    *parents, last = place
    inner = broken
    for key in parents:
        inner = inner[key]
    del inner[last]
    (tmp_path / "record.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match=f"is damaged .{problem}"):
        record.load(tmp_path / "record.json")


def test_commit_is_that_of_the_checkout_the_tool_is_tracked_in(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    module = tmp_path / "record.py"
    module.write_text("one")
    monkeypatch.setattr(record, "__file__", str(module))
    (tmp_path / "other").write_text("")
    git("init")
    git("add", "other")
    git("commit", "-m", "a")
    assert record.start({"name": "a"}, DATA)["commit"] is None  # not tracked: installed beside
    git("add", ".")
    git("commit", "-m", "b")
    clean = record.start({"name": "a"}, DATA)["commit"]
    assert re.fullmatch(r"[0-9a-f]{40}", clean)
    module.write_text("two")
    assert record.start({"name": "a"}, DATA)["commit"] == f"{clean}-dirty"
    monkeypatch.setenv("PATH", "")
    assert record.start({"name": "a"}, DATA)["commit"] is None  # no git
