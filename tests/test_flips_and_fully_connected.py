"""Runs with flips and fully connected kernels are computed, verified, grown, exported and planned."""

import json
import shutil

import numpy as np
import pytest
from backend_suite import ordinary
from click.testing import CliRunner
from test_cli import succeed

from cntk_bench import gram, open_run, reference
from cntk_bench.backends import cpu, fully_connected
from cntk_bench.cli import program
from cntk_bench.config import config
from cntk_bench.errors import UserError
from cntk_bench.grams import matrix, store
from cntk_bench.grams import verify as verification
from cntk_bench.grams.tiles import Plan, Tile
from cntk_bench.kernels import fully_connected as definition
from cntk_bench.kernels.spec import Readout
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.regression.ridge import solve
from cntk_bench.runs import compute as computing
from cntk_bench.runs import export
from cntk_bench.runs import solve as solving
from cntk_bench.runs import verify as verifying

CONFIG = """
name: small
dataset: {name: digits, train: 40, test: 20}
kernel: {columns: [CNTK-V], depths: [3]}
compute: {tile: 16, backend: cpu}
solve: {ridge: 0.001}
"""
COLUMNS = ("CNTK-V", "CNTK-V-FLIP", "FC-NTK-B0.1", "FC-NTK-B0.1-FLIP", "FC-NNGP", "CNN-GP-LAP1-FLIP")
ALL = f"kernel.columns=[{', '.join(COLUMNS)}]"


def settings(folder, *overrides):
    (folder / "small.yaml").write_text(CONFIG)
    return config.load(folder / "small.yaml", overrides)


def computed(folder, *overrides, source=None, run="run"):
    """Compute; returns the run and the number of tasks."""
    run, tasks = Run(folder / run), []
    computing.compute(run, settings(folder, *overrides), lambda plan, todo: tasks.append, source)
    return run, len(tasks)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    run, _ = computed(folder, ALL)
    solving.solve(run, run.config())
    return run.path


@pytest.fixture
def run(finished, tmp_path):
    return Run(shutil.copytree(finished, tmp_path / "run"))


def test_a_table_of_them(run):
    solutions = record.load(run.record)["solutions"]
    assert [solution["column"] for solution in solutions] == list(COLUMNS)
    assert all(solution["accuracy"] > 50 and solution["trusted"] for solution in solutions)  # chance is 10 %
    stage = record.load(run.record)["stages"][0]
    assert stage["numerics"] == cpu.NUMERICS
    assert stage["fully_connected_numerics"] == fully_connected.NUMERICS


def test_matrices_are_those_of_the_definition(run, tmp_path):
    opened = open_run(run.path)
    loaded = computing.images.load(run.config())
    for column, readout in zip(COLUMNS, run.config().kernel.readouts, strict=True):
        found = opened.gram(column, 3)
        assert (found.train == found.train.T).all()
        (exact,) = reference.gram(loaded.x_test[:2], loaded.x_train[:3], readouts=[readout])
        np.testing.assert_allclose(found.test[:2, :3], exact, rtol=1e-6)
        at_once = gram(loaded.x_train, readouts=[readout], backend="cpu")
        np.testing.assert_array_equal(found.train, at_once[0])
    (file,) = export.write(opened.gram("FC-NTK-B0.1-FLIP", 3), tmp_path / "gram.npz")
    assert np.load(file)["train"].shape == (40, 40)


def test_verify_audits_them(run):
    found = verifying.verify(run, run.config(), sample=15, repair=False)
    assert found.ok and len(found.entries) == 15 * len(COLUMNS)
    assert {str(entry.readout) for entry in found.entries} == set(store.open(run.gram).readouts)
    assert max(entry.error for entry in found.entries) < 1e-6


def test_verify_finds_a_wrong_entry(tmp_path):
    """It is off by 1e-5, but stored with a correct digest."""
    run, _ = computed(tmp_path, ALL, "dataset.train=10", "dataset.test=4", "compute.tile=4")
    wrong, tile = store.open(run.gram), Tile("test", 0, 1)
    block = wrong.read(tile)
    for name in ("ntk-v-3-all-flip", "fc-ntk-3-b0.1"):
        block[wrong.index(name)] *= np.float32(1 - 1e-5)
    with wrong.alone():
        wrong.discard(tile)
        wrong.write(tile, block)
    found = verifying.verify(run, run.config(), sample=10**6, repair=False)
    assert list(found.damaged) == [tile]
    assert {str(entry.readout) for entry in found.entries if not entry.ok} == {"ntk-v-3-all-flip", name}
    assert verifying.verify(run, run.config(), sample=3, repair=False).missing == 0


READOUTS = tuple(
    Readout(kernel, pool, depth, None, bias, fixed, flip)
    for flip in (False, True)
    for depth in (1, 2, 3, 21)
    for kernel, pool, bias, fixed in (
        *(
            ("fc-ntk", "", 0, 0),
            ("fc-ntk", "", 0.1, 0),
            ("fc-ntk", "", 1, depth - 1),
            ("fc-nngp", "", 0.5, 0),
        ),
        *((("ntk", "v", 0, 0), ("nngp", "lap:1", 0, 0)) if depth in (2, 3) else ()),
    )
)


def compared(K, x):
    """An `Entry` for every number of a Gram matrix of x, as `verify` compares it."""
    plan, tile = Plan(len(x), len(x), len(x), len(READOUTS)), Tile("test", 0, 0)
    return [
        entry
        for i, j in np.ndindex(len(x), len(x))
        for entry in verification._compare(plan, tile, i, j, READOUTS, K[:, i, j], x[i], x[j])
    ]


def test_sound_numbers_pass_and_wrong_ones_do_not():
    """Among the images: opposite ones, whose terms cancel, mirror images, zero, and nearly parallel ones."""
    x = ordinary(8, 2, 4)
    x[1], x[2], x[3], x[4] = -x[0], x[0, ..., ::-1], -3 * x[0], 0
    x[5], x[6] = x[0] * (1 + 1e-6), -x[0, ..., ::-1] - np.float32(1e-3)
    entries = compared(gram(x, readouts=READOUTS, backend="cpu"), x)
    assert not [f"{entry} ({entry.row}, {entry.col})" for entry in entries if not entry.ok]
    exact = reference.gram(x, readouts=READOUTS)
    own = np.sqrt(np.einsum("rii->ri", exact))
    wrong = exact + 1e-5 * own[:, :, None] * own[:, None]
    noticed = {(entry.readout, entry.row, entry.col) for entry in compared(wrong, x) if not entry.ok}
    pairs = [(k, i, j) for k, i, j in np.ndindex(*exact.shape) if own[k, i] * own[k, j]]
    assert [(READOUTS[k], i, j) for k, i, j in pairs if (READOUTS[k], i, j) not in noticed] == []


def test_a_run_grows_by_them(finished, tmp_path):
    """Columns added later have a fresh run's bits, as they share nothing with the columns that were there."""
    run, _ = computed(tmp_path)
    assert "fully_connected_numerics" not in store.open(run.gram).attributes
    again, tasks = computed(tmp_path, ALL)
    assert tasks > 0 and store.open(again.gram).attributes["fully_connected_numerics"] == 1
    assert computed(tmp_path, ALL)[1] == 0  # everything is there
    fresh = store.open(Run(finished).gram)
    for name in fresh.readouts:
        for part in ("train", "test"):
            grown = matrix.matrix(store.open(again.gram), part, name)
            np.testing.assert_array_equal(grown, matrix.matrix(fresh, part, name))
    assert computed(tmp_path, ALL, "dataset.train=50")[1] > 0
    assert verifying.verify(again, again.config(), sample=5, repair=False).ok


def test_tiles_are_taken_from_another_run(finished, tmp_path):
    run, _ = computed(tmp_path, ALL, "dataset.train=30", "compute.tile=8", source=Run(finished))
    taken = record.load(run.record)["stages"][0]["tiles_taken"]
    assert taken == store.open(run.gram).plan.count


def test_other_bits_of_fully_connected_kernels_are_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(fully_connected, "NUMERICS", 2)
    with pytest.raises(UserError, match="fully connected numerics is 1 there, 2 here"):
        computed(tmp_path, ALL)
    with pytest.raises(UserError, match="nothing can be taken.*fully connected numerics is 1 there, 2 here"):
        computed(tmp_path, ALL, source=run, run="another")
    # This column has no fully connected numerics.
    assert computed(tmp_path, "kernel.columns=[CNTK-V-FLIP]")[1] == 0


def test_vectors_are_computed_through_the_same_tiles(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)) * [1, 10, 0.1, 3, 0] + 4, np.arange(30) % 3
    file = tmp_path / "vectors.npz"
    np.savez(file, x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    own = (f"dataset.path={file}", "dataset.name=npz", "dataset.train=20", "dataset.test=10")
    run, _ = computed(tmp_path, *own, "kernel.columns=[FC-NTK-B0.1]", "kernel.depths=[1, 3]", run="vectors")
    found = open_run(run.path).gram("FC-NTK-B0.1", 3)
    standard = ((x - x[:20].mean(0)) / np.where(np.arange(5) < 4, x[:20].std(0), 1)).astype(np.float32)
    train, test = standard[:20][found.train_index], standard[20:][found.test_index]
    readout = [Readout("fc-ntk", "", 3, bias=0.1)]
    expected = [[definition.pair(a, b, readout)[0] for b in train] for a in test]
    np.testing.assert_allclose(found.test, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(
        UserError, match="are vectors of 5 numbers, and convolutional kernels, such as ntk-v-3-"
    ):
        computed(tmp_path, *own, "kernel.columns=[FC-NTK, CNTK-V]", run="other")
    with pytest.raises(UserError, match="5 numbers, which have no mirror images, as of fc-ntk-1-flip: use"):
        computed(tmp_path, *own, "kernel.columns=[FC-NTK-FLIP]", "kernel.depths=[1]", run="other")


def test_plan_and_bench(tmp_path):
    (tmp_path / "small.yaml").write_text(CONFIG)
    runner, where = CliRunner(), ("--output", str(tmp_path))
    plan = runner.invoke(program.cli, ["plan", str(tmp_path / "small.yaml"), "--set", ALL, *where])
    assert plan.exit_code == 0, plan.output
    assert "readouts         6" in plan.output and "pairs per second (cpu" in plan.output
    asked = ("--size", 4, "--depths", 3, "--backend", "cpu", "--seconds", 0.01, "--scratch", tmp_path)
    found = json.loads(succeed("bench", "--columns", "FC-NTK-B0.1, CNTK-V-FLIP", *asked, "--json"))["columns"]
    assert [one["column"] for one in found] == ["FC-NTK-B0.1", "CNTK-V-FLIP"]
    assert all(one["pairs_per_second"] > 0 and one["limit_pairs_per_second"] is None for one in found)


def flipped(x):
    return np.ascontiguousarray(x[..., ::-1])


@pytest.mark.parametrize(
    "readout", [Readout("ntk", "v", 3, flip=True), Readout("ntk", "gap", 4, flip=True), Readout("nngp",
    "lap:1", 3, flip=True),
     Readout("fc-ntk", "", 3, bias=0.1, flip=True), Readout("fc-nngp", "", 4, flip=True)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("r", [0.0, 0.03])
def test_training_with_flips_is_training_on_the_doubled_set(readout, r):
    """The averaged kernel with ridge r predicts like the plain one on the 2 n images with ridge 2 r.

    Relative to the mean diagonals, these ridges are r / mean K_flip(x, x) and 2 r / mean K(x, x).
    """
    x, new = ordinary(24, 1, 5), ordinary(30, 1, 5, seed=1)
    labels, both = np.arange(24) % 3, np.concatenate([x, flipped(x)])

    def predicted(readout, images, labels, ridge):
        train, test = (
            gram(*pair, readouts=[readout], backend="cpu")[0].astype("f8")
            for pair in ((images,), (new, images))
        )
        found = solve(train, labels, classes=3, ridge=ridge / np.diag(train).mean())
        return test @ found.alpha, train

    averaged, K = predicted(readout, x, labels, r)
    # Rounding to float32, 6e-8 of both matrices, is multiplied by the condition number.
    allowed = 1e-6 * np.linalg.cond(K + r * np.eye(24))
    assert allowed < 0.05
    for factor in (1, 2, 4):  # ridges in any other ratio must disagree
        doubled, _ = predicted(readout.plain, both, np.tile(labels, 2), factor * r)
        assert (abs(averaged - doubled).max() < allowed) == (factor == 2 or r == 0)
