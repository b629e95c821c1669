"""One experiment from beginning to end: right numbers under right names, and what is recorded of them."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cntk_bench import Readout, columns, gram
from cntk_bench.columns import Cell
from cntk_bench.config import config
from cntk_bench.data import load
from cntk_bench.errors import UserError
from cntk_bench.grams import store
from cntk_bench.records import provenance, record
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute as computing
from cntk_bench.runs import solve as solving

CONFIG = """
name: small
dataset: {name: digits, train: 40, test: 30, seed: 3}
kernel: {columns: [CNTK-V, CNTK-GAP, CNN-GP-LAP1], depths: [3, 5]}
compute: {tile: 16, backend: cpu}
"""
READOUTS = {
    ("CNTK-V", 3): Readout("ntk", "v", 3),
    ("CNTK-V", 5): Readout("ntk", "v", 5),
    ("CNTK-GAP", 3): Readout("ntk", "gap", 3),
    ("CNTK-GAP", 5): Readout("ntk", "gap", 5),
    ("CNN-GP-LAP1", 3): Readout("nngp", "lap:1", 3),
    ("CNN-GP-LAP1", 5): Readout("nngp", "lap:1", 5),
}


def settings(tmp_path, *overrides):
    (tmp_path / "small.yaml").write_text(CONFIG)
    return config.load(tmp_path / "small.yaml", overrides)


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    computing.compute(Run(folder / "run"), settings(folder))
    return folder / "run"


@pytest.fixture
def run(computed, tmp_path):
    return Run(shutil.copytree(computed, tmp_path / "run"))


@pytest.fixture(scope="module")
def predictions():
    """Every cell's predicted classes, from the kernels and a few lines of NumPy."""
    images = load("digits", train=40, test=30, seed=3)
    K = gram(images.x_train, readouts=READOUTS.values(), backend="cpu").astype(np.float64)
    T = gram(images.x_test, images.x_train, readouts=READOUTS.values(), backend="cpu").astype(np.float64)
    Y = np.eye(10)[images.y_train] - 0.1
    scores = [t @ np.linalg.solve(k, Y) for k, t in zip(K, T, strict=True)]
    return {cell: score.argmax(1) for cell, score in zip(READOUTS, scores, strict=True)}, images


def cells(solved):
    return {(s["column"], s["depth"]): s["accuracy"] for s in solved["solutions"]}


def expected(predictions):
    predicted, images = predictions
    return {cell: pytest.approx(100 * np.mean(p == images.y_test)) for cell, p in predicted.items()}


def test_every_cell_is_that_of_its_name(run, predictions):
    solved = solving.solve(run, run.config())
    assert cells(solved) == expected(predictions)
    assert len(set(cells(solved).values())) > 2  # otherwise mixed-up names would not show
    for (column, depth), predicted in predictions[0].items():
        kept = np.load(run.solves / "1" / f"{column}-{depth}.npz")
        assert (kept["predicted"] == predicted).all() and (kept["y_test"] == predictions[1].y_test).all()


@pytest.mark.parametrize(
    "kernel",
    [
        "{columns: [CNN-GP-LAP1, CNTK-GAP, CNTK-V], depths: [5, 3]}",
        "{columns: [CNTK-GAP], depths: [5]}",
    ],
)
def test_columns_are_found_by_name_whatever_their_order(run, predictions, kernel):
    text = (run.path / "config.yaml").read_text()
    start = text.index("kernel:")
    changed = f"{text[:start]}kernel: {kernel}\n{text[text.index('compute:') :]}"
    (run.path / "config.yaml").write_text(changed)
    found = cells(solving.solve(run, run.config()))
    assert found == {cell: expected(predictions)[cell] for cell in found}
    assert len(found) == (6 if "LAP1" in kernel else 1)


def test_a_column_that_was_not_computed_is_refused(run):
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(text.replace("- CNTK-V\n", "- CNN-GP-V\n"))
    with pytest.raises(UserError, match="does not hold the readout nngp-v-3.*run `compute`"):
        solving.solve(run, run.config())
    assert not run.solutions.exists() and "solve" not in record.load(run.record)


@pytest.mark.parametrize(
    "was, edited, problem",
    [
        ("seed: 3", "seed: 5", "holds another computation.*seed"),
        ("preprocess: standardize", "preprocess: none", "holds another computation.*preprocess"),
        ("test: 30", "test: 31", "has 40 training and 30 test images, not 40 and 31"),
    ],
)
def test_an_edited_config_of_other_images_is_refused(run, was, edited, problem):
    text = (run.path / "config.yaml").read_text()
    assert was in text
    (run.path / "config.yaml").write_text(text.replace(was, edited))
    with pytest.raises(UserError, match=problem):
        solving.solve(run, run.config())
    assert "solve" not in record.load(run.record)


def test_an_edited_config_of_fewer_images_takes_those(run):
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(text.replace("train: 40", "train: 20"))
    edited = solving.solve(run, run.config())
    assert edited["data"]["n_train"] == 20
    (run.path / "config.yaml").write_text(text)
    asked = solving.solve(run, run.config(("dataset.train=20",)))
    assert cells(asked) == cells(edited) and asked["data"] == edited["data"]
    assert cells(solving.solve(run, run.config())) != cells(edited)


def test_a_record_of_other_images_is_refused(run):
    past = record.load(run.record)
    past["computed"]["images"] = "0" * 64
    record.save(past, run.record)
    with pytest.raises(UserError, match="its images are not those that the run.s record"):
        solving.solve(run, run.config())


def test_every_accuracy_has_its_standard_error(run):
    for solution in solving.solve(run, run.config())["solutions"]:
        share = solution["accuracy"] / 100
        assert solution["standard_error"] == pytest.approx(100 * np.sqrt(share * (1 - share) / 30))


def test_the_images_used_are_kept_by_their_place(run, predictions):
    data = record.load(run.record)["data"]
    train, test = ([int(i) for i in data[name].split()] for name in ("train_index", "test_index"))
    whole = load("digits")
    order = np.argsort(whole.train_index), np.argsort(whole.test_index)
    x_train = whole.x_train[order[0]][train]
    assert (x_train == predictions[1].x_train).all()
    assert (whole.y_test[order[1]][test] == predictions[1].y_test).all()
    assert [list(index) for index in store.open(run.gram).images().indices] == [train, test]


def test_a_second_solve_leaves_the_first(run):
    first = solving.solve(run, run.config(("solve.ridge=0.5",)))
    second = solving.solve(run, run.config(("solve.ridge=0.25",)))
    assert (first["solve"], second["solve"]) == (1, 2)
    assert [s["settings"]["solve"]["ridge"] for s in solving.solves(run)] == [0.5, 0.25]
    assert solving.solved(run, 1)["solutions"] == first["solutions"]
    assert solving.solved(run)["solutions"] == second["solutions"]
    assert run.config().solve.ridge == 0.0


def test_solves_at_the_same_time_are_all_kept_and_never_mixed(run):
    ridges = [0.5, 0.25, 0.125, 0.0625]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda r: solving.solve(run, run.config((f"solve.ridge={r}",))), ridges))
    assert sorted(s["settings"]["solve"]["ridge"] for s in solving.solves(run)) == sorted(ridges)
    for solve in solving.solves(run):
        asked = solve["settings"]["solve"]["ridge"]
        for s in solve["solutions"]:
            file = run.solves / str(solve["solve"]) / f"{s['column']}-{s['depth']}.npz"
            assert s["ridge"] == asked and np.load(file)["ridge"] == asked + s["jitter"]
    last = record.load(run.record)
    for s in last["solutions"]:
        assert np.load(run.solutions / f"{s['column']}-{s['depth']}.npz")["ridge"] == s["ridge"] + s["jitter"]


def test_each_stage_is_stamped_by_what_ran_it(run, monkeypatch):
    monkeypatch.setattr(provenance, "commit", lambda: "f" * 40)
    monkeypatch.setattr(provenance, "__version__", "9.9")
    solved = solving.solve(run, run.config())
    compute, solve = solved["stages"]
    assert (compute["stage"], solve["stage"]) == ("compute", "solve")
    assert (solve["commit"], solve["tool"]) == ("f" * 40, "9.9") != (compute["commit"], compute["tool"])
    assert compute["pairs"] == 40 * 41 // 2 + 40 * 30 and compute["pairs_per_second"] > 0
    assert set(compute["settings"]) == {"dataset", "preprocess", "kernel", "compute"}
    used = {"dataset", "preprocess", "kernel", "solve", *columns.section_names()}
    assert set(solve["settings"]) == used and "config" not in solved
    kept = json.loads((run.solves / "1" / "solve.json").read_text())
    assert (kept["commit"], kept["data"]) == ("f" * 40, solved["data"])


def test_a_call_that_computes_nothing_adds_no_stage(run, tmp_path):
    before = record.load(run.record)
    computing.compute(run, settings(tmp_path))
    assert record.load(run.record) == before


def test_an_interrupted_call_is_stamped_with_what_it_did(tmp_path):
    run, seen = Run(tmp_path / "run"), []

    def begin(plan, tasks):
        def stop(task):
            seen.append(task)
            if len(seen) == 2:
                raise KeyboardInterrupt

        return stop

    with pytest.raises(KeyboardInterrupt):
        computing.compute(run, settings(tmp_path), begin)
    computing.compute(run, settings(tmp_path))
    first, second = record.load(run.record)["stages"]
    assert first["pairs"] > 0 < second["pairs"] and first["seconds"] > 0
    assert first["pairs"] + second["pairs"] == 40 * 41 // 2 + 40 * 30


def test_another_gram_store_in_the_run_has_no_solutions_of_the_old_one(run, tmp_path):
    solving.solve(run, run.config())
    shutil.rmtree(run.gram)
    computing.compute(run, settings(tmp_path, "dataset.seed=4"))
    now = record.load(run.record)
    assert now["solutions"] == [] and [s["stage"] for s in now["stages"]] == ["compute", "solve", "compute"]
    assert solving.solved(run, 1)["data"]["fingerprint"] != now["data"]["fingerprint"]


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ("dataset.train=9999", "use at most 1437"),
        ("compute.backend=abacus", "use one of auto, cuda, cpu"),
        ("dataset.train=1", "a regression needs at least 2 images"),
    ],
)
def test_refused_settings_leave_no_directory(tmp_path, wrong, remedy):
    with pytest.raises(UserError, match=remedy):
        computing.compute(Run(tmp_path / "deep" / "run"), settings(tmp_path, wrong))
    assert not (tmp_path / "deep").exists()


def test_a_part_of_a_run_with_one_image_is_refused_by_the_name_of_its_key(run, tmp_path):
    for more in ((), ("dataset.draws=2",)):
        with pytest.raises(UserError, match="^dataset.train is 1: a regression needs at least 2 images$"):
            solving.solve(run, settings(tmp_path, "dataset.train=1", *more))
    assert not run.solves.exists()


def test_a_changed_docstring_changes_no_identity(run, tmp_path, monkeypatch):
    """The store is bound to a numerics version, not to the text of the source."""
    from cntk_bench.backends import cpu

    monkeypatch.setattr(cpu, "source", lambda: "0" * 64)
    computing.compute(run, settings(tmp_path))
    now = cpu.NUMERICS
    monkeypatch.setattr(cpu, "NUMERICS", now + 1)
    with pytest.raises(UserError, match=f"numerics is {now} there, {now + 1} here"):
        computing.compute(run, settings(tmp_path))
    assert solving.solve(run, run.config())["solutions"]


def test_a_choice_of_classes_is_recorded(tmp_path):
    """Accuracies on two classes cannot be compared with those on ten, so the choice is recorded."""
    whole = load("digits")
    run = Run(tmp_path / "run")
    computing.compute(run, settings(tmp_path, "dataset.classes=[7, 3]", "kernel.columns=[CNTK-V]"))
    found = record.load(run.record)["data"]
    assert (found["classes_used"], found["classes"], found["name"]) == ([7, 3], 2, "digits")
    order = np.argsort(whole.train_index)
    index = [int(i) for i in found["train_index"].split()]
    assert set(whole.y_train[order][index]) == {3, 7}
    solutions = solving.solve(run, run.config())["solutions"]
    assert all(solution["accuracy"] > 80 for solution in solutions)  # 30 training images, half of each class


def test_all_classes_are_no_choice(run):
    assert "classes_used" not in record.load(run.record)["data"]


# Columns that are not kernels


class Guest:
    """A column that uses images, not Gram matrices."""

    name = "GUEST"

    def __init__(self, fill):
        self.filled, self._fill = 0, fill

    def needs(self, depth):
        return ()

    def fill(self, depth, given):
        self.filled += 1
        return self._fill(given)


def nearest(given):
    x, z = given.images()
    return Cell(given.y_train[((z[:, None] - x) ** 2).sum((2, 3, 4)).argmin(1)], {"neighbours": np.arange(1)})


@pytest.fixture
def guest(monkeypatch):
    def put(fill):
        one = Guest(fill)
        family = (lambda name: one if name == one.name else None, (one.name,))
        monkeypatch.setattr(columns, "FAMILIES", (*columns.FAMILIES, family))
        return one

    return put


ONLY = "kernel.columns=[GUEST]"


def test_a_column_that_needs_no_matrix_needs_no_memory_for_one(tmp_path, guest):
    guest(nearest)
    asked = settings(tmp_path, ONLY, "kernel.depths=[3]", "solve.memory=1.0e-9")
    run = Run(tmp_path / "run")
    computing.compute(run, asked)
    solved = solving.solve(run, asked)
    assert solved["solutions"][0]["neighbours"] == [0] and "device" not in solved["stages"][-1]
    with pytest.raises(UserError, match="solving 40 training images from stored tiles needs"):
        wide = settings(tmp_path, "solve.memory=1.0e-9")
        computing.compute(run, wide)
        solving.solve(run, wide)


@pytest.mark.parametrize("chosen", [ONLY, "kernel.columns=[CNTK-V, GUEST]"])
def test_images_that_are_no_longer_those_of_the_run_are_refused(tmp_path, guest, chosen):
    guest(nearest)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4, 4)), np.arange(30) % 3
    arrays = {"x_train": x[:20], "y_train": y[:20], "x_test": x[20:], "y_test": y[20:]}
    np.savez(tmp_path / "data.npz", **arrays)
    file = f"dataset={{name: npz, path: {tmp_path / 'data.npz'}}}"
    asked = settings(tmp_path, file, chosen, "kernel.depths=[3]")
    run = Run(tmp_path / "run")
    computing.compute(run, asked)
    solving.solve(run, asked)
    np.savez(tmp_path / "data.npz", **arrays | {"x_train": x[:20][::-1]})
    with pytest.raises(UserError, match="images of npz are not those that the run's record.json tells"):
        solving.solve(run, asked)


@pytest.mark.parametrize(
    "cell, words",
    [
        (lambda y: Cell(y[:, None], {}), r"predictions of shape \(30, 1\) for 30"),
        (lambda y: Cell(y[:1], {}), r"predictions of shape \(1,\) for 30"),
        (lambda y: Cell(y.astype(float), {}), "type float64: integers are needed"),
        (lambda y: Cell(y[None, None], {}), "integers are needed"),
        (lambda y: Cell(y - 1, {}), "predictions outside 0 .. 9"),
        (lambda y: Cell(y + 10, {}), "predictions outside 0 .. 9"),
        (lambda y: Cell(np.array([y, y]), {}, repeat=(1,)), "repeat"),
        (lambda y: Cell(y, {"accuracy": 99.9}), "a fact named accuracy, which whoever scores gives"),
        (lambda y: Cell(y, {"column": "CNTK-V"}), "a fact named column"),
    ],
)
def test_what_is_no_cell_is_refused(tmp_path, guest, cell, words):
    guest(lambda given: cell(np.arange(30) % 10))
    run, asked = Run(tmp_path / "run"), settings(tmp_path, ONLY, "kernel.depths=[3]")
    computing.compute(run, asked)
    with pytest.raises(UserError, match=words) as error:
        solving.solve(run, asked)
    assert str(error.value).startswith("column GUEST gives ") and "at depth 3" in str(error.value)


def test_cells_that_were_filled_before_an_interruption_are_kept(run, guest, tmp_path):
    def stop(given):
        raise KeyboardInterrupt

    guest(stop)
    asked = settings(tmp_path, "kernel.columns=[CNTK-V, GUEST]", "kernel.depths=[3]")
    with pytest.raises(KeyboardInterrupt):
        solving.solve(run, asked)
    (left,) = run.solves.iterdir()
    kept = (left / "CNTK-V-3.npz").stat()
    columns.FAMILIES[-1][0]("GUEST")._fill = nearest
    solved = solving.solve(run, asked)
    assert [s["column"] for s in solved["solutions"]] == ["CNTK-V", "GUEST"]
    assert (run.solves / "1" / "CNTK-V-3.npz").stat().st_mtime_ns == kept.st_mtime_ns
    again = solving.solve(run, asked)
    assert again["solve"] == 2 and cells(again) == cells(solved)
    assert (
        run.solves / "2" / "CNTK-V-3.npz"
    ).stat().st_ino != kept.st_ino  # a finished solve is not continued
