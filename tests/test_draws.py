"""Repeated draws of the training images: only what is needed is computed, and each draw is solved alone."""

import shutil

import numpy as np
import pytest

from cntk_bench import Readout, columns, data, gram, open_run, report
from cntk_bench.cli import program
from cntk_bench.columns import Cell
from cntk_bench.config import config
from cntk_bench.data import checks
from cntk_bench.errors import UserError
from cntk_bench.grams import store
from cntk_bench.records.directory import Run
from cntk_bench.regression import prediction, ridge
from cntk_bench.runs import compute as computing
from cntk_bench.runs import draws, images
from cntk_bench.runs import solve as solving
from cntk_bench.runs import verify as verifying
from cntk_bench.runs.status import Follower

DRAWS, N, M = 3, 20, 24
CONFIG = f"""
name: drawn
dataset: {{name: digits, train: {N}, test: {M}, draws: {DRAWS}}}
kernel: {{columns: [CNTK-V, CNTK-GAP], depths: [3]}}
compute: {{tile: 10, backend: cpu}}
"""


def computed(folder, *overrides, run="run"):
    (folder / "drawn.yaml").write_text(CONFIG)
    run, tasks = Run(folder / run), []
    settings = config.load(folder / "drawn.yaml", overrides)
    computing.compute(run, settings, lambda plan, todo: tasks.append)
    return run, tasks


def accuracies(solved):
    return {s["column"]: s.get("accuracies", [s["accuracy"]]) for s in solved["solutions"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    run, tasks = computed(folder)
    return run.path, tasks, solving.solve(run, run.config())


@pytest.fixture
def run(finished, tmp_path):
    return Run(shutil.copytree(finished[0], tmp_path / "run"))


def test_each_draw_is_a_run_of_its_own_bit_for_bit(finished):
    """A draw's images, computed and solved by other functions, give the same predictions and coefficients."""
    _, _, solved = finished
    images = data.load("digits", train=DRAWS * N, test=M)
    for column, readout in (("CNTK-V", Readout("ntk", "v", 3)), ("CNTK-GAP", Readout("ntk", "gap", 3))):
        kept = np.load(finished[0] / "solutions" / f"{column}-3.npz")
        expected = []
        for draw in range(DRAWS):
            some = slice(draw * N, (draw + 1) * N)
            x, y = images.x_train[some], images.y_train[some]
            # Both at once, as bits may depend on what else is computed.
            both = [Readout("ntk", "v", 3), Readout("ntk", "gap", 3)]
            place = both.index(readout)
            train = gram(x, readouts=both)[place].astype(np.float64)
            test = gram(images.x_test, x, readouts=both)[place].astype(np.float64)
            solution = ridge.solve(train, y, classes=10)
            classes = prediction.predict(solution.alpha, [test]).classes
            np.testing.assert_array_equal(kept["predicted"][draw], classes)
            np.testing.assert_array_equal(kept["alpha"][draw], solution.alpha)
            expected.append(100 * float((classes == images.y_test).mean()))
        assert accuracies(solved)[column] == expected
        (cell,) = [s for s in solved["solutions"] if s["column"] == column]
        assert cell["accuracy"] == pytest.approx(np.mean(expected))
        assert cell["spread"] == pytest.approx(np.std(expected, ddof=1))
        assert [one["accuracy"] for one in cell["draws"]] == expected


def test_only_pairs_of_one_draw_are_computed(finished):
    """3 draws of 20 images in tiles of 10: 3 tiles within each draw, and 3 x 6 tiles of test images."""
    names = {str(task.tile) for task in finished[1]}
    inside = {f"train-{2 * d + i}-{2 * d + j}" for d in range(3) for i, j in ((0, 0), (1, 0), (1, 1))}
    assert names == inside | {f"test-{i}-{j}" for i in range(3) for j in range(6)}
    grams = store.open(finished[0] / "gram.zarr")
    assert len(grams.progress.missing()) == 12  # tiles of pairs across draws
    found = Follower(Run(finished[0])).look()
    assert (found.counts.tiles, found.counts.all_tiles) == (27, 27) and found.finished
    assert found.counts.pairs == found.counts.all_pairs == 3 * N * (N + 1) // 2 + 3 * N * M
    checked = verifying.verify(Run(finished[0]), Run(finished[0]).config(), 4, False)
    assert checked.ok and checked.missing == 0 and checked.checked == 27


def test_the_first_draw_is_the_run_without_draws(finished, tmp_path):
    alone, _ = computed(tmp_path, "dataset.draws=1")
    solved = solving.solve(alone, alone.config())
    assert {c: a[0] for c, a in accuracies(finished[2]).items()} == {
        c: a[0] for c, a in accuracies(solved).items()
    }
    assert "draws" not in solved["data"] and "draws" not in solved["solutions"][0]


def test_more_draws_compute_only_what_is_new(run, tmp_path, finished):
    _, tasks = computed(tmp_path, "dataset.draws=4")
    assert {str(task.tile) for task in tasks} == {
        "train-6-6", "train-7-6", "train-7-7", *(f"test-{i}-{j}" for i in range(3) for j in (6, 7)),
    }  # fmt: skip
    more = solving.solve(run, run.config())
    for column, found in accuracies(more).items():
        assert found[:3] == accuracies(finished[2])[column] and len(found) == 4
    fewer = solving.solve(run, run.config(("dataset.draws=3",)))
    assert accuracies(fewer) == accuracies(finished[2])
    assert fewer["data"]["draws"] == 3 and fewer["data"]["n_train"] == N
    assert computed(tmp_path)[1] == []  # the old config finds everything there


def test_one_large_training_set_of_what_were_draws(run, tmp_path):
    with pytest.raises(UserError, match="12 of 39 tiles .* are not computed yet for ntk-v-3-all: run `comp"):
        solving.solve(run, run.config(("dataset.draws=1", f"dataset.train={DRAWS * N}")))
    _, tasks = computed(tmp_path, "dataset.draws=1", f"dataset.train={DRAWS * N}")
    assert len(tasks) == 12
    assert solving.solve(run, run.config())["data"]["n_train"] == DRAWS * N
    halves = solving.solve(run, run.config(("dataset.draws=6", "dataset.train=10")))
    assert all(len(found) == 6 for found in accuracies(halves).values())


def test_draws_that_are_no_whole_tiles(finished, tmp_path):
    """Tiles of 8 that two draws share are computed whole: more pairs, but the same numbers."""
    run, tasks = computed(tmp_path, "compute.tile=8")
    assert accuracies(solving.solve(run, run.config())) == accuracies(finished[2])
    plan = store.open(run.gram).plan
    needed = DRAWS * N * (N + 1) // 2 + DRAWS * N * M
    assert needed < sum(task.tile.pairs(plan) for task in tasks) < plan.pairs
    for draw in (1, 2, 3):
        one, other = (open_run(r).gram("CNTK-GAP", 3, draw) for r in (finished[0], run.path))
        for name, values in one.arrays().items():
            np.testing.assert_array_equal(values, other.arrays()[name])


def test_a_tile_is_chosen_that_wastes_nothing(tmp_path):
    run, tasks = computed(tmp_path, "compute.tile=auto", "dataset.train=32")
    plan = store.open(run.gram).plan
    assert 32 % plan.tile == 0
    assert sum(task.tile.pairs(plan) for task in tasks) == DRAWS * 32 * 33 // 2 + DRAWS * 32 * M


def test_matrices_of_a_draw(finished, tmp_path):
    opened = open_run(finished[0])
    images = data.load("digits", train=DRAWS * N, test=M)
    for draw in (1, 3):
        found, some = opened.gram("CNTK-V", 3, draw), slice((draw - 1) * N, draw * N)
        assert found.train.shape == (N, N) and found.test.shape == (M, N)
        np.testing.assert_array_equal(found.train, found.train.T)
        np.testing.assert_array_equal(found.y_train, images.y_train[some])
        np.testing.assert_array_equal(found.train_index, images.train_index[some])
    for wrong in (0, 4, 1.0, "1"):
        with pytest.raises(UserError, match=f"draw {wrong}: .* has draws 1 to 3"):
            opened.gram("CNTK-V", 3, wrong)
    for column in ("CNTK-V", "CNTK-GAP", "CNN-V"):
        for wrong in (None, 0, 3.0, "3", True):
            with pytest.raises(UserError, match=f"depth {wrong!r} is not possible for column {column}: give"):
                opened.gram(column, wrong)
    with pytest.raises(UserError, match="column RBF has no Gram matrix"):
        opened.gram("RBF", None)
    for wrong in (1, N + 1, 10.5, "10"):
        with pytest.raises(UserError, match=f"^{wrong} training images: use 2 to {N}, which"):
            opened.first(wrong)
    np.testing.assert_array_equal(
        opened.first(10).gram("CNTK-V", 3).train, opened.gram("CNTK-V", 3).train[:10, :10]
    )
    target = str(tmp_path / "k.npz")
    arguments = [
        "export",
        str(finished[0]),
        "--column",
        "CNTK-V",
        "--depth",
        "3",
        "--draw",
        "3",
        "--to",
        target,
    ]
    assert not program.call(arguments)
    np.testing.assert_array_equal(np.load(target)["train"], opened.gram("CNTK-V", 3, 3).train)


def test_the_table_shows_mean_deviation_and_number(finished):
    text = report.table(finished[2])
    assert f"3 draws of {N} training and {M} test images" in text and "ridge 0" in text
    assert "spread" in text and "repeats" in text
    (row, *_) = report.rows(finished[2])
    assert row["repeats"] == DRAWS and row["n_train"] == N and row["published"] is None


def test_each_draw_chooses_its_own_ridge(run):
    solved = solving.solve(run, run.config(("solve.ridge=loo",)))
    for cell in solved["solutions"]:
        ridges = [one["ridge"] for one in cell["draws"]]
        assert len(ridges) == DRAWS
        assert cell.get("ridge") == (ridges[0] if len(set(ridges)) == 1 else None)
    assert "best of " in report.table(solved)


class Flat:
    """A column without a Gram matrix: it predicts its first image's label, and doubts a "dim" draw."""

    name, has_depth = "FLAT", False

    def needs(self, depth):
        return ()

    def fill(self, depth, given):
        x, z = given.images()
        assert len(x) == len(given.y_train) == N
        doubt = "it is dim" if np.isclose(x[0].sum(), self.dim) else None
        facts = {"doubt": doubt, "length": len(x), "first": float(x[0].sum())}
        return Cell(np.full(len(z), given.y_train[0]), facts, arrays={"mean": x.mean(0)})


def test_columns_without_a_gram_matrix(tmp_path, monkeypatch):
    images = data.load("digits", train=DRAWS * N, test=M)
    flat, find = Flat(), columns.find
    flat.dim = images.x_train[N].sum()  # the first image of the second draw is "dim"
    monkeypatch.setattr(columns, "find", lambda name: flat if name == "FLAT" else find(name))
    run, _ = computed(tmp_path, "kernel.columns=[FLAT]")
    (cell,) = solving.solve(run, run.config())["solutions"]
    labels = images.y_train[::N]
    assert cell["accuracies"] == [100 * float((images.y_test == label).mean()) for label in labels]
    assert not cell["trusted"] and cell["doubt"] == "draw 2 of 3: it is dim"
    assert cell["length"] == N and "first" not in cell
    assert [one["first"] for one in cell["draws"]] == pytest.approx(images.x_train[::N].sum((1, 2, 3)))
    assert np.load(run.solutions / "FLAT.npz")["mean"].shape == (DRAWS, 1, 8, 8)


def test_each_draw_is_balanced_as_where_it_would_be_drawn_by_classes():
    loaded = data.load("digits", train=40, draws=10)
    for draw in loaded.y_train.reshape(10, 40):
        assert np.bincount(draw, minlength=10).tolist() == [4] * 10
    for draw in data.load("digits", train=13, draws=20).y_train.reshape(20, 13):
        counts = np.bincount(draw, minlength=10)
        assert counts.max() - counts.min() <= 2
    index = loaded.train_index
    assert len(set(index.tolist())) == 400  # disjoint
    np.testing.assert_array_equal(index, data.load("digits", train=400).train_index)


def test_draws_at_random_do_not_look_at_the_classes():
    """Class counts vary as in sampling without replacement (hypergeometric)."""
    loaded = data.load("digits", train=100, draws=10, order="random")
    assert len(set(loaded.train_index.tolist())) == 1000
    counts = np.array([np.bincount(draw, minlength=10) for draw in loaded.y_train.reshape(10, 100)])
    share = np.bincount(data.load("digits").y_train) / 1437
    variance = 100 * share * (1 - share) * (1437 - 100) / (1437 - 1)
    # The mean is 100, as each of 100 counts contributes 1.
    assert 60 < ((counts - 100 * share) ** 2 / variance).sum() < 130
    assert not (counts.max(1) - counts.min(1) <= 1).any()
    other = data.load("digits", train=100, draws=10, order="random", seed=1)
    assert not np.array_equal(loaded.train_index, other.train_index)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"order": "by chance"}, "order by chance is unknown: use balanced or random"),
        ({"draws": 3}, "draws is 3, but train is null: say how many images a draw has"),
        ({"draws": 0, "train": 5}, "draws is 0: use an integer of at least 1"),
        (
            {"draws": 3, "train": 500},
            "3 draws of 500 training images share none, and the data have 1,437: use at",
        ),
        ({"draws": 2, "train": 5, "statistics": "subset"}, "each draw would prepare the test images"),
        ({"draws": 2, "train": 10**6}, "train is 1000000, but the data have 1437"),
    ],
)
def test_draws_that_are_not_possible(asked, words):
    with pytest.raises(UserError, match=words) as error:
        data.load("digits", **asked)
    assert "\n" not in str(error.value)


def test_all_there_is_may_be_drawn():
    assert checks.drawn(100, 5, 500) == 500 and checks.drawn(None, 1, 7) == 7
    with pytest.raises(UserError, match="use at most 4 draws"):
        checks.drawn(100, 5, 499)


def test_merged_says_once_what_all_draws_say():
    base = {"accuracy": 50.0, "standard_error": 5.0, "undecided": 0.0, "trusted": True, "doubt": None}
    one = base | {"ridge": 0.1, "jitter": 0.0, "same": "x", "edge": None, "seconds": 1.0}
    other = base | {
        "accuracy": 60.0,
        "ridge": 0.2,
        "jitter": 1e-9,
        "same": "x",
        "edge": "largest",
        "seconds": 2.0,
    }
    found = draws.merged([one, other], 100)
    assert found["accuracy"] == 55 and found["spread"] == pytest.approx(50**0.5)
    assert found["standard_error"] == pytest.approx(100 * (0.55 * 0.45 / 100) ** 0.5)
    assert "ridge" not in found and found["same"] == "x" and found["jitter"] == 1e-9
    assert (found["edge"], found["seconds"], found["trusted"]) == ("largest", 3.0, True)
    assert found["draws"] == [one, other]


@pytest.mark.parametrize(
    ("train", "draws", "unseen"), [(4, 1, [6]), (20, 2, None), (12, 2, [0, 1]), (4, 2, [6, 6])]
)
def test_the_record_says_which_classes_have_no_training_image(tmp_path, train, draws, unseen):
    """A second draw of 12 begins with the rest of a round of all ten classes."""
    (tmp_path / "drawn.yaml").write_text(CONFIG)
    changed = f"dataset.train={train}", f"dataset.draws={draws}"
    settings = config.load(tmp_path / "drawn.yaml", changed)
    loaded = images.load(settings)
    facts = images.record_facts(settings, loaded, images.image_facts(loaded))
    assert facts.get("unseen_classes") == unseen and ("seen_test_images" in facts) == bool(unseen)
    for draw, share in enumerate(facts.get("seen_test_images", [])):
        there = set(loaded.y_train[draw * train : (draw + 1) * train])
        assert share == pytest.approx(100 * np.mean([label in there for label in loaded.y_test]))


def test_merged_keeps_every_note_and_both_edges():
    base = {"accuracy": 50.0, "standard_error": 5.0, "undecided": 0.0, "trusted": True, "doubt": None}
    every = [("a", "smallest"), (None, None), ("b", "largest"), ("a", "smallest")]
    each = [base | {"note": note, "edge": edge} for note, edge in every]
    found = draws.merged(each, 100)
    assert found["note"] == "draws 1 and 4: a; draw 3: b" and found["edge"] == ["largest", "smallest"]
    data = {"name": "digits", "n_train": 5, "n_test": 100, "preprocess": "none", "draws": 4}
    past = {"name": "a", "data": data, "solutions": [{"column": "CNTK-V", "depth": 3, **found}]}
    text = report.table(past)
    assert "CNTK-V at depth 3: draws 1 and 4: a; draw 3: b.\n" in text
    assert "The largest ridge tried is the best for CNTK-V at depth 3 (draw 3 of 4): add larger ones" in text
    assert "is the best for CNTK-V at depth 3 (draws 1 and 4 of 4): add smaller ones" in text
    same = draws.merged([base | {"note": "a", "edge": "largest"}] * 2, 100)
    assert (same["note"], same["edge"]) == ("a", "largest")
    past["solutions"] = [{"column": "CNTK-V", "depth": 3, **same}]
    assert "The largest ridge tried is the best for CNTK-V at depth 3: add" in report.table(past)
    odd = draws.merged([base | {"note": ["x"], "edge": 7}, base | {"note": None, "edge": None}], 100)
    assert "note" not in odd and "edge" not in odd


def test_a_table_says_that_images_were_taken_at_random(tmp_path):
    file, run = tmp_path / "chance.yaml", Run(tmp_path / "run")
    file.write_text(
        "name: chance\ndataset: {name: digits, train: 20, test: 10, order: random}\n"
        "kernel: {columns: [CNN-GP-V], depths: [2]}\n"
    )
    computing.compute(run, config.load(file))
    text = report.table(solving.solve(run, run.config()))
    assert "10 test images, taken at random, not by classes," in text
    with pytest.raises(UserError, match="its training images are others"):
        computing.compute(run, config.load(file, ("dataset.order=balanced",)))
