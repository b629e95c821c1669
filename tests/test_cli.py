"""The command line from end to end, as users meet it; in a process of its own where it is killed."""

import io
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from solved_runs import right, solved, truth

from cntk_bench import __version__
from cntk_bench.cli import failures, program
from cntk_bench.system import interruption

REPOSITORY = Path(__file__).parents[1]
QUICKSTART = REPOSITORY / "configs" / "quickstart.yaml"
SMALL = ("--set", "dataset.train=40", "--set", "dataset.test=30", "--set", "compute.tile=8")


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def call(*arguments):
    """Run a command in this process, which has compiled and imported everything."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = program.call([*map(str, arguments)])
    return Done(code, out.getvalue(), err.getvalue())


def start(*arguments, **kwargs):
    """Start a command as a process."""
    command = [sys.executable, "-m", "cntk_bench", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | kwargs.pop("env", {})

    # Tests run in the background or under nohup ignore some signals, and children inherit this.
    def default():
        for signum in interruption.SIGNALS:
            signal.signal(signum, signal.SIG_DFL)

    return subprocess.Popen(command, env=environment, text=True, preexec_fn=default, **kwargs)


def until(condition, process):
    """Wait, for a minute at most, until a condition holds; the process must not end before that."""
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.002)


def logged(run):
    """Names of the tiles in a run's journals, without a line that is still being written."""
    lines = [
        line
        for log in sorted((run / "gram.zarr" / "journals").glob("*"))
        for line in log.read_text().split("\n")
        if line.endswith("}")
    ]
    return [json.loads(line)["tile"] for line in lines]


def succeed(*arguments):
    done = call(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fail(*arguments, code=2):
    done = call(*arguments)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    if code == 2:
        assert len(done.stderr.strip().splitlines()) == 1 and len(done.stderr) <= 301, done.stderr
        assert done.stderr.strip().isprintable() and "fault of cntk-bench" not in done.stderr, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run of the quickstart, and what it printed."""
    output = tmp_path_factory.mktemp("runs") / "digits"
    stdout = succeed("run", QUICKSTART, *SMALL, "--output", output)
    return output, stdout


def grams(run):
    group = zarr.open_group(run / "gram.zarr", mode="r")
    return {part: group[part][:] for part in ("train", "test")}


def test_run_prints_the_table(finished):
    _, stdout = finished
    assert "CNTK-V" in stdout and "CNTK-GAP" in stdout
    for depth in (3, 4, 6, 11, 21):
        assert any(line.split()[:1] == [str(depth)] for line in stdout.splitlines())


def test_table_as_json(finished):
    run, _ = finished
    rows = json.loads(succeed("table", run, "--format", "json"))
    assert len(rows) == 10
    assert {"column", "depth", "accuracy", "standard_error", "trusted", "published", "ridge"} < set(rows[0])
    assert {(row["n_train"], row["n_test"], row["published"], row["ridge"]) for row in rows} == {
        (40, 30, None, 0)
    }
    # With 40 training images, four of each class, accuracies must be far above chance.
    assert all(60 <= row["accuracy"] <= 100 for row in rows)


def test_accuracy_is_that_of_a_plain_solve(finished):
    """The table's accuracies against a few lines of NumPy on the stored matrices."""
    run, _ = finished
    group = zarr.open_group(run / "gram.zarr", mode="r")
    y, truth = group["y_train"][:], group["y_test"][:]
    for index, row in enumerate(json.loads(succeed("table", run, "--format", "json"))):
        lower = np.tril(np.nan_to_num(group["train"][index].astype(float)))
        K = lower + np.tril(lower, -1).T
        alpha = np.linalg.solve(K, np.eye(10)[y] - 0.1)
        accuracy = 100 * ((group["test"][index] @ alpha).argmax(1) == truth).mean()
        assert row["accuracy"] == pytest.approx(accuracy)


def test_status_and_verify(finished):
    run, _ = finished
    told = succeed("status", run)
    assert told.startswith("35 of 35 tiles done, 2,020 of 2,020 pairs")
    assert "left" not in told and "at work" not in told
    assert "35 tiles checked, 0 damaged" in succeed("verify", run, "--sample", 3)


def test_following_waits_for_a_run_that_is_not_there_yet(tmp_path):
    run = tmp_path / "later"
    process = start("status", run, "--follow", "--every", 0.1, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == f"{run} has no computed tiles yet: waiting for them\n"
        succeed("compute", QUICKSTART, *SMALL, "--set", "kernel.depths=[3]", "--output", run)
        stdout, _ = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    lines = [line for line in stdout.splitlines() if " tiles done" in line]
    assert lines[-1] == "35 of 35 tiles done, 2,020 of 2,020 pairs"


def test_what_is_taken_is_told(finished, tmp_path):
    """Tiles are taken in part where a column is new; if nothing can be taken, there is a warning."""
    more = (*SMALL, "--set", "kernel.depths=[3]", "--from", finished[0], "--verbose")
    done = call(
        "compute", QUICKSTART, *more, "--set", "kernel.columns=[CNTK-V,CNN-GP-V]", "--output", tmp_path / "a"
    )
    assert done.returncode == 0, done.stderr
    assert f"35 of these tiles are taken from {finished[0]}, 35 of them in part" in done.stderr
    told = succeed("status", tmp_path / "a")
    assert "35 of 35 tiles done, 35 of them taken in part from another run, 2,020 of 2,020 pairs" in told
    done = call(
        "compute", QUICKSTART, *more[:-1], "--set", "kernel.columns=[CNN-GP-V]", "--output", tmp_path / "b"
    )
    assert done.returncode == 0 and "nothing can be taken from" in done.stderr


def test_solve_again_without_computing(finished):
    run, before = finished
    after = succeed("solve", run, "--set", "solve.ridge=[0.5]")
    assert "ridge 0.5" in after and after != before
    stages = json.loads((run / "record.json").read_text())["stages"]
    assert [stage["settings"]["solve"]["ridge"] for stage in stages if stage["stage"] == "solve"] == [
        0.0,
        [0.5],
    ]
    assert "ridge: 0.0" in (run / "config.yaml").read_text()  # the config keeps the ridge of the first call
    assert "only keys of solve" in fail("solve", run, "--set", "dataset.seed=20")


def test_damage_is_found_and_repaired(finished, tmp_path):
    run = tmp_path / "damaged"
    shutil.copytree(finished[0], run)
    whole = grams(run)
    chunk = next((run / "gram.zarr" / "test").glob("**/*.1.2"))
    content = bytearray(chunk.read_bytes())
    content[17] ^= 4
    chunk.write_bytes(content)
    done = call("verify", run)
    assert done.returncode == 1 and "damaged: test-1-2" in done.stdout and "--repair" in done.stderr
    assert "verify" in fail("solve", run, code=1)
    assert "0 damaged" in succeed("verify", run, "--repair")
    for part, array in grams(run).items():
        assert np.array_equal(array, whole[part], equal_nan=True)


def test_killed_at_random_then_the_same_bits(finished, tmp_path):
    run = tmp_path / "killed"
    command = ("compute", QUICKSTART, *SMALL, "--output", run)
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(3):
        before = len(logged(run))
        process = start(*command)
        until(lambda before=before: len(logged(run)) > before, process)
        time.sleep(rng.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert set(kept) <= set(logged(run))  # finished tiles stay
        kept = logged(run)
    succeed(*command)
    assert len(logged(run)) == len(set(logged(run))) == 35  # no tile was computed twice
    for part, array in grams(run).items():
        assert np.array_equal(array, grams(finished[0])[part], equal_nan=True)


@pytest.mark.parametrize(
    ("signum", "words"),
    [
        (signal.SIGINT, "interrupted: "),
        (signal.SIGTERM, "ended by SIGTERM: "),
        (signal.SIGHUP, "ended by SIGHUP: "),
        (signal.SIGXCPU, "ended by SIGXCPU: "),
        (signal.SIGUSR1, "ended by SIGUSR1: "),
        (signal.SIGUSR2, "ended by SIGUSR2: "),
    ],
)
def test_a_signal_keeps_what_is_finished(tmp_path, signum, words):
    run = tmp_path / "interrupted"
    process = start("compute", QUICKSTART, "--output", run, stderr=subprocess.PIPE)
    until(lambda: logged(run), process)
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert stderr == f"{words}finished tiles are stored; the same command goes on from there\n"
    told = succeed("status", run)
    done, _, total = told.split()[:3]
    assert 0 < int(done) < int(total)
    assert " left on the same machine" in told and "at work: no process seen from here" in told


def test_processes_that_compute_one_run_at_once(finished, tmp_path):
    """They do not keep each other out; together they compute the same bits as one process alone."""
    run = tmp_path / "shared"
    command = ("compute", QUICKSTART, *SMALL, "--output", run)
    processes = [start(*command, stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        _, stderr = process.communicate(timeout=300)
        assert (process.returncode, stderr) == (0, "")
    assert len(set(logged(run))) == 35 <= len(logged(run)) <= 3 * 35
    assert "35 tiles checked, 0 damaged, 0 not computed yet" in succeed("verify", run)
    for part, array in grams(run).items():
        assert np.array_equal(array, grams(finished[0])[part], equal_nan=True)
    alone = shutil.copytree(finished[0], tmp_path / "alone")
    tables = []
    for one in (run, alone):
        succeed("solve", one)
        tables.append(succeed("table", one))
    assert tables[0] == tables[1]


def test_a_run_of_other_images_is_refused(finished):
    run, _ = finished
    told = fail("compute", QUICKSTART, *SMALL, "--set", "dataset.seed=1", "--output", run)
    assert "its training images are others (seed is 0 there, 1 here): use another output directory" in told


def test_damaged_labels_are_found_and_repaired(finished, tmp_path):
    run = tmp_path / "damaged"
    shutil.copytree(finished[0], run)
    shutil.rmtree(run / "gram.zarr" / "y_train")
    assert "labels" in fail("verify", run, code=1)
    assert "0 damaged" in succeed("verify", run, "--repair", "--sample", 1)
    succeed("solve", run)


def test_a_run_verifies_from_any_working_directory(finished, tmp_path, monkeypatch):
    images, labels = np.random.default_rng(0).random((6, 5, 5), np.float32), np.arange(6) % 2
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    (tmp_path / "own.yaml").write_text("dataset: {name: npz, path: data.npz}\nkernel: {depths: [3]}\n")
    monkeypatch.chdir(tmp_path)
    succeed("compute", "own.yaml", "--output", "run", "--set", "compute.tile=5000")
    assert sum(file.stat().st_size for file in (tmp_path / "run").rglob("*")) < 10**6
    monkeypatch.chdir(tmp_path.parent)
    assert "0 damaged" in succeed("verify", tmp_path / "run")
    (tmp_path / "data.npz").rename(tmp_path / "moved.npz")
    assert "data.npz" in fail("verify", tmp_path / "run")
    succeed("verify", tmp_path / "run", "--set", f"dataset.path={tmp_path / 'moved.npz'}")


def test_plan_spends_nothing(tmp_path):
    stdout = succeed("plan", QUICKSTART, *SMALL, "--output", tmp_path / "planned")
    names = "tiles", "disk", "memory, compute", "memory, solve", "time, tile", "time, compute", "time, solve"
    for name in (*names, "time, all"):
        assert re.search(f"^{name} ", stdout, re.MULTILINE)
    assert not (tmp_path / "planned").exists()


def test_plan_counts_what_a_run_lacks(finished):
    run, _ = finished

    def planned(*more):
        return json.loads(succeed("plan", QUICKSTART, *SMALL, "--output", run, "--json", *more))

    same = planned("--workers", 3)
    assert same["tiles_done"] == same["tiles"] == 15 + 4 * 5 and same["pairs_done"] == same["pairs"]
    assert same["disk"] == 0 and same["pairs_per_second"] is None
    assert same["time_compute"] == same["time_compute_by_workers"] == {"low": 0, "high": 0}
    grown = planned("--set", "dataset.train=48")
    assert grown["tiles"] - grown["tiles_done"] == 6 + 4 and grown["pairs_done"] == same["pairs"]
    assert grown["disk"] == 10 * 10 * (4 * 8**2 + 4) and grown["time_compute"]["high"] > 0
    deeper = planned("--set", "kernel.depths=[3,5]")
    assert deeper["tiles_done"] == 0 and deeper["tiles_done_in_part"] == deeper["tiles"]
    told = succeed("plan", QUICKSTART, *SMALL, "--output", run, "--set", "dataset.train=48")
    assert re.search(
        r"^done +35 of these tiles, 2,020 of 2,616 pairs; only the rest is computed$", told, re.MULTILINE
    )


def test_plan_refuses_what_compute_refuses(finished):
    run, _ = finished
    for wrong in ("dataset.seed=3", "compute.tile=16", "dataset.preprocess=none"):
        asked = (QUICKSTART, *SMALL, "--set", wrong, "--output", run)
        told = fail("plan", *asked)
        assert "holds another computation" in told and told == fail("compute", *asked)


def test_bench_prints_rates():
    results = json.loads(
        succeed("bench", "--size", 6, "--channels", 1, "--depths", "3,4", "--seconds", 0.05, "--json")
    )["columns"]
    assert [result["column"] for result in results] == ["CNTK-V", "CNTK-GAP"]
    assert all(result["pairs_per_second"] > 0 < result["stage_pairs_per_second"] for result in results)


def test_bench_leaves_nothing_and_names_what_it_cannot_write(tmp_path, monkeypatch):
    quick = ("bench", "--columns", "CNTK-V", "--size", 4, "--depths", 3, "--seconds", 0.01, "--scratch")
    assert "with tiles stored" in succeed(*quick, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "is not a folder: make it" in fail(*quick, tmp_path / "nowhere")
    assert "cannot write /proc" in fail(*quick, "/proc")
    # The estimated time is not what fails.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert "another --scratch" in fail(*quick, tmp_path)


def test_bench_tells_the_limit_where_it_is_known(monkeypatch):
    from cntk_bench.backends import cpu

    quick = ("bench", "--columns", "CNTK-V", "--size", 4, "--depths", 3, "--seconds", 0.01)
    assert (
        json.loads(succeed(*quick, "--json", "--backend", "cpu"))["columns"][0]["limit_pairs_per_second"]
        is None
    )
    monkeypatch.setattr(cpu.Backend, "limit", lambda self: 12345.0)
    assert (
        json.loads(succeed(*quick, "--json", "--backend", "cpu"))["columns"][0]["limit_pairs_per_second"]
        == 12345
    )
    assert "at most 12,345.0 by instruction issue" in succeed(*quick, "--backend", "cpu")


def test_only_a_computation_that_was_interrupted_goes_on(tmp_path, monkeypatch):
    from cntk_bench.costs import measure

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "rate", interrupted)
    assert fail("bench", code=130).split() == ["interrupted"]


def test_a_begun_run_keeps_its_backend(tmp_path, monkeypatch):
    """plan, compute and verify --repair use the run's first backend, not what "auto" would choose."""
    from cntk_bench import backends

    run, asked = tmp_path / "run", []
    succeed("compute", QUICKSTART, *SMALL, "--backend", "cpu", "--output", run)
    create = backends.create
    monkeypatch.setattr(backends, "available", lambda: ["cuda", "cpu"])
    monkeypatch.setattr(backends, "create", lambda name, spec: asked.append(name) or create(name, spec))
    assert "(cpu, measured" in succeed(
        "plan", QUICKSTART, *SMALL, "--set", "dataset.train=48", "--output", run
    )
    succeed("compute", QUICKSTART, *SMALL, "--output", run)
    assert "0 damaged" in succeed("verify", run, "--repair")
    assert set(asked) == {"cpu"}
    monkeypatch.setattr(backends, "available", lambda: ["cuda"])
    for command in (("compute", QUICKSTART, *SMALL, "--output", run), ("verify", run, "--repair")):
        message = fail(*command)
        assert "begun with the cpu backend" in message and "begin another run" in message


def test_info_shows_what_works_and_what_is_broken(monkeypatch):
    from cntk_bench.backends import cpu
    from cntk_bench.data.sources import READERS

    lines = dict(re.split(r"  +", line, maxsplit=1) for line in succeed("info").splitlines() if "  " in line)
    assert lines["cntk-bench"] == __version__ and lines["python"] == platform.python_version()
    assert lines["data sets"].split(", ") == list(READERS)
    shipped = sorted(path.stem for path in QUICKSTART.parent.glob("*.yaml"))
    assert lines["configs"].split(", ") == shipped
    assert "cpu" in lines["backends"] and lines["numpy"] == np.__version__

    def broken():
        raise ImportError("libllvm.so: cannot open\x1b[31m")

    monkeypatch.setattr(cpu, "available", broken)
    monkeypatch.setitem(sys.modules, "cntk_bench.backends.cuda", None)  # makes the import fail
    stdout = succeed("info")
    assert re.search(r"^backends +none$", stdout, re.MULTILINE)
    assert r"is broken (ImportError: libllvm.so: cannot open\x1b[31m)" in stdout
    assert re.search(r"^backend cuda +is broken \(ModuleNotFoundError", stdout, re.MULTILINE)
    monkeypatch.setattr("cntk_bench.records.provenance.machine", broken)
    assert re.search(r"^machine +unknown \(ImportError", succeed("info"), re.MULTILINE)


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("datset.train=3", "did you mean dataset"),
        ("dataset.trian=3", "did you mean dataset.train?"),
        ("dataset.train=many", "expected an integer of at least 1"),
        ("dataset.train=9999", "1437"),  # digits has 1437 training images
        ("dataset.train=", "write dataset.train=null"),
        ("kernel.depths=[2]", "use an integer of at least 3"),
        (f"kernel.depths=[{10**22}]", "use at most 10,000"),
        ("kernel.columns=[CNTK-GAPP]", "did you mean CNTK-GAP?"),
        ("solve.ridge=-1", "expected a finite number of at least 0"),
        ("compute.backend=gpu", "backend gpu is unknown: use one of auto, cuda, cpu"),
        ("compute.executor=slrum", "did you mean slurm?"),
        ("solve.solver=chol", "solver chol is unknown: use one of auto, cholesky"),
        ("compute.tile=1", "use at least 8"),
        ("dataset.name=digit", "did you mean digits?"),
        ("dataset.preprocess=whiten", "preprocess whiten is unknown: use one of standardize"),
        ("dataset.path=" + "x" * 100_000, "expected a file or folder"),
        ("name=" + "\x1b[31m" * 10, "remove the character"),
    ],
)
def test_a_bad_value_is_told_the_remedy_and_leaves_nothing(setting, remedy, tmp_path):
    assert remedy not in setting
    assert remedy in fail("run", QUICKSTART, "--set", setting, "--output", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


RIDGED = ("flow", "posterior", "curve")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("compute", QUICKSTART, "--output="), "--output: it is empty: give a path"),
        (
            ("compute", QUICKSTART, "--output=~nobody-of-this-name/x"),
            "or ./~nobody-of-this-name for a folder",
        ),
        (("compute", "~nobody-of-this-name/x.yaml"), "give the whole path"),
        (("solve", ""), "RUN: it is empty"),
        (("table", "~nobody-of-this-name"), "give the whole path"),
        (("fetch", "mnist", "--path="), "--path: it is empty"),
        (("bench", "--scratch="), "--scratch: it is empty"),
        (("bench", "--scratch=~nobody-of-this-name"), "give the whole path"),
        (("compute", QUICKSTART, "--output", "a\0b"), "no path can"),
        (("compute", "/dev/zero"), "give a YAML file"),
        (("compute", "/"), "give a YAML file"),
        (("compute", QUICKSTART, "--output", "x" * 300), "use another path"),
        (("solve", "x" * 300), "use another path"),
        (("status", "loop"), "compute it first"),
        (("bench", "--depths", "3,,4"), "separated by commas"),
        (("bench", "--depths", f"{10**22}"), "separated by commas"),
        (("bench", "--seconds", "nan"), "Invalid value for '--seconds': nan is not a finite number"),
        (("plan", QUICKSTART, "--price-per-hour", "nan"), "'--price-per-hour': nan is not a finite number"),
        (("status", "none", "--follow", "--every", "nan"), "'--every': nan is not a finite number"),
        *(((name, "none", "--ridge", "inf"), "'--ridge': inf is not a finite number") for name in RIDGED),
        (("bench", "--size", 10**6), "use smaller ones"),
        (("bench", "--columns", "CNTK-W"), "did you mean CNTK-V?"),
        (("compute", QUICKSTART, "--backend", ""), "write compute.backend=null"),
        (("solve", ".", "--set", "x" * 100_000), "only keys of solve, kernel and columns"),
        (("x" * 100_000,), "See --help."),
        (("run",), "Missing argument 'CONFIG'. See --help."),
        (("table", ".", "--solve", "0"), "x>=1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_arguments_are_told_the_remedy_and_leave_nothing(arguments, remedy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    assert remedy in fail(*arguments)
    assert os.listdir() == ["loop"]


def test_a_run_is_suggested_for_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").touch()
    for command in ("table", "status", "verify", "page"):
        assert fail(command, "mine") == "error: there is no mine: did you mean runs/mine?\n"
    assert "no record at theirs/record.json" in fail("table", "theirs")
    assert "name the --output directory of a run" in fail("table", "runs/mine/config.yaml")


def test_what_is_advised_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "`cntk-bench plan 'my config.yaml'` tells" in succeed("init", "my config.yaml")


def test_help_says_what_each_command_does_in_whole_sentences():
    told = "".join(succeed("--help").split())  # --help also breaks lines at hyphens
    for name, command in program.cli.commands.items():
        sentence = " ".join(command.help.split()).partition(". ")[0].rstrip(".")
        assert name + "".join(sentence.split()) in told


def test_a_tilde_is_the_home_directory_in_every_path(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    shutil.copy(QUICKSTART, home / "c.yaml")
    images = np.random.default_rng(0).random((12, 5, 5), np.float32)
    np.savez(
        home / "x.npz", x_train=images, y_train=np.arange(12) % 2, x_test=images, y_test=np.arange(12) % 2
    )
    asked = ("--set", "dataset={name: npz, path: ~/x.npz}", "--set", "kernel.depths=[3]")
    succeed("run", "~/c.yaml", *asked, "--output=~/r")
    for command in ("verify", "status", "solve", "table", "solves"):
        succeed(command, "~/r")
    succeed("bench", "--columns=CNTK-V", "--size=4", "--depths=3", "--seconds=0.01", "--scratch=~")
    assert "is in" not in succeed("fetch", "digits", "--path=~/data")
    kept = sorted(name for name in os.listdir(home) if name[0] != ".")  # libraries put hidden caches there
    assert os.listdir() == ["home"] and kept == ["c.yaml", "r", "x.npz"]


def test_every_solve_is_listed_and_its_table_kept(finished, tmp_path):
    run = tmp_path / "again"
    shutil.copytree(finished[0], run)
    first = succeed("table", run)
    before = len(succeed("solves", run).splitlines()) - 1
    second = succeed("solve", run, "--set", "solve.ridge=[0.25]", "--set", "solve.precision=float32")
    head, *lines = succeed("solves", run).splitlines()
    assert head.split() == ["solve", "date", "(UTC)", "ridge", "precision", "device", "accuracy"]
    assert len(lines) == before + 1
    number, day, _, ridge, precision, device, least, to, most, _ = lines[-1].split()
    assert (int(number), ridge, precision, device, to) == (before + 1, "0.25", "float32", "cpu", "to")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", day)
    scores = [row["accuracy"] for row in json.loads(succeed("table", run, "--format", "json"))]
    assert (float(least), float(most)) == (round(min(scores), 2), round(max(scores), 2))
    assert succeed("table", run) == succeed("table", run, "--solve", before + 1) == second != first
    assert succeed("table", run, "--solve", before) == first
    assert f"its solves are {', '.join(map(str, range(1, before + 2)))}" in fail("table", run, "--solve", 99)


def test_what_is_not_to_be_trusted_is_marked_among_the_solves(tmp_path):
    run, doubt = tmp_path / "run", {"trusted": False, "doubt": "not solved"}
    better, worse = right(0.9), right(0.5)
    solved(run, {("CNTK-V", 3): better, ("CNTK-V", 4): worse})
    for facts in ((doubt, {}), ({}, doubt), (doubt, doubt)):
        solved(run, {("CNTK-V", 3): (better, dict(facts[0])), ("CNTK-V", 4): (worse, dict(facts[1]))})
    solved(run, {("CNTK-V", 3): (better, dict(doubt))})
    _, *lines, last = succeed("solves", run).splitlines()
    most, least = (f"{100 * np.mean(some == truth()):.2f}" for some in (better, worse))
    assert [line.split("  ")[-1].strip() for line in lines] == [
        f"{least} to {most} %",
        f"{least} to {most}? %",
        f"{least}? to {most} %",
        f"{least}? to {most}? %",
        f"{most}? %",
    ]
    assert last.startswith("? Not to be trusted: cells of solves 2, 3, 4, 5; `table --solve N` says")
    found = json.loads(succeed("solves", run, "--json"))["solves"]
    assert [one["trusted"] for one in found] == [True, False, False, False, False]


def test_a_solve_without_an_accuracy_has_a_dash_among_the_solves(tmp_path):
    solved(tmp_path / "run", {("CNN-V", 3): (right(0.5), {"accuracy": None, "trusted": False})})
    assert succeed("solves", tmp_path / "run").splitlines()[1].split("  ")[-1].strip() == "-"


def test_a_solution_that_is_not_to_be_trusted_ends_with_2(finished, tmp_path, monkeypatch):
    from cntk_bench.runs import solve as stage

    run, solve = finished[0], stage.solve

    def doubted(*arguments):
        record = solve(*arguments)
        record["solutions"][3] |= {"trusted": False, "doubt": "the residual is\n0.5"}
        return record

    monkeypatch.setattr(stage, "solve", doubted)
    for command in (("solve", run), ("run", QUICKSTART, *SMALL, "--output", run)):
        done = call(*command)
        assert done.returncode == 2 and "CNTK-GAP" in done.stdout
        assert (
            "1 of 10 solutions are not to be trusted: CNTK-V at depth 11: the residual is 0.5" in done.stderr
        )


def test_a_bad_npz_is_told_what_is_wrong(tmp_path):
    images, labels = np.zeros((4, 5, 5), np.float32), np.array([0, 1, 0, 1])
    good = {"x_train": images + 1, "y_train": labels, "x_test": images, "y_test": labels}
    nan = images.copy()
    nan[1, 2, 3] = np.nan
    for changed, words in (
        ({"x_train": nan}, "nan"),
        ({"x_test": images[:, :4]}, "square"),
        ({"y_train": labels + 5}, "label"),
        ({"y_train": labels * 0, "y_test": labels * 0}, "class"),
    ):
        path = tmp_path / "own.npz"
        np.savez(path, **(good | changed))
        config = tmp_path / "config.yaml"
        config.write_text(f"dataset: {{name: npz, path: {path}, preprocess: none}}\n")
        assert words in fail("compute", config, "--output", tmp_path / "run").lower().replace("own.npz", "")
    path.write_bytes(path.read_bytes()[:200])
    assert "own.npz" in fail("compute", config, "--output", tmp_path / "run")


def test_a_backend_that_is_not_here(tmp_path):
    from cntk_bench.backends import available

    if "cuda" in available():
        pytest.skip("there is a GPU here")
    message = fail("compute", QUICKSTART, "--backend", "cuda", "--output", tmp_path / "run")
    assert "--backend cpu" in message


def test_an_output_that_cannot_be_made(tmp_path):
    (tmp_path / "taken").write_text("as it was")
    message = fail("compute", QUICKSTART, *SMALL, "--output", tmp_path / "taken" / "run")
    assert "Not a directory" in message and "another output directory" in message
    assert (tmp_path / "taken").read_text() == "as it was"


def test_debug_shows_the_traceback():
    process = start("run", "missing.yaml", "--debug", stderr=subprocess.PIPE)
    assert "Traceback" in process.communicate()[1] and process.returncode == 1
    assert "missing.yaml" in fail("run", "missing.yaml")


def test_fetch_takes_a_data_set_or_a_config_that_uses_it(tmp_path, monkeypatch):
    from cntk_bench import data
    from cntk_bench.runs import images

    monkeypatch.chdir(tmp_path)
    fetched = []
    monkeypatch.setattr(data, "fetch", lambda name, folder, _: fetched.append((name, str(folder))))
    (tmp_path / "mine.yaml").write_text("dataset: {name: cifar100, path: there}\n")
    for named in ("cifar10", "CIFAR-10", "cifar10-small", "mine.yaml"):
        assert "is in" in succeed("fetch", named)
    assert fetched == 3 * [("cifar10", images.FETCHED)] + [("cifar100", "there")]
    assert "digits needs no download" in succeed("fetch", "quickstart")
    monkeypatch.setattr("cntk_bench.system.resources.folder", lambda _: tmp_path)
    (tmp_path / "cifar10.yaml").write_text("dataset: {name: digits}\n")
    succeed("fetch", "cifar10", "--path", "here")
    assert fetched[-1] == ("cifar10", "here")  # a data set's own name comes first
    assert "data set cifar10-tiny is unknown" in fail("fetch", "cifar10-tiny")


def test_bad_usage_is_told_the_remedy():
    assert "did you mean cifar10?" in fail("fetch", "cifr10")
    assert "'markdown'" in fail("table", ".", "--format", "xml")
    assert "No such command 'frob'. See --help." in fail("frob")
    assert "use one of auto, cuda, cpu" in fail("bench", "--backend", "gpu")


def test_not_a_run(tmp_path):
    for command in ("solve", "table", "status", "verify"):
        message = fail(command, tmp_path)
        assert re.search("not a run|no store|no Gram|record", message.replace(str(tmp_path), "")), message


def test_the_help_tells_the_exit_codes():
    text = succeed("--help")
    for code, meaning in failures.EXIT_CODES.items():
        assert re.search(rf"^ +{re.escape(code)} +{re.escape(meaning)}", text, re.MULTILINE)
