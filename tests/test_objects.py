# ruff: noqa: F811 (fixtures)
"""Gram matrices in an object store: runs behave as they do on disk, bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import s3
from toy_store import direct, place, server, small  # noqa: F401

from cntk_bench import open_run
from cntk_bench.config import config
from cntk_bench.grams import matrix, store
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute as computing
from cntk_bench.runs import solve as solving
from cntk_bench.runs import verify as verifying
from cntk_bench.system.bucket import Bucket

pytest.importorskip("moto", reason="moto is not installed")
pytest.importorskip("obstore", reason="obstore is not installed: pip install 'cntk-bench[cluster]'")

CONFIG = small(train=24, test=8, tile=4)


def settings(folder, *overrides):
    (folder / "small.yaml").write_text(CONFIG)
    return config.load(folder / "small.yaml", overrides)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A run on disk, and another that grew to more images."""
    folder = tmp_path_factory.mktemp("local")
    runs = []
    for name, more in (("small", ()), ("grown", ("dataset.train=30",))):
        run = Run(folder / name)
        computing.compute(run, settings(folder))
        if more:
            computing.compute(run, settings(folder, *more))
        runs.append(run)
    return runs


def same(run, other):
    one, two = store.open(run.gram), store.open(other.gram)
    assert one.readouts == two.readouts and one.progress.missing() == two.progress.missing() == []
    for name in one.readouts:
        for part in ("train", "test"):
            np.testing.assert_array_equal(
                *(matrix.matrix(grams, part, name, np.float32) for grams in (one, two))
            )


def lines(place):
    """The journals' lines, each one once."""
    bucket, found = Bucket(place), {}
    for one in bucket.list("journals"):
        data = bucket.get(one.name)
        for line in data[0].splitlines() if data else ():
            found[one.name.rpartition(".jsonl")[0].rpartition(".")[0], line] = json.loads(line)
    return list(found.values())


def times(place):
    """For each tile, how often it was finished."""
    return Counter(line["tile"] for line in lines(place) if line["digests"])


def program(folder, *arguments, **more):
    (folder / "small.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "cntk_bench", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


def ended(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out + err


def no_credentials(place, folder, *said):
    """Credentials are in no file of the folder, no object, and nothing that was printed."""
    bucket = Bucket(place)
    files = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    objects = [bucket.get(one.name)[0] for one in bucket.list()]
    assert len(files) > 2 and len(objects) > 20
    for text in (*files, *objects, *(text.encode() for text in said)):
        assert s3.KEY.encode() not in text and s3.SECRET.encode() not in text


def test_a_run_is_that_of_a_disk_bit_for_bit(local, place, tmp_path):
    run, wanted = Run(tmp_path / "run"), settings(tmp_path, f"compute.store={place}")
    computing.compute(run, wanted)
    assert str(run.gram) == place and not (run.path / "gram.zarr").exists()
    same(run, local[0])
    there, here = (solving.solve(one, settings(tmp_path))["solutions"] for one in (run, local[0]))
    assert [s["accuracy"] for s in there] == [s["accuracy"] for s in here]
    one, two = (open_run(one.path).gram("CNTK-V", 3) for one in (run, local[0]))
    for name, values in one.arrays().items():
        np.testing.assert_array_equal(values, two.arrays()[name])
    assert verifying.verify(run, run.config(), 4, False).ok
    assert set(times(place).values()) == {1}
    taken = Run(tmp_path / "taken")
    computing.compute(taken, settings(tmp_path, "compute.tile=8"), donor=run)
    assert store.open(taken.gram).progress.counts().taken == store.open(taken.gram).plan.count
    assert "lock" not in {one.name for one in Bucket(place).list()} and not list(
        Bucket(place).list("writers")
    )


def test_a_run_can_move_its_store(local, place, tmp_path, caplog):
    """What the run has computed is taken along, as it is its own donor."""
    run = Run(shutil.copytree(local[0].path, tmp_path / "run"))
    computing.compute(run, settings(tmp_path, f"compute.store={place}"), donor=run)
    assert f"gram.zarr until now, and are computed into {place}" in caplog.text
    same(run, local[0])
    counts = store.open(run.gram).progress.counts()
    assert counts.taken == counts.tiles


def test_a_store_grows_as_on_a_disk(local, place, tmp_path):
    run, wanted = Run(tmp_path / "run"), settings(tmp_path, f"compute.store={place}")
    computing.compute(run, wanted)
    other = Run(tmp_path / "other")  # perhaps on another machine; it makes the store larger
    computing.compute(other, settings(tmp_path, f"compute.store={place}", "dataset.train=30"))
    same(other, local[1])
    shown = solving.solve(run, run.config())["solutions"]
    assert [s["accuracy"] for s in shown] == [
        s["accuracy"] for s in solving.solve(local[0], settings(tmp_path))["solutions"]
    ]


def test_killed_it_goes_on_with_two_others_at_once(local, place, tmp_path, faults):
    """One of the two others has workers of its own."""
    faults("SIGKILL of a writer to a store among objects, and two others at once")
    target = ("--set", f"compute.store={place}")
    first = program(tmp_path, "compute", "small.yaml", "--output", "one", *target)
    end = time.monotonic() + 300
    while len(times(place)) < 8:
        assert time.monotonic() < end and first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = times(place)
    assert 8 <= len(before) < store.open(Bucket(place)).plan.count
    more = ("--executor", "processes", "--set", "compute.workers=2", "--verbose", "--debug")
    both = [
        program(tmp_path, "compute", "small.yaml", "--output", name, *target, *some)
        for name, some in (("two", more), ("three", ()))
    ]
    said = [ended(process) for process in both]
    after = times(place)
    assert all(after[tile] == 1 for tile in before)  # no finished tile was computed again
    for name in ("two", "three"):
        same(Run(tmp_path / name), local[0])
    no_credentials(place, tmp_path, *said)


def test_two_machines_with_a_share_each_begin_a_store_at_once(local, place, tmp_path, faults):
    faults("two shares at one moment in a store among objects")
    both = [
        program(tmp_path, "compute", "small.yaml", "--output", name, "--set", f"compute.store={place}",
                "--shard", share)
        for name, share in (("a", "1/2"), ("b", "2/2"))
    ]  # fmt: skip
    for process in both:
        ended(process)
    for name in "ab":
        same(Run(tmp_path / name), local[0])
    assert set(times(place).values()) == {1} and len(times(place)) == store.open(Bucket(place)).plan.count


def test_damaged_objects_are_found_and_repaired(local, place, tmp_path, faults):
    faults("objects damaged, exchanged or removed", 3)
    run, wanted = Run(tmp_path / "run"), settings(tmp_path, f"compute.store={place}")
    computing.compute(run, wanted)
    bucket = Bucket(place)
    whole = bucket.get("train/c.0.1.0")[0]
    bucket.put("train/c.0.1.0", whole[:-9] + b"x" + whole[-8:])  # the checksum shows this change
    bucket.put("train/c.1.2.0", bucket.get("train/c.1.1.0")[0])  # sound, but another tile's chunk
    bucket.delete(["test/c.0.0.1"])
    found = verifying.verify(run, run.config(), 0, False)
    assert set(map(str, found.damaged)) == {"train-1-0", "train-2-0", "test-0-1"} and not found.unreadable
    again = verifying.verify(run, run.config(), 0, True)
    assert again.ok
    same(run, local[0])
