# ruff: noqa: F811 (fixtures)
"""A run from which another takes its tiles, and which is damaged or cannot be read for a while."""

import os
import sys

import pytest
from test_growth import computed, finished, run  # noqa: F401

from cntk_bench.grams import store
from cntk_bench.grams.chunks import Unreadable
from cntk_bench.records import record


def test_what_is_damaged_is_computed_with_one_warning(run, tmp_path, caplog):
    for tile in ("0.1.0", "1.1.1", "0.0.0"):
        (run.gram / "train" / f"c.{tile}").write_bytes(b"damaged")
    (tmp_path / "new").mkdir()
    new, _ = computed(tmp_path / "new", donor=run)
    counts = store.open(new.gram).progress.counts()
    assert (counts.taken, counts.in_part) == (9, 3)
    (line,) = [one.message for one in caplog.records if "is damaged" in one.message]
    assert line.startswith("tile train-") and line.endswith("what is damaged there is computed here instead")


@pytest.mark.parametrize("code", ["EIO", "ESTALE", "EACCES"])
def test_what_cannot_be_read_for_a_while_is_not_computed(run, tmp_path, monkeypatch, code):
    module, number = sys.modules["zarr.storage._local"], getattr(__import__("errno"), code)
    get = module._get

    def refuse(path, *more):
        if path.is_relative_to(run.gram) and path.name == "c.0.1.0":
            raise OSError(number, os.strerror(number))
        return get(path, *more)

    (tmp_path / "new").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_get", refuse)
        with pytest.raises(Unreadable, match="cannot be read now .*: mend that and run the same command"):
            computed(tmp_path / "new", donor=run)
    new, tasks = computed(tmp_path / "new", donor=run)
    counts = store.open(new.gram).progress.counts()
    assert tasks and (counts.taken, counts.in_part) == (12, 0)
    assert record.load(new.record)["stages"][-1]["tiles_taken"] == len(tasks)
