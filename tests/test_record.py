"""The record: what it contains, that it survives rewriting and crashes, and how damage is reported."""

import json
import os
from datetime import UTC, datetime

import numpy as np
import pytest

import cntk_bench
from cntk_bench.errors import UserError
from cntk_bench.records import record
from cntk_bench.text import short

DATA = {"name": "digits", "fingerprint": "ab12", "n_train": 60, "n_test": 40, "classes": 10}
DATA |= {"preprocess": "standardize"}
SOLUTION = {"column": "CNTK-V", "depth": 3, "accuracy": 91.5, "ridge": 0.0, "condition": 1e4}


STAGE = record.stage("compute", {"dataset": {"path": None}})


@pytest.fixture
def started():
    return record.start("run", DATA)


def test_a_new_record_has_no_stage_yet(started):
    assert started == {
        "format": record.FORMAT, "name": "run", "data": DATA, "stages": [], "solutions": [],
    }  # fmt: skip


def test_a_stage_says_what_where_and_when():
    stage = record.stage("compute", {"dataset": {"path": None}})
    assert (stage["stage"], stage["seconds"]) == ("compute", None)
    assert stage["settings"] == {"dataset": {"path": None}}
    assert stage["tool"] == cntk_bench.__version__
    assert stage["process"].startswith(f"{os.getpid()} on ")
    assert stage["versions"]["numpy"] == np.__version__
    age = datetime.now(UTC) - datetime.fromisoformat(stage["started"])
    assert 0 <= age.total_seconds() < 60
    json.dumps(stage, allow_nan=False)


def test_save_and_load_return_the_same(started, tmp_path):
    full = record.with_solutions(record.with_stage(started, STAGE), 1, [SOLUTION])
    record.save(started, tmp_path / "record.json")
    record.save(full, tmp_path / "record.json")
    assert record.load(tmp_path / "record.json") == full
    assert os.listdir(tmp_path) == ["record.json"]


def test_updates_leave_the_old_record_alone(started):
    before = json.dumps(started)
    record.with_solutions(record.with_stage(started, STAGE), 1, [SOLUTION])
    assert json.dumps(started) == before


def test_a_stage_takes_the_place_of_the_same_call_only(started):
    """A stage is written when a call begins and again when it ends; each call keeps its own versions."""
    begun = record.with_stage(started, STAGE)
    assert [stage["seconds"] for stage in begun["stages"]] == [None]
    ended = record.with_stage(begun, STAGE | {"seconds": 2.0, "pairs": 10})
    assert [(s["seconds"], s["pairs_per_second"]) for s in ended["stages"]] == [(2.0, 5.0)]
    newer = {**STAGE, "started": "2099-01-01T00:00:00.000+00:00", "versions": {"numpy": "9"}}
    solve = {**STAGE, "stage": "solve"}
    three = record.with_stage(record.with_stage(ended, newer), solve)["stages"]
    assert [stage["stage"] for stage in three] == ["compute", "compute", "solve"]
    assert [stage["versions"]["numpy"] for stage in three] == [np.__version__, "9", np.__version__]
    none = record.with_stage(started, STAGE | {"seconds": 0.0, "pairs": 0})["stages"][0]
    assert "pairs_per_second" not in none


@pytest.mark.parametrize(
    "other",
    [
        {"process": "1 on another"},
        {"call": "0"},
        {"started": "1999-01-01T00:00:00.000+00:00"},
        {"stage": "a"},
    ],
)
def test_stages_of_other_calls_are_all_kept(started, other):
    """Two machines may begin in the same millisecond, and clocks may be set back."""
    both = record.with_stage(record.with_stage(started, STAGE), STAGE | other)["stages"]
    assert both == [STAGE, STAGE | other]


def test_a_stage_without_pairs_has_no_rate(started):
    ended = record.with_stage(started, STAGE | {"seconds": 2.0})
    assert "pairs_per_second" not in ended["stages"][0]


def test_what_no_other_program_could_read_is_never_written(started, tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        record.save(started | {"more": float("nan")}, tmp_path / "record.json")
    assert os.listdir(tmp_path) == []


def test_numpy_scalars_and_infinities_become_json(started, tmp_path):
    solution = SOLUTION | {
        "depth": np.int64(3),
        "accuracy": np.float32(91.5),
        "condition": np.float64(np.inf),
        "path": (np.float64(0.5), float("nan")),
        "positive": np.bool_(True),
    }
    record.save(record.with_solutions(started, 1, [solution]), tmp_path / "r.json")
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
    with pytest.raises(UserError, match="no space left to write .*record.json .*: free some"):
        record.save(record.with_solutions(started, 1, [SOLUTION]), path)
    assert record.load(path) == started
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_folder_that_is_not_there(started, tmp_path):
    with pytest.raises(UserError, match="cannot write .*No such file or directory.*output directory"):
        record.save(started, tmp_path / "missing" / "record.json")


@pytest.mark.parametrize(
    "version, remedy",
    [
        (record.FORMAT + 1, "upgrade cntk-bench"),
        (
            record.FORMAT - 1,
            "the file is too old: move it away, then run `compute` and `solve` again; the tiles are kept",
        ),
    ],
)
def test_load_says_which_of_file_and_tool_is_too_old(started, tmp_path, version, remedy):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(started | {"format": version, "tool": "9.1"}))
    with pytest.raises(UserError) as caught:
        record.load(path)
    assert str(caught.value) == (
        f"{short(str(path))} has format {version} (cntk-bench 9.1); "
        f"this cntk-bench reads format {record.FORMAT}: {remedy}"
    )


def test_a_missing_record(tmp_path):
    with pytest.raises(UserError, match="no record at .*: name the --output directory of a run"):
        record.load(tmp_path / "record.json")
    with pytest.raises(UserError, match=r"cannot read the record .* \(Is a directory\): make it readable"):
        record.load(tmp_path)


@pytest.mark.parametrize("part", ["data", "computed"])
@pytest.mark.parametrize("key, value", [("n_train", -5), ("n_test", 0), ("classes", -1), ("classes", 1)])
def test_sizes_that_cannot_be_are_damage(started, tmp_path, part, key, value):
    record.save(started | {part: DATA | {key: value}}, tmp_path / "record.json")
    with pytest.raises(UserError, match=rf"is damaged \({part}.{key} is {value}\): move it away"):
        record.load(tmp_path / "record.json")


@pytest.mark.parametrize(
    ("text", "problem"),
    [(text, "not JSON: ") for text in (b"", b"{", b"\xff", b"[" * 100_000)]
    + [(text, "no format number") for text in (b"[]", b"3", b"null", b'{"format": true}')],
)
def test_a_file_that_is_no_record(tmp_path, text, problem):
    (tmp_path / "record.json").write_bytes(text)
    remedy = "move it away, then run `compute` and `solve` again; the tiles are kept"
    with pytest.raises(UserError, match=rf"is damaged \({problem}.*\): {remedy}"):
        record.load(tmp_path / "record.json")


@pytest.mark.parametrize("part", ["stages", "solutions"])
@pytest.mark.parametrize("value", [{}, [3], [None], ["CNTK-V"]])
def test_a_list_of_something_else(started, tmp_path, part, value):
    (tmp_path / "record.json").write_text(json.dumps(started | {part: value}))
    with pytest.raises(UserError, match=rf"is damaged \({part}.* is missing or of a wrong type\)"):
        record.load(tmp_path / "record.json")


def test_solutions_that_are_no_list_are_told_of_their_own_file(tmp_path):
    with pytest.raises(UserError, match=r"solve.json is damaged \(solutions is no list\): move it away"):
        record.check_solutions(tmp_path / "solve.json", {})


@pytest.mark.parametrize(
    "place, problem",
    [
        (("stages",), "stages is missing"),
        (("stages", 0, "versions"), "stages.0.versions is missing"),
        (("data", "n_train"), "data.n_train is missing"),
        (("solutions", 0, "accuracy"), "solutions.0.accuracy is missing"),
    ],
)
def test_a_record_that_lacks_a_part(started, tmp_path, place, problem):
    broken = json.loads(json.dumps(record.with_solutions(record.with_stage(started, STAGE), 1, [SOLUTION])))
    *parents, last = place
    inner = broken
    for key in parents:
        inner = inner[key]
    del inner[last]
    (tmp_path / "record.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match=f"is damaged .{problem}"):
        record.load(tmp_path / "record.json")


@pytest.mark.parametrize(
    ("facts", "number"),
    [({}, 1), ({"draws": 3}, 3), ({"draws": 10**9}, 1)]
    + [({"draws": impossible}, 1) for impossible in (0, -2, True, "many", 2.0, None)],
)
def test_draws_that_are_missing_or_impossible_are_one(facts, number):
    assert record.draws(facts) == number
