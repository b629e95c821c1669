"""Runs on whitened images: they grow, continue elsewhere, and say what differs and what was looked at."""

import numpy as np
import pytest

from cntk_bench import data, report
from cntk_bench.config import config
from cntk_bench.data import whitening
from cntk_bench.errors import UserError
from cntk_bench.grams import matrix, store
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute as computing
from cntk_bench.runs import solve as solving
from cntk_bench.runs import verify as verifying

CONFIG = """
name: white
dataset: {name: digits, train: 32, test: 20, preprocess: [contrast, zca]}
kernel: {columns: [CNTK-V], depths: [3]}
compute: {tile: 16, backend: cpu}
"""


def computed(folder, *overrides, run="run", source=None):
    (folder / "white.yaml").write_text(CONFIG)
    run, tasks = Run(folder / run), []
    settings = config.load(folder / "white.yaml", overrides)
    computing.compute(run, settings, lambda plan, todo: tasks.append, source)
    return run, tasks


def another_machine(monkeypatch):
    """Simulate another machine: eigenvectors get other last bits."""
    exact, noise = whitening.eigh, np.random.default_rng(0)

    def perturbed(covariance, **more):
        values, vectors = exact(covariance, **more)
        return values, vectors + 1e-15 * noise.standard_normal(vectors.shape)

    monkeypatch.setattr(whitening, "eigh", perturbed)


def test_a_whitened_run_goes_on_and_grows_on_another_machine(tmp_path, monkeypatch):
    run, tasks = computed(tmp_path)
    solved = solving.solve(run, run.config())
    before = matrix.matrix(store.open(run.gram), "train", "ntk-v-3-all", np.float32)
    another_machine(monkeypatch)
    assert len(tasks) == 7 and computed(tmp_path)[1] == []
    assert record.load(run.record)["solutions"] == solved["solutions"]  # the images count as the same
    _, more = computed(tmp_path, "dataset.train=48")
    assert {str(task.tile) for task in more} == {
        "train-2-0",
        "train-2-1",
        "train-2-2",
        "test-0-2",
        "test-1-2",
    }
    after = store.open(run.gram)
    np.testing.assert_array_equal(matrix.matrix(after, "train", "ntk-v-3-all", np.float32)[:32, :32], before)
    assert verifying.verify(
        run, run.config(), 10**5, False
    ).ok  # every entry is checked, with images prepared here
    other, _ = computed(tmp_path, run="other", source=run)
    assert store.open(other.gram).progress.counts().taken == 7


def test_what_differs_is_told_in_words(tmp_path):
    run, _ = computed(tmp_path)
    for wrong, words in {
        "preprocess.zca_regularizer=0.2": "preprocess.zca regularizer is 0.1 there, 0.2 here",
        "preprocess.contrast_scale=norm": "preprocess.contrast scale is deviation there, norm here",
        "dataset.preprocess=[zca, contrast]": "preprocess is contrast, zca there, zca, contrast here",
        "dataset.preprocess=standardize": "preprocess is contrast, zca there, standardize here",
        "preprocess.statistics=subset": "preprocess.statistics is full there, subset here",
    }.items():
        with pytest.raises(UserError, match=words):
            computed(tmp_path, wrong)
    computed(tmp_path, "preprocess.statistics=subset", run="subset")
    with pytest.raises(
        UserError,
        match="what prepares every image is statistics of 32 training images there, statistics of 48 "
        "training images here.: use another output directory",
    ):
        computed(tmp_path, "preprocess.statistics=subset", "dataset.train=48", run="subset")


def test_the_table_says_that_more_images_were_looked_at_than_used(tmp_path):
    whole = len(data.load("digits").x_train)
    said = f"zca was fitted on {whole:,} unlabelled training images"
    run, _ = computed(tmp_path)
    solved = solving.solve(run, run.config())
    facts = solved["data"]
    assert (facts["preprocess"], facts["zca_regularizer"], facts["fitted_on"]) == (
        "contrast, zca",
        0.1,
        whole,
    )
    table = report.table(solved)
    assert "preprocess contrast, zca" in table and said in table
    run, _ = computed(tmp_path, "preprocess.statistics=subset", run="subset")
    assert "zca was fitted" not in report.table(solving.solve(run, run.config()))
