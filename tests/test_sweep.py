"""Sweeps, as users meet them: a single Gram, every solve is kept, and nothing is solved twice."""

import json
import shutil

import numpy as np
import pytest
from solved_runs import right, solved

from cntk_bench.cli import program
from cntk_bench.comparisons import axes, sweep
from cntk_bench.config import config
from cntk_bench.errors import UserError
from cntk_bench.grams import compute as grams
from cntk_bench.records.directory import Run
from cntk_bench.runs import solve as stage

CONFIG = """
name: swept
dataset: {name: digits, train: 24, test: 30}
kernel: {columns: [FC-NTK], depths: [1, 2]}
compute: {backend: cpu, tile: 8}
solve: {ridge: [0.0, 0.1]}
"""
MANY = list(range(1, 41))
OVER = ("--over", "dataset.train=[16,24]", "--over", "solve.ridge=[1e-3,1]")


@pytest.fixture
def called(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # Figures are drawn in other tests.
    monkeypatch.setattr("cntk_bench.report.write", lambda past, folder: None)
    (tmp_path / "swept.yaml").write_text(CONFIG)

    def call(*arguments):
        code = program.call([*map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def calls(monkeypatch):
    """The sizes that are computed, and the settings of each solve."""
    tasks, asked, compute, solve = [], [], grams.compute, stage.solve

    def computing(job, wanted, sizes, *more):
        tasks.append(sizes)
        return compute(job, wanted, sizes, *more)

    def solving(run, settings, *more):
        asked.append((settings.dataset.train, settings.solve.ridge))
        return solve(run, settings, *more)

    monkeypatch.setattr(grams, "compute", computing)
    monkeypatch.setattr(stage, "solve", solving)
    return tasks, asked


def predictions(run, number, cell):
    return np.load(run / "solves" / str(number) / f"{cell}.npz")["predicted"]


def test_a_repeated_sweep_leaves_the_last_solve(called, calls, tmp_path):
    tasks, asked = calls
    repeated = ("sweep", "swept.yaml", "--over", "dataset.draws=[1,2]", "--output", "out")
    assert called(*repeated)[0] == 0
    shown = called("table", "out")
    done, made = (len(tasks), len(asked)), Run(tmp_path / "out").record.read_bytes()
    assert called(*repeated)[0] == 0 and (len(tasks), len(asked)) == done
    assert called("table", "out") == shown and shown[0] == 0
    for command in (("compare", "out"), ("page", "out")):
        code, _, err = called(*command)
        assert code == 0, err
    assert json.loads(made)["solutions"] == json.loads(Run(tmp_path / "out").record.read_text())["solutions"]


def test_one_gram_every_solve_kept_and_each_is_what_a_run_of_its_own_is(called, calls, tmp_path):
    tasks, asked = calls
    code, out, err = called("sweep", "swept.yaml", *OVER, "--output", "out")
    assert code == 0, err
    assert tasks == [(24, 30)]  # computed once, for the larger size
    assert asked == [(16, 1e-3), (16, 1.0), (24, 1e-3), (24, 1.0)]
    assert "Comparison of 4 solves" in out and out.count("FC-NTK") >= 8
    made = list(asked)
    for number, (train, ridge) in enumerate(made, 1):
        alone = tmp_path / f"alone-{number}"
        done = called("run", "swept.yaml", "--set", f"dataset.train={train}", "--set", f"solve.ridge={ridge}",
                      "--output", alone)  # fmt: skip
        assert done[0] == 0
        for depth in (1, 2):
            cell = f"FC-NTK-{depth}"
            np.testing.assert_array_equal(
                predictions(tmp_path / "out", number, cell), predictions(alone, 1, cell)
            )
    kept = json.loads((tmp_path / "out" / "sweep" / "sweep.json").read_text())
    assert [(one["run"], one["solve"], one["values"]) for one in kept["solves"]] == [
        (".", number, {"dataset.train": train, "solve.ridge": ridge})
        for number, (train, ridge) in enumerate(made, 1)
    ]
    assert (tmp_path / "out" / "sweep" / "table.txt").read_text().strip() in out
    assert "Least leave-one-out error" in (tmp_path / "out" / "sweep" / "index.html").read_text()
    assert Run(tmp_path / "out").config().dataset.train == 24
    # Again with one more value: nothing is computed, and only the new value is solved.
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "solves").rglob("*") if path.is_file()}
    del tasks[:], asked[:]
    more = ("--over", "dataset.train=[16,24]", "--over", "solve.ridge=[1e-3,1,5]")
    code, out, _ = called("sweep", "swept.yaml", *more, "--output", "out", "--format", "json")
    assert code == 0 and tasks == [] and asked == [(16, 5.0), (24, 5.0)]
    assert all(path.read_bytes() == content for path, content in before.items())
    rows = json.loads(out)
    assert [row["runs"] for row in rows[:6]] == [[f"out@{n}"] for n in (1, 2, 5, 3, 4, 6)]
    assert rows == json.loads((tmp_path / "out" / "sweep" / "table.json").read_text())
    compared = json.loads(called("compare", "out@1", "out@3", "--format", "json")[1])
    assert [row["difference"] is None for row in compared] == [True, False, True, False]


def test_other_code_solves_again(called, calls, monkeypatch):
    """An edited checkout, or a newer one of the same version: what it gives may be another number."""
    assert called("sweep", "swept.yaml", *OVER, "--output", "out")[0] == 0
    asked = calls[1]
    del asked[:]
    assert called("sweep", "swept.yaml", *OVER, "--output", "out")[0] == 0 and asked == []
    monkeypatch.setattr(sweep.provenance, "code", lambda: "0" * 64)
    assert called("sweep", "swept.yaml", *OVER, "--output", "out")[0] == 0 and len(asked) == 4


def test_a_sweep_that_was_interrupted_goes_on(called, calls, monkeypatch, tmp_path):
    asked, solve = calls[1], stage.solve

    def interrupted(*arguments):
        if len(asked) == 2:
            raise KeyboardInterrupt
        return solve(*arguments)

    monkeypatch.setattr(stage, "solve", interrupted)
    code, out, _ = called("sweep", "swept.yaml", *OVER, "--output", "out")
    assert code == 130 and out == "" and len(asked) == 2
    monkeypatch.setattr(stage, "solve", solve)
    code, out, _ = called("sweep", "swept.yaml", *OVER, "--output", "out")
    assert code == 0 and asked == [(16, 1e-3), (16, 1.0), (24, 1e-3), (24, 1.0)]
    assert "Comparison of 4 solves" in out


def test_one_that_cannot_be_solved_does_not_end_the_others(called, monkeypatch):
    solve = stage.solve

    def failing(run, settings, *more):
        if settings.solve.ridge == 1.0:
            raise UserError("this one cannot be solved")
        return solve(run, settings, *more)

    monkeypatch.setattr(stage, "solve", failing)
    code, out, err = called("sweep", "swept.yaml", *OVER, "--output", "out")
    assert code == 2 and "Comparison of 2 solves" in out
    assert err.count("this one cannot be solved") == 2 and "dataset.train=16 solve.ridge=1" in err


def test_a_key_alone_means_each_value_of_its_list(called, calls):
    code, out, _ = called("sweep", "swept.yaml", "--over", "kernel.depths", "--over", "solve.ridge",
                          "--output", "out", "--format", "json")  # fmt: skip
    assert code == 0 and [(row["depth"], row["ridge"], row["runs"]) for row in json.loads(out)] == [
        (1, 0.0, ["out@1"]), (1, 0.1, ["out@2"]), (2, 0.0, ["out@3"]), (2, 0.1, ["out@4"])
    ]  # fmt: skip
    assert [ridge for _, ridge in calls[1]] == [0.0, 0.1, 0.0, 0.1]


def test_what_decides_the_images_makes_runs_of_their_own(called, tmp_path):
    over = ("--over", "dataset.seed=[0,1]", "--over", "solve.normalize=[none,unit_diagonal]")
    given = ("--set", "solve.ridge=0", *over, "--output", "out", "--format", "json")
    code, out, _ = called("sweep", "swept.yaml", *given)
    found = json.loads(out)
    assert code == 0 and len(found) == 2 * 2 * 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dataset.seed=0",
        "dataset.seed=1",
        "sweep",
    ]
    for row in found:
        (name,) = row["runs"]
        folder, number = name.split("@")
        assert folder == f"dataset.seed={row['settings']['dataset.seed']}"
        kept = json.loads((tmp_path / "out" / folder / "solves" / number / "solve.json").read_text())
        assert kept["settings"]["solve"]["normalize"] == row["settings"]["solve.normalize"]
    # Different seeds have different test images, so there is no difference between them.
    assert all((row["difference"] is None) == (row["settings"]["dataset.seed"] == 1 or row["runs"][0] ==
               "dataset.seed=0@1") for row in found)  # fmt: skip


@pytest.mark.parametrize("steps", ["standardize", "[contrast,zca]"])
def test_training_images_that_prepare_themselves_make_runs_of_their_own(called, tmp_path, steps):
    """If the training images determine the preparation, each number of them needs its own Gram matrices."""
    given = ("--set", "preprocess.statistics=subset", "--set", f"dataset.preprocess={steps}")
    over = ("--over", "dataset.train=[16,24]", "--over", "dataset.test=[20,30]")
    code, out, err = called("sweep", "swept.yaml", "--set", "solve.ridge=1.0", "--set", "kernel.depths=[1]",
                            *given, *over, "--output", "out", "--format", "json")  # fmt: skip
    assert code == 0, err
    assert [row["runs"] for row in json.loads(out)] == [
        [f"dataset.train={train}@{number}"] for train in (16, 24) for number in (1, 2)
    ]
    alone = called("run", "swept.yaml", "--set", "solve.ridge=1.0", "--set", "kernel.depths=[1]",
                   "--set", "dataset.train=16", *given, "--output", "alone")  # fmt: skip
    assert alone[0] == 0
    np.testing.assert_array_equal(
        predictions(tmp_path / "out" / "dataset.train=16", 2, "FC-NTK-1"),
        predictions(tmp_path / "alone", 1, "FC-NTK-1"),
    )


@pytest.mark.parametrize("given", [{"statistics": "full"}, {"steps": "center"}])
def test_training_images_that_prepare_none_share_a_gram(tmp_path, given):
    file = tmp_path / "swept.yaml"
    file.write_text(CONFIG)
    asked = (
        f"preprocess.statistics={given.get('statistics', 'subset')}",
        f"dataset.preprocess={given.get('steps', 'zca')}",
    )
    some = axes.combinations(file, asked, ["dataset.train=[16,24]"])
    assert [one.apart for one in some] == [{}, {}]


def test_a_step_of_some_combinations_is_enough(tmp_path):
    file = tmp_path / "swept.yaml"
    file.write_text(CONFIG)
    over = ["preprocess.zca_regularizer=[0.1,1]", "dataset.preprocess=[none,zca]"]
    assert len(axes.combinations(file, (), over)) == 4
    over = ["kernel.depths=[1,2]", "kernel.columns=[RBF,FC-NTK]"]
    assert len(axes.combinations(file, (), over)) == 4


def test_test_images_of_a_file_are_told_by_their_digests(called, tmp_path):
    """Two runs on one .npz have different numbers of test images; common ones are found by their pixels."""
    rng = np.random.default_rng(0)
    x, y = rng.random((80, 4, 4, 1)).astype(np.float32), np.arange(80) % 2
    x[y == 1] += 0.25
    np.savez(tmp_path / "mine.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    given = [f"--set={one}" for one in ("dataset.name=npz", "dataset.path=mine.npz", "solve.ridge=1.0",
                                        "preprocess.statistics=full", "kernel.depths=[1]")]  # fmt: skip
    for name, test, ridge in (("one", 20, 0.001), ("two", 34, 1.0)):
        more = f"--set=dataset.test={test}", f"--set=solve.ridge={ridge}", "--output", name
        done = called("run", "swept.yaml", *given, *more)
        assert done[0] == 0, done[2]
    code, out, err = called("compare", "one", "two", "--paired", "--format", "json")
    assert code == 0, err
    (found,) = json.loads(out)
    one, two = (np.load(tmp_path / name / "solves" / "1" / "FC-NTK-1.npz") for name in ("one", "two"))
    facts = [json.loads((tmp_path / name / "record.json").read_text())["data"] for name in ("one", "two")]
    places = [list(map(int, fact["test_index"].split())) for fact in facts]
    there = [places[1].index(place) for place in places[0]]
    correct = one["predicted"] == one["y_test"], (two["predicted"] == two["y_test"])[there]
    assert found["images"] == 20
    assert found["only_first"] == (correct[0] & ~correct[1]).sum()
    assert found["only_second"] == (correct[1] & ~correct[0]).sum()


def test_other_images_are_solved_again(called, calls, tmp_path):
    rng = np.random.default_rng(0)
    given = ("--set", "dataset.name=npz", "--set", "dataset.path=mine.npz", "--set", "dataset.train=null")
    for seed in (0, 1):
        x, y = rng.random((60, 4, 4, 1)).astype(np.float32), np.arange(60) % 2
        np.savez(tmp_path / "mine.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
        shutil.rmtree(tmp_path / "out" / "gram.zarr", ignore_errors=True)
        code, _, err = called("sweep", "swept.yaml", *given, "--over", "solve.ridge", "--output", "out")
        assert code in (0, 2), err  # labels are random, so some solves may be in doubt
        assert len(calls[1]) == 2 * (seed + 1)


def test_the_best_is_chosen_by_leave_one_out_and_not_by_the_test_images(tmp_path):
    """The ridge with the least trusted error has the worst test accuracy; a smaller error is in doubt."""
    cases = ((0.3, 0.95, True), (0.1, 0.4, True), (0.05, 0.99, False))
    made = []
    for place, (error, share, trusted) in enumerate(cases):
        cells = {("CNTK-V", 3): (right(share), {"loo_error": error, "trusted": trusted})}
        number = solved(tmp_path / "a", cells, settings={"solve": {"ridge": float(place)}})
        made.append(
            sweep.Solved(Run(tmp_path / "a"), axes.Combination({"solve.ridge": float(place)}, None), number)
        )
    *_, table = sweep.compared(made)
    (note,) = [note for note in table.notes if note.startswith("Least leave-one-out")]
    assert "(a@2)" in note and "0.10000" in note and "no part in this choice" in note
    *_, table = sweep.compared(made[:1])  # there is no choice
    assert not any(note.startswith("Least") for note in table.notes)


def test_errors_of_other_training_images_are_not_compared(tmp_path):
    made = []
    for n_train, error in ((20, 0.3), (20, 0.2), (30, 0.1), (30, 0.15)):
        cells = {("CNTK-V", 3): (right(0.5), {"loo_error": error})}
        settings = {"solve": {"ridge": error}}
        number = solved(tmp_path / "a", cells, settings=settings, data={"n_train": n_train})
        made.append(sweep.Solved(Run(tmp_path / "a"), axes.Combination({}, None), number))
    notes = [note for note in sweep.compared(made)[2].notes if note.startswith("Least")]
    assert len(notes) == 2 and "(a@2)" in notes[0] and "(a@3)" in notes[1]


def test_errors_of_other_data_sets_are_not_compared(called, tmp_path):
    """Other training images are not compared, though labels and test images agree; other preparation is."""
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 4, 4)).astype(np.float32), np.arange(60) % 2
    for name, noise in (("a", 0), ("b", 0.3)):
        train = (x + noise * rng.standard_normal(x.shape)).astype(np.float32)[:30]
        np.savez(tmp_path / f"{name}.npz", x_train=train, y_train=y[:30], x_test=x[30:], y_test=y[30:])
    (tmp_path / "own.yaml").write_text(
        "name: own\ndataset: {name: npz, order: random}\n"
        "kernel: {columns: [FC-NTK], depths: [2]}\ncompute: {backend: cpu}\n"
    )
    for key, notes in (("dataset.path=[a.npz, b.npz]", 0), ("dataset.preprocess=[none, standardize]", 1)):
        given = ["--set", "dataset.path=a.npz"] if notes else []
        code, out, err = called("sweep", "own.yaml", *given, "--over", key, "--output", f"out{notes}")
        assert code in (0, 2), err
        assert out.count("Least leave-one-out error of 2 rows") == notes


def test_errors_of_the_same_images_prepared_by_other_numbers_are_compared(called, tmp_path):
    over = "preprocess.zca_regularizer=[0.1, 1.0]"
    given = ["--set", "dataset.preprocess=[standardize, zca]"]
    code, out, err = called("sweep", "swept.yaml", *given, "--over", over, "--output", "zca")
    assert code in (0, 2), err
    assert "Least leave-one-out error of 4 rows of 24 training images" in out


def test_what_is_computed_for_a_sweep(tmp_path):
    file = tmp_path / "swept.yaml"
    file.write_text(CONFIG)

    def computed(*over):
        some = axes.combinations(file, (), over)
        return [
            (one.dataset.train, one.dataset.test, one.dataset.draws, one.kernel.columns, one.kernel.depths)
            for one in axes.union(file, (), some)
        ]

    assert computed("dataset.train=[10,20]", "dataset.test=[9,7]") == [(20, 9, 1, ("FC-NTK",), (1, 2))]
    assert computed("dataset.train=[10,null]", "dataset.test=[null,7]") == [
        (None, None, 1, ("FC-NTK",), (1, 2))
    ]
    assert computed("kernel.columns=[FC-NTK,[FC-NNGP,RBF]]", "kernel.depths=[[3,2],5]") == [
        (24, 30, 1, ("FC-NTK", "FC-NNGP", "RBF"), (2, 3, 5))
    ]
    # Draws of another size are other images: each size has its own Gram, the largest first.
    assert [one[:3] for one in computed("dataset.train=[10,20]", "dataset.draws=[1,3]")] == [
        (20, 30, 3), (10, 30, 3), (20, 30, 1), (10, 30, 1)
    ]  # fmt: skip


def test_names_of_folders():
    assert axes.folder({}) == ""
    assert axes.folder({"dataset.seed": 3, "dataset.preprocess": ["contrast", "zca"]}) == (
        "dataset.seed=3,dataset.preprocess=contrast+zca"
    )
    hostile = [axes.folder({"dataset.path": path}) for path in ("../../x", "..-..-x", "a" * 300, "a" * 301)]
    assert len(set(hostile)) == 4 and all("/" not in name and len(name) <= 100 for name in hostile)


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        (["solve.rige=[1]"], "--over solve.rige=1: unknown key solve.rige: did you mean solve.ridge?"),
        (["solve.rige"], "did you mean solve.ridge?"),
        (["nothing.here"], "unknown key nothing"),
        (["kernel"], "is a section: name one of its keys"),
        (["solve.ridge=[]"], "the list is empty: give at least one value"),
        (["solve.ridge=0.5"], "give a list of values, such as solve.ridge=[0, 1e-4]"),
        (["dataset.seed"], "the config has one value, 0: give values, such as dataset.seed=[0, ...]"),
        (["solve.ridge=[0,-1]"], "--over solve.ridge=-1: solve.ridge is -1: expected a finite number"),
        (["kernel.depths=[1,0]"], "kernel.depths is [0]: expected a list of integers"),
        (["solve.ridge=[0,0.0]"], "0.0 is listed twice: list it once"),
        (["solve.ridge=[0]", "solve.ridge=[1]"], "is given twice"),
        (["solve.normalize=[none]", "kernel.columns=[CNTK-X]"], "column 'CNTK-X' is unknown: did you mean"),
        (["compute.tile=[4,8]"], "changes nothing that a sweep compares: use --set"),
        (["name=[a,b]"], "use --set"),
        (["solve.device=[cpu,auto]"], "changes nothing that a sweep compares: use --set"),
        (["network.width=[4,8]"], "the columns here (FC-NTK) do not depend on it: add one that"),
        (["baseline.ridge=[1,2]", "kernel.columns=[FC-NTK,FC-NNGP]"], "FC-NNGP) do not depend on it"),
        (["baseline.adam_steps=[4,8]", "kernel.columns=[LINEAR]"], "here (LINEAR) do not depend on it: add"),
        (["baseline.bandwidths=[1,2]", "kernel.columns=[[LINEAR,SKLEARN-GP]]"], "do not depend on it: add"),
        (["baseline.gp_images=[4,8]", "kernel.columns=[SKLEARN-GP]"], "changes nothing that a"),
        (["solve.iterations=[4,8]", "solve.solver=[cholesky]"],
         "--over solve.iterations: it has no effect but where solve.solver is refined or cg or auto: set"),
        (["solve.ridge=[0,1]", "kernel.columns=[RBF]"], "--over solve.ridge: the columns here (RBF) do not"),
        (["kernel.depths=[1,2]", "kernel.columns=[[RBF,LINEAR]]"], "here (RBF, LINEAR) have no depths: add"),
        (["preprocess.statistics=[full,subset]", "dataset.preprocess=[none,center]"],
         "--over preprocess.statistics: the steps here (none; center) do not depend on it: add one that"),
        (["preprocess.zca_regularizer=[0.1,1]"], "the steps here (standardize) do not depend on it"),
        (["preprocess.contrast_floor=[1]", "dataset.preprocess=[[standardize,zca]]"], "(standardize, zca)"),
        (["preprocess.statistics=[[0,1]]", "dataset.preprocess=[standardize,none]"], "standardize as the"),
        (["network.rates=[0,1]"], "network.rates is 0: expected a list of distinct numbers above 0"),
        (["solve.solver=[cg,cholesky]", "solve.ridge=[1,loo]"], "solve.solver cg solves one ridge"),
        (["solve.ridge=["], "not valid YAML"),
        (["dataset.train=[100000]"], "train is 100000, but the data have 1437"),
        ([f"dataset.seed={MANY}", f"dataset.draws={MANY}"], "1,600 combinations (40 of dataset.seed x 40"),
        ([f"dataset.train={list(range(2, 1300))}"], "1,298 values are too many: use at most 1,000"),
        ([f"dataset.seed={MANY}", f"kernel.depths=[{list(range(1, 81))}]"], "make 3,200 cells"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_told_before_anything_is_computed(called, tmp_path, over, reason):
    given = [word for one in over for word in ("--over", one)]
    code, out, err = called("sweep", "swept.yaml", *given, "--output", "out")
    assert code == 2 and out == "" and len(err.splitlines()) == 1, err
    assert reason in err and not (tmp_path / "out").exists()


def test_what_set_says_too_is_refused(called):
    given = ("--set", "solve.ridge=1", "--over", "solve.ridge=[2]")
    assert "is given by --set, too" in called("sweep", "swept.yaml", *given)[2]


def test_a_sweep_keeps_other_solves_of_its_run(called, tmp_path):
    called("run", "swept.yaml", "--output", "out")
    before = (tmp_path / "out" / "solves" / "1" / "solve.json").read_bytes()
    code, out, _ = called(
        "sweep", "swept.yaml", "--over", "solve.ridge", "--output", "out", "--format", "json"
    )
    assert code == 0 and {name for row in json.loads(out) for name in row["runs"]} == {"out@2", "out@3"}
    assert (tmp_path / "out" / "solves" / "1" / "solve.json").read_bytes() == before
    assert config.load(tmp_path / "out" / "config.yaml").solve.ridge == (0.0, 0.1)
