"""Draws that take their tiles from another run, have baselines, or continue after an interruption."""

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from test_draws import CONFIG, DRAWS, M, N, accuracies, finished  # noqa: F401

from cntk_bench import columns, data, open_run
from cntk_bench.config import config
from cntk_bench.grams import store
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute as computing
from cntk_bench.runs import solve as solving
from cntk_bench.runs import verify as verifying
from cntk_bench.runs.status import Follower

ONE_SET = ("dataset.draws=1", f"dataset.train={DRAWS * N}")


def computed(folder, *overrides, run="run", source=None, progress=None):
    """Compute; returns the run, and the names of the tiles that were computed or taken."""
    (folder / "drawn.yaml").write_text(CONFIG)
    run, tasks = Run(folder / run), []
    settings = config.load(folder / "drawn.yaml", overrides)
    watch = progress or (lambda plan, todo: tasks.append)
    computing.compute(run, settings, watch, source)
    return run, {str(task.tile) for task in tasks}


def taken(run):
    """How many tiles the last stage took from another run, and how many pairs it computed."""
    stage = record.load(run.record)["stages"][-1]
    return stage["tiles_taken"], stage["pairs"]


def assert_same_numbers(run, other, draws=DRAWS):
    for draw in range(1, draws + 1):
        for column in ("CNTK-V", "CNTK-GAP"):
            one, two = (open_run(r.path).gram(column, 3, draw) for r in (run, other))
            for name, values in one.arrays().items():
                np.testing.assert_array_equal(values, two.arrays()[name])


def test_draws_from_a_run_of_one_set(finished, tmp_path):  # noqa: F811
    """All needed tiles are there; tiles with pairs across draws are there, too, but are not taken."""
    whole, _ = computed(tmp_path, *ONE_SET, run="whole")
    run, tiles = computed(tmp_path, source=whole)
    assert taken(run) == (27, 0) and len(tiles) == 27
    assert len(store.open(run.gram).progress.missing()) == 12
    assert_same_numbers(run, Run(finished[0]))
    assert accuracies(solving.solve(run, run.config())) == accuracies(finished[2])
    assert verifying.verify(run, run.config(), 4, False).ok


def test_one_set_from_a_run_of_draws(finished, tmp_path):  # noqa: F811
    """Pairs across draws are missing and computed; the rest is taken, however either run is tiled."""
    run, _ = computed(tmp_path, *ONE_SET, source=Run(finished[0]))
    assert taken(run) == (27, 12 * 10 * 10)
    fresh, _ = computed(tmp_path, *ONE_SET, run="fresh")
    assert_same_numbers(run, fresh, draws=1)
    assert accuracies(solving.solve(run, run.config())) == accuracies(solving.solve(fresh, fresh.config()))


def test_more_and_smaller_draws_from_another_run(finished, tmp_path):  # noqa: F811
    more, tiles = computed(tmp_path, "dataset.draws=4", source=Run(finished[0]), run="more")
    assert taken(more) == (27, N * (N + 1) // 2 + N * M) and len(tiles) == 36
    assert accuracies(solving.solve(more, more.config(("dataset.draws=3",)))) == accuracies(finished[2])
    # Some draws of 15 images straddle two of the other run's draws, which has no pairs across these.
    other = ("dataset.train=15", "dataset.draws=4", "compute.tile=5")
    smaller, tiles = computed(tmp_path, *other, source=Run(finished[0]), run="smaller")
    crossing = 2 * 5 * 5 + 2 * 5 * 5  # 15..19 with 20..29, and 30..39 with 40..44
    assert taken(smaller) == (len(tiles) - 4, crossing)
    fresh, _ = computed(tmp_path, *other, run="fresh")
    for draw in range(1, 5):
        one, two = (open_run(r.path).gram("CNTK-GAP", 3, draw) for r in (smaller, fresh))
        np.testing.assert_allclose(one.train, two.train, rtol=2e-7)
        np.testing.assert_allclose(one.test, two.test, rtol=2e-7)
    assert verifying.verify(smaller, smaller.config(), 4, False).ok


def test_baselines_of_draws_are_scikit_learns_of_each(tmp_path):
    names = ("RBF", "LAPLACE", "LINEAR", "SKLEARN-GP")
    own = ("solve.ridge=0.001", "baseline.ridge=[0.001, 0.1]", "baseline.bandwidths=[0.5, 1.0, 2.0]")
    run, tiles = computed(tmp_path, f"kernel.columns=[CNTK-V, {', '.join(names)}]", *own)
    assert len(tiles) == 27
    cells = {cell["column"]: cell for cell in solving.solve(run, run.config())["solutions"]}
    images = data.load("digits", train=DRAWS * N, test=M)
    z = images.x_test.reshape(M, -1).astype(float)
    for name in names:
        kept, cell = np.load(run.solutions / f"{name}.npz"), cells[name]
        assert kept["predicted"].shape == (DRAWS, M) and len(cell["draws"]) == DRAWS
        expected = []
        for draw, facts in enumerate(cell["draws"]):
            some = slice(draw * N, (draw + 1) * N)
            x = images.x_train[some].reshape(N, -1).astype(float)
            y = np.eye(10)[images.y_train[some]] - 0.1
            if name == "LINEAR":
                model = Ridge(facts["ridge"] * x.var(0).sum())
            else:
                gamma = facts.get("gamma", 1 / (2 * facts["length"] ** 2))
                model = KernelRidge(alpha=facts["ridge"], kernel="rbf", gamma=gamma)
                if name == "LAPLACE":
                    model = KernelRidge(alpha=facts["ridge"], kernel=lambda a, b, s=facts["length"]: np.exp(
                        -np.linalg.norm(a - b) / s
                    ))  # fmt: skip
            scores = model.fit(x, y).predict(z)
            np.testing.assert_array_equal(kept["predicted"][draw], scores.argmax(1))
            expected.append(100 * float((scores.argmax(1) == images.y_test).mean()))
        assert cell["accuracies"] == expected and cell["spread"] == pytest.approx(np.std(expected, ddof=1))
    lengths = [facts["median_distance"] for facts in cells["RBF"]["draws"]]
    assert len(set(lengths)) == DRAWS and "median_distance" not in cells["RBF"]  # every draw has its own


def test_computing_goes_on_where_it_was_interrupted(finished, tmp_path):  # noqa: F811
    done = []

    def progress(plan, todo):
        def one(task):
            done.append(str(task.tile))
            if len(done) == 8:
                raise KeyboardInterrupt

        return one

    with pytest.raises(KeyboardInterrupt):
        computed(tmp_path, progress=progress)
    run = Run(tmp_path / "run")
    found = Follower(run).look()
    assert 8 <= found.counts.tiles < found.counts.all_tiles == 27 and not found.finished
    _, rest = computed(tmp_path)
    assert len(rest) == 27 - found.counts.tiles and not rest & set(done)
    assert Follower(run).look().finished
    assert_same_numbers(run, Run(finished[0]))
    assert accuracies(solving.solve(run, run.config())) == accuracies(finished[2])


def test_a_solve_goes_on_with_the_cell_whose_draws_were_not_all_solved(finished, tmp_path, monkeypatch):  # noqa: F811
    run, _ = computed(tmp_path, source=Run(finished[0]))
    fill, calls = columns.kernel.KernelColumn.fill, []

    def failing(self, depth, given):
        calls.append(self.name)
        if len(calls) == DRAWS + 2:  # at the second draw of the second cell
            raise KeyboardInterrupt
        return fill(self, depth, given)

    monkeypatch.setattr(columns.kernel.KernelColumn, "fill", failing)
    with pytest.raises(KeyboardInterrupt):
        solving.solve(run, run.config())
    assert calls == ["CNTK-V"] * DRAWS + ["CNTK-GAP"] * 2
    assert "solutions" not in record.load(run.record) or not record.load(run.record)["solutions"]
    calls[:] = ["earlier"] * 2 * DRAWS
    solved = solving.solve(run, run.config())
    assert calls[2 * DRAWS :] == ["CNTK-GAP"] * DRAWS  # finished cells are kept, parts of a cell are not
    assert accuracies(solved) == accuracies(finished[2])
    np.testing.assert_array_equal(
        np.load(run.solutions / "CNTK-V-3.npz")["predicted"],
        np.load(finished[0] / "solutions" / "CNTK-V-3.npz")["predicted"],
    )
