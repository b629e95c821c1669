"""Another package provides a pool, a data set, a backend, an executor, a column and a solver."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# The package as installed: a module, and metadata with its entry points.
MODULE = """
import numpy as np
from cntk_bench.backends import cpu
from cntk_bench.columns.column import Cell, Done
from cntk_bench.columns.section import Section
from cntk_bench.errors import UserError
from cntk_bench.executors import local
from cntk_bench.kernels.pool import Kind
from cntk_bench.regression import ridge


def middle(size, number):
    counts = np.zeros((size, size), np.int64)
    half = slice(size // 4, size - size // 4)
    counts[half, half] = np.eye(len(range(size)[half]), dtype=np.int64)
    return counts


mid = Kind(middle, lambda size, number: 2)


def stripes(path):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.normal(size=(60, 1, 6, 6)).astype("f4") / 4
    x[y == 0, :, ::2] += 1
    x[y == 1, :, :, ::2] += 1
    return x[:40], y[:40], x[40:], y[40:]


def failing(path):
    raise ValueError("no such stripes")


def halves(path):
    return [0], [1]


class Counting(cpu.Backend):
    name = "counting"


class backend:
    NUMERICS, TILE_WORK, Backend = 7, cpu.TILE_WORK, Counting

    @staticmethod
    def available():
        return True


def backwards(job, tasks, report, stopped, workers):
    local.run(job, list(tasks)[::-1], report, stopped)


class Metric(Section):
    power: int = 2


class Nearest:
    name = "1NN"

    def needs(self, depth):
        return ()

    def fill(self, depth, given):
        x, z = given.images()
        power = given.section("metric").power
        distances = (abs(z.reshape(len(z), 1, -1) - x.reshape(1, len(x), -1)) ** power).sum(-1)
        return Cell(given.y_train[distances.argmin(1)], {"power": power})


nearest = Nearest()


class Fit:  # a piece of training, in a folder of its own
    def __init__(self, label, folder, material):
        self.label, self.folder, self.material = label, folder, material

    def done(self):
        return Done((self.folder / "means.npy").exists())

    def do(self, report, stopped):
        x, _ = self.material.images()
        y = self.material.y_train
        report("averaging")
        np.save(self.folder / "means.npy", [x[y == k].mean(0) for k in range(self.material.classes)])


class Means(Nearest):  # the nearest mean of a class, which a stage of its own finds
    name = "MEANS"

    def require_training(self, section):
        if section("metric").power < 1:
            raise UserError("metric.power is below 1: use 1 or 2")

    def jobs(self, depth, material):
        return [Fit(f"means at depth {depth}", material.folder("MEANS", depth) / "all", material)]

    def fill(self, depth, given):
        _, z = given.images()
        (job,) = self.jobs(depth, given)
        means = np.load(job.folder / "means.npy")
        distances = (abs(z[:, None] - means[None]) ** given.section("metric").power).sum((2, 3, 4))
        return Cell(distances.argmin(1), {})


means = Means()


class Constant:
    def __init__(self, label):
        self.label = label

    def needs(self, depth):
        return ()

    def fill(self, depth, given):
        if self.label >= given.classes:
            raise ValueError("no such label")
        return Cell(np.full(len(given.images()[1]), self.label), {})


def constant(name):
    return Constant(int(name[9:])) if name.startswith("CONSTANT-") else None


def doubled(gram, labels, *, classes, ridge, device, dtype, overwrite):
    from cntk_bench.regression.ridge import solve
    return solve(gram, labels, classes=classes, ridge=2 * ridge, device=device, dtype=dtype)
"""
POINTS = """
[cntk_bench.pools]
mid = guest:mid
[cntk_bench.datasets]
stripes = guest:stripes
failing = guest:failing
halves = guest:halves
[cntk_bench.backends]
counting = guest:backend
[cntk_bench.executors]
backwards = guest:backwards
[cntk_bench.columns]
1NN = guest:nearest
MEANS = guest:means
broken = guest:nothing
[cntk_bench.column_families]
constants = guest:constant
[cntk_bench.sections]
metric = guest:Metric
[cntk_bench.solvers]
doubled = guest:doubled
"""
CONFIG = """
name: guest
dataset: {name: stripes}
kernel: {columns: [CNTK-V, CNTK-MID, 1NN], depths: [3]}
compute: {tile: 16, backend: counting, executor: backwards}
solve: {solver: doubled, ridge: 0.25}
"""


@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    """A folder with the package, and a function that calls the command line where it is installed."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "guest.py").write_text(MODULE)
    info = folder / "guest-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guest\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    (folder / "guest.yaml").write_text(CONFIG)

    def call(*arguments):
        environment = os.environ | {"PYTHONPATH": f"{folder}:{REPOSITORY}"}
        command = [sys.executable, "-m", "cntk_bench", *map(str, arguments)]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
        )

    return folder, call


@pytest.fixture(scope="module")
def finished(guest):
    folder, call = guest
    done = call("run", "guest.yaml", "--output", "run")
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout


def test_all_of_them_work_together(finished):
    run, stdout = finished
    record = json.loads((run / "record.json").read_text())
    assert {s["column"] for s in record["solutions"]} == {"CNTK-V", "CNTK-MID", "1NN"}
    assert all(s["accuracy"] >= 90 for s in record["solutions"]) and "1NN" in stdout
    assert record["data"]["name"] == "stripes"
    compute = next(stage for stage in record["stages"] if stage["stage"] == "compute")
    assert (compute["backend"], compute["numerics"]) == ("counting", 7)
    # The package's solver sets this ridge.
    assert [s["ridge"] for s in record["solutions"] if s["column"] == "CNTK-V"] == [0.5]
    lines = next((run / "gram.zarr" / "journals").iterdir()).read_text().split()
    names = [line.strip('",') for line in lines if line.startswith('"t') and "-" in line]
    # The order is the package's executor's; two threads store at once.
    assert names[0].startswith("test-") and "train-0-0" in names[-2:]


def test_the_pool_is_verified_against_its_weights(guest, finished):
    done = guest[1]("verify", "run", "--sample", 50)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 entries computed again" in done.stdout


def test_a_column_has_keys_of_its_own(guest, finished):
    def powers(*arguments):
        done = guest[1](*arguments, "--set", "metric.power=1")
        assert done.returncode == 0, done.stderr
        record = json.loads((guest[0] / arguments[-1] / "record.json").read_text())
        return [s["power"] for s in record["solutions"] if s["column"] == "1NN"], record["stages"][-1][
            "settings"
        ]

    record = json.loads((finished[0] / "record.json").read_text())
    assert [s["power"] for s in record["solutions"] if s["column"] == "1NN"] == [2]
    assert powers("run", "guest.yaml", "--output", "other")[0] == [1]
    found, settings = powers("solve", "other")
    assert found == [1] and settings["metric"] == {"power": 1}
    done = guest[1]("compute", "guest.yaml", "--set", "metric.powr=1")
    assert done.returncode == 2 and "did you mean metric.power?" in done.stderr
    done = guest[1]("compute", "guest.yaml", "--set", "metric.power=abc")
    assert done.returncode == 2 and "metric.power is 'abc': Input should be a valid" in done.stderr


def test_a_column_with_a_stage_of_training(guest):
    folder, call = guest
    only = ("--set", "kernel.columns=[MEANS]")
    assert call("compute", "guest.yaml", *only, "--output", "means").returncode == 0
    told = call("solve", "means")
    assert told.returncode == 2 and "MEANS at depth 3 is not trained with these settings" in told.stderr
    assert call("status", "means").stdout == "MEANS at depth 3: 0 of 1 trained\n"
    done = call("train", "guest.yaml", *only, "--output", "means")
    assert done.returncode == 0, done.stderr
    done = call("solve", "means")
    assert done.returncode == 0 and "MEANS" in done.stdout, done.stderr
    record = json.loads((folder / "means" / "record.json").read_text())
    assert record["solutions"][0]["accuracy"] >= 90
    assert [stage["stage"] for stage in record["stages"]] == ["train", "solve"]
    told = call("run", "guest.yaml", *only, "--set", "metric.power=0", "--output", "never")
    assert told.returncode == 2 and "metric.power is below 1" in told.stderr
    assert not (folder / "never").exists()


def test_they_are_listed_and_suggested(guest):
    call = guest[1]
    assert "counting" in (shown := call("info").stdout) and "stripes" in shown
    assert "did you mean stripes?" in call("compute", "guest.yaml", "--set", "dataset.name=stripe").stderr
    for key, word in (
        ("compute.executor", "auto, local, processes, dask, slurm, backwards"),
        ("solve.solver", "auto, cholesky, refined, cg, doubled"),
        ("compute.backend", "auto, cuda, cpu, counting"),
    ):
        assert word in call("compute", "guest.yaml", "--set", f"{key}=zzz").stderr


def test_a_family_of_columns(guest):
    folder, call = guest
    done = call(
        "run", "guest.yaml", "--set", "kernel.columns=[CONSTANT-0, CONSTANT-1]", "--output", "constant"
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "constant" / "record.json").read_text())
    assert [s["accuracy"] for s in record["solutions"]] == [50, 50]
    done = call("solve", "constant", "--set", "kernel.columns=[CONSTANT-2]")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "column CONSTANT-2 failed at depth 3 (ValueError: no such label): mend that package" in done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("failing", "failing failed (ValueError: no such stripes): mend the package that has it"),
        ("halves", "halves gives list, list, not the four arrays x_train"),
    ],
)
def test_data_of_a_package_that_fails_are_told_so(guest, name, words):
    done = guest[1]("compute", "guest.yaml", "--set", f"dataset.name={name}", "--output", "none")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr


def test_a_broken_one_is_one_line(guest):
    done = guest[1]("compute", "guest.yaml", "--set", "kernel.columns=[broken]")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "broken of guest cannot be loaded (AttributeError" in done.stderr
    assert "mend or uninstall that package" in done.stderr


def test_a_table_without_any_kernel(guest):
    folder, call = guest
    done = call("run", "guest.yaml", "--set", "kernel.columns=[1NN]", "--output", "bare")
    assert done.returncode == 0, done.stderr
    assert not (folder / "bare" / "gram.zarr").exists() and "1NN" in done.stdout
    for command, words in {
        ("status", "bare"): "nothing to compute: the columns of bare need no Gram matrix",
        ("status", "bare", "--follow"): "nothing to compute: the columns of bare need no Gram matrix",
        ("verify", "bare"): "nothing to verify: the columns of bare need no Gram matrix",
        (
            "plan",
            "guest.yaml",
            "--set",
            "kernel.columns=[1NN]",
        ): "nothing to compute: these columns need no Gram",
    }.items():
        done = call(*command)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(words), command
        assert done.stdout.count("\n") == 1
