"""Draws of columns that need training: each draw has its own images, labels, fingerprint and folder."""

import json
from pathlib import Path

import numpy as np
import pytest

from cntk_bench import columns, data, report
from cntk_bench.columns import Cell
from cntk_bench.columns.column import Done
from cntk_bench.config import config
from cntk_bench.errors import UserError
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute as computing
from cntk_bench.runs import images
from cntk_bench.runs import solve as solving
from cntk_bench.runs import train as training
from cntk_bench.runs.material import Material, jobs
from cntk_bench.runs.status import Follower

DRAWS, N, M = 3, 20, 24
CONFIG = f"""
name: drawn
dataset: {{name: digits, train: {N}, test: {M}, draws: {DRAWS}}}
kernel: {{columns: [CNN-V], depths: [3]}}
network: {{width: 4, rates: [0.1, 1.0], trials: 2, epochs: 3, epochs_after: 2, choose: train, curve: true}}
"""


def made(folder, *overrides):
    (folder / "drawn.yaml").write_text(CONFIG)
    run, settings = Run(folder / "run"), config.load(folder / "drawn.yaml", overrides)
    computing.compute(run, settings)
    return run, settings


class Piece:
    """Training that writes the sum of its images and the first of its labels to a file."""

    def __init__(self, folder, material):
        self.label, self.folder, self.material = "PIECE at depth 3", folder, material

    def done(self):
        return Done((self.folder / "sum").exists())

    def do(self, report, stopped):
        x, _ = self.material.images()
        (self.folder / "sum").write_text(json.dumps([float(x.sum()), int(self.material.y_train[0])]))


class Pieces:
    """A column as another package might have it: it does nothing itself to tell draws apart."""

    name = "PIECE"

    def needs(self, depth):
        return ()

    def require_training(self, section):
        pass

    def jobs(self, depth, material):
        return [Piece(material.folder(self.name, depth), material)]

    def fill(self, depth, given):
        total, label = json.loads((given.folder(self.name, depth) / "sum").read_text())
        assert label == given.y_train[0]
        predicted = np.full((2, M), label)
        return Cell(predicted, {"total": total, "print": given.fingerprint()}, repeat=(0, 1))


def test_a_draw_is_to_a_column_as_a_run_of_its_own(tmp_path, monkeypatch):
    find, piece = columns.find, Pieces()
    monkeypatch.setattr(columns, "find", lambda name: piece if name == "PIECE" else find(name))
    monkeypatch.setattr(columns, "trained", lambda name: piece if name == "PIECE" else None)
    run, settings = made(tmp_path, "kernel.columns=[PIECE]")
    with pytest.raises(UserError, match="PIECE at depth 3 is not trained .* of 3 pieces are missing"):
        solving.solve(run, settings)
    (cell,) = Follower(run).look().trained
    assert (cell.done, cell.count) == (0, DRAWS)
    assert training.train(run, settings) == DRAWS
    (cell,) = Follower(run).look().trained
    assert (cell.done, cell.count) == (DRAWS, DRAWS)
    solved = solving.solve(run, settings)
    (cell,) = solved["solutions"]
    whole = data.load("digits", train=DRAWS * N, test=M)
    of_draws = [(whole.x_train[d * N : d * N + N], whole.y_train[d * N]) for d in range(DRAWS)]
    assert [one["total"] for one in cell["draws"]] == pytest.approx([float(x.sum()) for x, _ in of_draws])
    assert cell["accuracies"] == [100 * float((whole.y_test == label).mean()) for _, label in of_draws]
    assert len({one["print"] for one in cell["draws"]}) == DRAWS
    kept = np.load(run.solutions / "PIECE-3.npz")
    np.testing.assert_array_equal(kept["draw"], [1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(kept["predicted"], np.repeat([[y] * M for _, y in of_draws], 2, 0))
    fingerprint = images.image_facts(data.load("digits", train=N, test=M)).fingerprint  # as if it were alone
    assert cell["draws"][0]["print"] == fingerprint == solved["data"]["images_of_draws"][0]
    # The first draw equals a run without draws, so there is nothing to train.
    assert training.train(run, run.config(("dataset.draws=1",))) == 0


def test_labels_of_pieces_say_which_draw_and_folders_differ(tmp_path):
    run, settings = made(tmp_path)
    material = Material(run, settings, record.computed(record.load(run.record)))
    ((_, _, some),) = jobs(settings, material)
    assert len({job.label for job in some}) == len({job.folder for job in some}) == len(some) == 4 * DRAWS
    assert some[-1].label.endswith("trial 1, draw 3")
    old = {k: v for k, v in material.facts.items() if k != "images_of_draws"}
    ((_, _, same),) = jobs(settings, Material(run, settings, old))  # the draws are recognised by the images
    assert [job.folder for job in same] == [job.folder for job in some]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("torch")
    run, settings = made(tmp_path_factory.mktemp("trained"))
    assert training.train(run, settings) == 4 * DRAWS
    return run, settings, solving.solve(run, settings)


class Alone:
    """What a network is trained from: some images, without any run."""

    classes = 10

    def __init__(self, settings, x, y, z, place):
        self.settings, self.x, self.y_train, self.z, self.place = settings, x, y, z, place

    def section(self, name):
        return self.settings.section(name)

    def images(self):
        return self.x, self.z

    def fingerprint(self):
        return "these"

    def folder(self, name, depth):
        return Path(self.place)


def test_networks_of_a_draw_are_those_of_its_images_alone(trained, tmp_path):
    run, settings, solved = trained
    (cell,) = solved["solutions"]
    whole, kept = data.load("digits", train=DRAWS * N, test=M), np.load(run.solutions / "CNN-V-3.npz")
    some = slice(N, 2 * N)
    alone = Alone(settings, whole.x_train[some], whole.y_train[some], whole.x_test, tmp_path)
    column, of_rate = columns.find("CNN-V"), {}
    for job in column.jobs(3, alone):
        job.folder.mkdir(parents=True)
        job.do(lambda words: None, lambda: False)
        of_rate.setdefault(job.recipe.rate, []).append(job.result().predicted)
    shown = np.concatenate(of_rate[cell["draws"][1]["rate"]])
    np.testing.assert_array_equal(kept["predicted"][kept["draw"] == 2], shown)
    right = [100 * float((np.concatenate(p) == whole.y_test).mean()) for p in of_rate.values()]
    assert [one["accuracy"] for one in cell["draws"][1]["candidates"]] == pytest.approx(right)
    assert cell["accuracies"][1] == pytest.approx(100 * float((shown == whole.y_test).mean()))
    assert cell["accuracy"] == pytest.approx(np.mean(cell["accuracies"])) and len(cell["accuracies"]) == DRAWS
    assert cell["spread"] == pytest.approx(np.std(cell["accuracies"], ddof=1))


def test_the_table_says_how_rates_were_chosen_and_curves_of_what_they_are(trained):
    run, _, solved = trained
    text = report.table(solved)
    assert "draws (repeats), their trials and over 2 epochs" in text
    assert "rate: of 2 learning rates" in text and "; each draw has its own." in text
    found = sorted(path.name for path in run.solutions.glob("*curve*"))
    assert len(found) == 4 * DRAWS and "CNN-V-3-curve-rate-0.1-trial-0-draw-2.json" in found
    curve = json.loads((run.solutions / "CNN-V-3-curve-rate-0.1-trial-0-draw-2.json").read_text())
    assert curve["label"].endswith("draw 2") and "rate 0.1, trial 0" in curve["label"]


def test_a_draw_whose_networks_all_fail(trained, tmp_path):
    pytest.importorskip("torch")
    run, settings = made(tmp_path, "network.rates=[1.0e+14]", "network.trials=1", "network.curve=false")
    training.train(run, settings)
    solved = solving.solve(run, settings)
    (cell,) = solved["solutions"]
    assert cell["accuracy"] is None and cell["accuracies"] == [] and not cell["trusted"]
    assert cell["doubt"].startswith("draw 1 of 3: there is no accuracy, for every network failed")
    text = report.table(solved)
    assert "No accuracy: CNN-V at depth 3: draw 1 of 3" in text
    assert "rate 1e+14, trial 0, draw 3 (step" in text
