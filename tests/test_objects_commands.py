# ruff: noqa: F811 (fixtures)
"""With matrices in an object store, every command does what it does on a disk, or a line says why not."""

import re

import numpy as np
import pytest
from test_cli import call
from toy_store import direct, place, server, small  # noqa: F401

from cntk_bench.config import config
from cntk_bench.grams import store
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute as computing
from cntk_bench.system import bucket as buckets
from cntk_bench.system.bucket import Bucket

pytest.importorskip("moto", reason="moto is not installed")
pytest.importorskip("obstore", reason="obstore is not installed: pip install 'cntk-bench[cluster]'")

CONFIG = small(train=24, test=8, tile=6)
ONE = ("--column", "CNN-GP-V", "--depth", "3")


@pytest.fixture(autouse=True)
def _config(tmp_path):
    (tmp_path / "small.yaml").write_text(CONFIG)


def succeed(*arguments, code=0):
    done = call(*arguments)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_all_of_them_say_what_they_say_of_a_store_on_disk(place, tmp_path, monkeypatch):
    runs, said = {"disk": tmp_path / "disk", "objects": tmp_path / "objects"}, {}
    for name, run in runs.items():
        kept = ("--set", f"compute.store={place}") if name == "objects" else ()
        table = succeed("run", tmp_path / "small.yaml", "--output", run, *kept).split("\nAll results")[0]
        succeed("export", run, *ONE, "--to", tmp_path / f"{name}.npz")
        said[name] = [
            table,
            succeed("table", run),
            succeed("verify", run, "--sample", 2),
            re.sub(r".*pairs per second.*\n", "", succeed("status", run, "--follow")),
            succeed("curve", run, *ONE),
            len(succeed("solves", run).splitlines()),
            sorted(str(file.relative_to(run)) for file in run.rglob("*") if "gram.zarr" not in file.parts),
        ]
    for one, other in zip(*said.values(), strict=True):
        plain = [
            re.sub(r"written:.*|Written.*|/\S+", "", text) if isinstance(text, str) else text
            for text in (one, other)
        ]
        assert plain[0] == plain[1]
    arrays = [np.load(tmp_path / f"{name}.npz") for name in runs]
    for key in arrays[0].files:
        np.testing.assert_array_equal(arrays[0][key], arrays[1][key])

    Bucket(place).delete(["train/c.0.1.0"])
    assert "damaged: train-1-0" in succeed("verify", runs["objects"], code=1)
    done = call("solve", runs["objects"])
    assert done.returncode == 1 and "tile train-1-0" in done.stderr
    assert "0 damaged, 0 not computed" in succeed("verify", runs["objects"], "--repair")
    assert succeed("solve", runs["objects"]) == succeed("table", runs["disk"])

    monkeypatch.setattr(buckets, "RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    asked = ("--column", "CNTK-V", "--depth", 3)
    commands = [("status",), ("verify",), ("verify", "--repair"), ("solve",), ("flow", *ONE), ("curve", *ONE),
                ("posterior", *ONE), ("export", *asked, "--to", tmp_path / "no.npz")]  # fmt: skip
    commands = [(command, runs["objects"], *more) for command, *more in commands]
    some = (tmp_path / "small.yaml", "--output", runs["objects"], "--set", f"compute.store={place}")
    commands += [(command, *some) for command in ("compute", "run")]
    for command in commands:
        done = call(*command)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, (command, done)
        assert "127.0.0.1:9 cannot be used now, after 0 retries (no connection)" in done.stderr
    assert not (tmp_path / "no.npz").exists()
    assert succeed("table", runs["objects"]) == succeed("table", runs["disk"])
    succeed("solves", runs["objects"])


def test_a_move_that_was_interrupted_goes_on_and_so_does_the_way_back(place, tmp_path):
    run, moved = Run(tmp_path / "run"), ("compute.store=" + place,)
    computing.compute(run, config.load(tmp_path / "small.yaml"))
    right = [store.open(run.gram).matrix(part, 0, np.float32) for part in ("train", "test")]
    for wanted, place_of in ((moved, "objects"), (("compute.store=null",), "disk")):
        settings = config.load(tmp_path / "small.yaml", wanted)
        if place_of == "disk":
            (run.path / "gram.zarr").rename(tmp_path / "former")
        finished = []

        def begin(plan, tasks, finished=finished):
            def done(task):
                finished.append(task)
                if len(finished) == 4:
                    raise KeyboardInterrupt

            return done

        with pytest.raises(KeyboardInterrupt):
            computing.compute(run, settings, begin, donor=Run(run.path))
        before = len(store.open(run.gram).progress.done())
        assert 4 <= before < store.open(run.gram).plan.count and (str(run.gram) == place) == (
            place_of == "objects"
        )
        computing.compute(run, settings, donor=Run(run.path))
        grams = store.open(run.gram)
        counts = grams.progress.counts()
        assert counts.taken == counts.tiles == grams.plan.count  # all was taken, nothing computed
        for part, expected in zip(("train", "test"), right, strict=True):
            np.testing.assert_array_equal(grams.matrix(part, 0, np.float32), expected)
