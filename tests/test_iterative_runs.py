"""Iterative solvers from the command line: the direct solve's table, what is reported, what continues."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from test_cli import call

from cntk_bench.cli import progress
from cntk_bench.columns import Request, baseline
from cntk_bench.columns.baseline import Baseline
from cntk_bench.config import config
from cntk_bench.errors import UserError
from cntk_bench.records.directory import Run
from cntk_bench.regression import checkpoint, placement
from cntk_bench.regression.placement import Place
from cntk_bench.runs import solve as solving
from cntk_bench.system import memory
from cntk_bench.system.files import atomic_file
from cntk_bench.system.memory import GIB

CONFIG = """
name: iterative
dataset: {name: digits, train: 90, test: 40}
kernel: {columns: [CNTK-V, FC-NTK, RBF], depths: [3]}
compute: {tile: 48, backend: cpu}
baseline: {bandwidths: [0.5, 1.0], ridge: 1.0e-3}
"""


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("iterative")
    (folder / "asked.yaml").write_text(CONFIG)
    done = call("compute", folder / "asked.yaml", "--output", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(computed, tmp_path):
    return Run(shutil.copytree(computed / "run", tmp_path / "run"))


def solved(run, *settings, code=0):
    """Solve; returns what was printed, and the record."""
    done = call("solve", run.path, *(word for one in settings for word in ("--set", one)))
    assert done.returncode == code, done.stderr
    return done, json.loads(run.record.read_text())


def arrays(run, column="CNTK-V-3"):
    return dict(np.load(run.solutions / f"{column}.npz"))


SAID = {
    "cg": "solving by conjugate gradients on stored tiles, with a preconditioner of rank 11 on the CPU, in "
    "0.1 GiB of memory at most\n",
    "refined": "solving by a Cholesky factor in float32, refined to float64 by conjugate gradients on the "
    "CPU, in 0.1 GiB of memory at most\n",
}


@pytest.mark.parametrize("more", [(), ("solve.normalize=unit_diagonal", "solve.ridge=5e-5"),
                                  ("dataset.train=45", "dataset.draws=2")])  # fmt: skip
@pytest.mark.parametrize("solver", ["cg", "refined"])
def test_the_table_is_that_of_the_direct_solve(run, solver, more):
    direct, _ = solved(run, "solve.solver=cholesky", *more)
    before = arrays(run)
    found, record = solved(run, f"solve.solver={solver}", *more)
    assert found.stdout == direct.stdout and (arrays(run)["predicted"] == before["predicted"]).all()
    np.testing.assert_allclose(arrays(run)["alpha"], before["alpha"], atol=1e-5 * abs(before["alpha"]).max())
    if not any("draws" in setting for setting in more):
        assert found.stderr == SAID[solver] and direct.stderr == ""
        first = record["solutions"][0]
        assert (
            first["solver"] == solver and first["iterations"] > 0 and 0 < first["relative_residual"] <= 1e-8
        )
        assert first.get("rank") == {"cg": 11}.get(solver)
        assert (first["loo_error"] is None) == (solver == "cg")
    stage = record["stages"][-1]
    assert (stage["solver"], stage["settings"]["solve"]["solver"]) == (solver, solver)
    assert stage["precision"] == {"cg": "float64", "refined": "float32"}[solver] and stage["memory"] > 0
    assert not list(run.iterations.glob("*")) if run.iterations.exists() else True


def test_what_is_not_solved_is_doubted_in_the_table_and_goes_on(run):
    some = ("solve.solver=cg", "kernel.columns=[CNTK-V]")
    done, record = solved(run, *some, "solve.iterations=3", code=2)
    doubt = r"after 3 iterations a relative residual of \d\S+ is left, above solve.tolerance \(1e-08\)"
    assert re.search(rf"\? Not to be trusted: CNTK-V at depth 3: not solved: {doubt}", done.stdout)
    assert re.search(doubt, done.stderr) and re.search(r"\d\?", done.stdout)
    assert record["solutions"][0]["trusted"] is False
    assert [path.name[:12] for path in run.iterations.iterdir()] == ["ntk-v-3-all-"]
    said = []
    more = run.config(("solve.solver=cg", "kernel.columns=[CNTK-V]", "solve.iterations=300"))
    after = solving.solve(run, more, tell=said.append)
    assert (
        said[1].startswith("CNTK-V at depth 3: iteration 4: relative residual ")
        and after["solutions"][0]["trusted"] is True
    )
    assert not list(run.iterations.iterdir())


def test_an_interrupted_solve_goes_on_to_the_same_bits(run, monkeypatch):
    some = ("solve.solver=cg", "kernel.columns=[FC-NTK, CNTK-V]")
    whole = solving.solve(run, run.config(some))
    expected = arrays(run)["alpha"]
    monkeypatch.setattr(checkpoint, "SECONDS", 1e9)  # so that only the interruption saves a state
    said = []

    def tell(words):
        said.append(words)
        if words.startswith("CNTK-V at depth 3: iteration 7:"):
            raise KeyboardInterrupt

    iterations = {s["column"]: s["iterations"] for s in whole["solutions"]}
    with pytest.raises(KeyboardInterrupt):
        solving.solve(run, run.config(some), tell=tell)
    assert [path.name[:12] for path in run.iterations.iterdir()] == ["ntk-v-3-all-"]
    said.clear()
    solving.solve(run, run.config(some), tell=said.append)
    assert (
        said[1].startswith("CNTK-V at depth 3: iteration 8:") and len(said) == iterations["CNTK-V"] - 7 + 1
    )  # FC-NTK's solution is kept
    np.testing.assert_array_equal(arrays(run)["alpha"], expected)


KILLED = """
import os, signal, sys
import numpy as np
from cntk_bench.cli import program
from cntk_bench.regression import checkpoint
checkpoint.SECONDS = 0.0
def half(file, **arrays):
    file.write(b"half of a state")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
checkpoint.np.savez = half
program.call(sys.argv[1:])
"""


def test_what_a_killed_solve_had_half_written_is_removed_by_the_next(run, monkeypatch):
    arguments = ["solve", str(run.path), "--set", "solve.solver=cg", "--set", "kernel.columns=[CNTK-V]"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment)
    assert process.returncode == -signal.SIGKILL
    (half,) = run.iterations.iterdir()
    assert re.fullmatch(r"\.ntk-v-3-all-[0-9a-f]{16}\.npz-[0-9a-f]{32}\.partial", half.name)
    assert call("verify", run.path).returncode == 0 and half.exists()
    written, others = atomic_file(run.iterations / "another.npz"), run.path / ".record.json.partial"
    with written as file:  # the file of another solve at work
        file.write(b"half")
        others.touch()  # not a name of ours
        assert call(*arguments).returncode == 0
        assert [path.name.split("-")[0] for path in run.iterations.iterdir()] == [".another.npz"]
    assert [path.name for path in run.iterations.iterdir()] == ["another.npz"] and others.exists()


def test_words_are_printed_now_and_then(monkeypatch, capsys):
    shown, now = [], [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    tell = progress.reporter(lambda count, said: shown.append(said))
    for second in range(0, 65, 5):
        now[0] = float(second)
        tell(f"after {second}")
    assert len(shown) == 13 and capsys.readouterr().err.split("\n") == ["after 0", "after 30", "after 60", ""]


def test_states_are_kept_through_no_link(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    run.iterations.symlink_to(tmp_path / "elsewhere")
    done = call("solve", run.path, "--set", "solve.solver=cg")
    assert done.returncode == 2 and "is a link" in done.stderr


def test_a_damaged_tile_ends_it_in_a_line(run):
    file = run.gram / "train" / "c.0.1.0"
    file.write_bytes(file.read_bytes()[:-9] + bytes(9))
    done = call("solve", run.path, "--set", "solve.solver=cg")
    assert done.returncode == 1 and "tile train-1-0" in done.stderr and done.stderr.count("\n") == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("solve.ridge=loo",),
            "cg solves one ridge: leave-one-out, which chooses among several, needs the whole",
        ),
        (("solve.ridge=[0, 1]",), "give one, such as solve.ridge=1e-4, or use solve.solver=cholesky"),
        (("solve.precision=float32",), "solve.solver cg adds up in float64: leave out solve.precision"),
        (("solve.device=cuda",), "solve.solver cg streams the matrix to the CPU: leave out solve.device"),
        (("solve.tolerance=1",), "solve.tolerance is 1: use at most 0.1"),
        (("solve.iterations=0",), "solve.iterations is 0: expected the maximum number of iterations"),
        (("solve.memory=0.01",), "solving 90 training images from stored tiles needs 0.1 GiB"),
    ],
)
def test_what_cannot_be_is_one_line(run, settings, message):
    done = call("solve", run.path, "--set", "solve.solver=cg", "--set", *settings)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_refined_is_no_float64(run):
    done = call("solve", run.path, "--set", "solve.solver=refined", "--set", "solve.precision=float64")
    assert done.returncode == 2 and "factors in float32: leave out solve.precision" in done.stderr


@pytest.mark.parametrize("solver", ["cholesky", "refined"])
def test_leave_one_out_is_done_where_it_is_wanted(run, solver):
    found = []
    for wanted in ("true", "false"):
        _, record = solved(run, f"solve.solver={solver}", f"solve.leave_one_out={wanted}")
        kernels = [one for one in record["solutions"] if one["column"] != "RBF"]
        found.append(
            [(one["accuracy"], one["loo_error"] is None, one["loo_accuracy"] is None) for one in kernels]
        )
        (rbf,) = (one for one in record["solutions"] if one["column"] == "RBF")
        assert rbf["loo_error"] > 0  # needed to choose the bandwidth
    with_it, without = found
    assert len(with_it) == 2 and [one[1:] for one in with_it] == [(False, False)] * 2
    assert without == [(accuracy, True, True) for accuracy, *_ in with_it]


def test_plan_tells_the_method_and_its_memory(computed):
    for solver, words in (("auto", "a Cholesky factor in float64"), ("cg", "of rank 11 on the CPU")):
        done = call("plan", computed / "asked.yaml", "--set", f"solve.solver={solver}")
        (line,) = re.findall(r"^memory, solve +(.*)$", done.stdout, re.MULTILINE)
        assert re.match(r"\d+\.\d [MG]iB, by ", line) and words in line
        said = dict(re.findall(r"^time, (\w+) +(.*)$", done.stdout, re.MULTILINE))
        assert "2 matrices" in said["solve"]
        assert said["solve"].startswith("not known before: ") == (solver == "cg")
        without = "columns that need no Gram matrix"  # these are RBF
        assert said["all"].endswith(f", without {'the solve and ' * (solver == 'cg')}{without}")
    done = call("plan", computed / "asked.yaml", "--set", "solve.memory=0.01")
    (line,) = re.findall(r"^memory, solve +(.*)$", done.stdout, re.MULTILINE)
    assert "which this machine does not have free, by conjugate gradients" in line


class TestPlacement:
    @pytest.fixture(autouse=True)
    def cpu_alone(self, monkeypatch):
        def available(device="cpu"):
            if device == "cuda":
                raise UserError("no GPU")
            return 64 * GIB

        monkeypatch.setattr(memory, "available", available)

    def choose(self, limit, **more):
        return placement.choose(50_000, classes=10, limit=limit, solver="auto", streaming=10**8, **more)

    def test_the_first_that_fits(self):
        """In float64 the matrix takes 18.6 GiB, in float32 9.3 GiB; panels come on top."""
        tried = {limit: self.choose(limit) for limit in (24, 19, 13, 9, 3, 1, 0.4)}
        methods = [(p.method, p.dtype) for p in tried.values()]
        assert methods == [("cholesky", "float64"), *[("refined", "float32")] * 2, *[("cg", "float64")] * 4]
        assert all(place.host <= limit * GIB for limit, place in tried.items())
        ranks = [place.rank for place in tried.values() if place.method == "cg"]
        assert ranks[0] == 50_000 // 8 and ranks == sorted(ranks, reverse=True) and 0 < ranks[-1] < ranks[1]
        assert 0.8 * GIB < tried[1].host  # makes use of what is allowed
        with pytest.raises(UserError, match="50000 training images from stored tiles needs 0.2 GiB"):
            self.choose(0.1)

    def test_of_several_ridges_a_factor_chooses(self):
        assert self.choose(13, several=True) == Place(
            "cpu", "float32", self.choose(13, several=True).host, 0, "cholesky"
        )
        with pytest.raises(UserError, match="or give one ridge, which takes less than leave-one-out"):
            self.choose(3, several=True)

    def test_precision_is_respected(self):
        assert self.choose(19, dtype="float64").method == "cg"
        assert self.choose(40, dtype="float32").method == "refined"

    def test_a_gpu_refines_and_streams_nothing(self, monkeypatch):
        monkeypatch.setattr(memory, "available", lambda device="cpu": 20 * GIB)
        place = self.choose(12)
        assert (place.device, place.method, place.dtype) == ("cuda", "refined", "float32")
        with pytest.raises(UserError, match="in float32 needs"):
            placement.choose(100_000, classes=10, solver="auto", device="cuda")
        assert placement.choose(100_000, classes=10, solver="auto").method == "cg"

    def test_a_gpu_that_main_memory_keeps_from_solving_is_told(self, monkeypatch, caplog):
        monkeypatch.setattr(memory, "available", lambda device="cpu": 100 * GIB)
        assert self.choose(12).device == "cuda" and self.choose(3).method == "cg"
        (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
        assert re.search(
            r"the GPU has room, but (9|1\d)\.\d GiB .* and 3\.0 are free; .* solve\.memory", said
        )


def test_baselines_hold_their_matrices(monkeypatch):
    """Baselines choose bandwidths by leave-one-out; lack of memory is told before anything is computed."""
    monkeypatch.setattr(memory, "available", lambda device="cpu": 10**9)
    few, many = (Request(n, 64, 10, None, lambda name: Baseline()) for n in (5000, 50_000))
    baseline.column("RBF").require(few)
    with pytest.raises(UserError, match="column LAPLACE with 50,000 training images needs 10.2 GiB"):
        baseline.column("LAPLACE").require(many)


def test_the_defaults_are_written_out(computed):
    found = config.load(computed / "run" / "config.yaml")
    assert (found.solve.solver, found.solve.tolerance, found.solve.iterations) == ("auto", 1e-8, 1000)
