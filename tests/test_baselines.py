"""Baselines against brute force, other formulas and the libraries' other functions; and their limits."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from test_cli import call

from cntk_bench import columns
from cntk_bench.columns import Request, baseline, distances, gaussian
from cntk_bench.columns.baseline import Baseline
from cntk_bench.errors import UserError
from cntk_bench.report import table
from cntk_bench.runs import scoring

N, M, K = 36, 20, 3


class Given:
    """Noisy 4 x 4 images of three classes, bright in different rows."""

    classes, device, dtype = K, "cpu", "float64"
    how = SimpleNamespace(solver="cholesky", ridge=0.0)

    def __init__(self, **settings):
        rng = np.random.default_rng(3)
        self.settings = Baseline(**settings)
        labels = np.arange(N + M) % K
        x = 0.2 * rng.normal(size=(N + M, 2, 4, 4)).astype(np.float32)
        x[np.arange(N + M), :, labels] += 1.0
        labels = np.where(
            rng.random(N + M) < 0.2, rng.integers(0, K, N + M), labels
        )  # wrong labels: without them there would be no noise
        self.x, self.y_train, self.y_test = (x[:N], x[N:]), labels[:N], labels[N:]

    def section(self, name):
        return {"baseline": self.settings}[name]

    def images(self):
        return self.x

    def flat(self):
        return [part.reshape(len(part), -1).astype(float) for part in self.x]


def filled(name, given):
    return columns.find(name).fill(None, given)


def onehot(given):
    return np.eye(K)[given.y_train] - 0.1


def median(x):
    return np.median(cdist(x, x)[np.triu_indices(len(x), 1)])


KERNELS = {"RBF": lambda d, s: np.exp(-(d**2) / (2 * s**2)), "LAPLACE": lambda d, s: np.exp(-d / s)}


def test_distances_are_those_of_the_differences_however_near():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 50))
    z = np.concatenate([x[:10] + 1e-7 * rng.normal(size=(10, 50)), x[:5], rng.normal(size=(9, 50))])
    np.testing.assert_allclose(distances.squared(x, z), cdist(x, z, "sqeuclidean"), rtol=1e-9, atol=0)
    assert distances.median(x) == pytest.approx(median(x), rel=1e-12)
    with pytest.raises(UserError, match="more than half of the pairs of training images are equal"):
        distances.median(np.ones((4, 3)))


def test_matrices_are_made_in_blocks(monkeypatch):
    monkeypatch.setattr(distances, "BLOCK", 7)
    given = Given()
    (x, z), raw = given.flat(), given.images()[1]
    exact = KERNELS["RBF"](cdist(x, x), 2.0)
    made = distances.train(x, lambda d: np.exp(-d / 8), "float64")
    np.testing.assert_allclose(np.tril(made), np.tril(exact), rtol=1e-9)
    centre = np.full(x.shape[1], 0.25)
    blocks = list(distances.test(raw, x - centre, lambda d: np.exp(-d / 8), centre))
    assert [len(block) for block in blocks] == [7, 7, 6]
    np.testing.assert_allclose(np.concatenate(blocks), KERNELS["RBF"](cdist(z, x), 2.0), rtol=1e-9)


@pytest.mark.parametrize("name", ["RBF", "LAPLACE"])
def test_bandwidth_and_ridge_are_those_of_least_error_by_refitting(name):
    bandwidths, ridges = (0.3, 1.0, 3.0), (1e-2, 0.3)
    given = Given(bandwidths=bandwidths, ridge=ridges)
    (x, z), y = given.flat(), onehot(given)
    cell, errors = filled(name, given), {}
    for bandwidth in bandwidths:
        K = KERNELS[name](cdist(x, x), bandwidth * median(x))
        for ridge in ridges:  # with a diagonal of 1, relative and absolute ridges are the same
            left_out = []
            for i in range(N):
                rest = np.delete(np.arange(N), i)
                model = KernelRidge(alpha=ridge, kernel="precomputed").fit(K[np.ix_(rest, rest)], y[rest])
                left_out.append(y[i] - model.predict(K[i : i + 1, rest])[0])
            errors[bandwidth, ridge] = np.mean(np.square(left_out))
    tried = {(one["bandwidth"], one["ridge"]): one["loo_error"] for one in cell.facts["tried"]}
    assert tried == pytest.approx(errors, rel=1e-8)
    bandwidth, ridge = min(errors, key=errors.get)
    assert (cell.facts["bandwidth"], cell.facts["ridge"]) == (bandwidth, ridge)
    assert cell.facts["loo_error"] == pytest.approx(errors[bandwidth, ridge], rel=1e-8)
    length = bandwidth * median(x)
    assert cell.facts["length"] == pytest.approx(length, rel=1e-9)
    model = KernelRidge(alpha=ridge, kernel="precomputed").fit(KERNELS[name](cdist(x, x), length), y)
    scores = model.predict(KERNELS[name](cdist(z, x), length))
    np.testing.assert_array_equal(cell.predicted, scores.argmax(1))
    assert (cell.predicted == given.y_test).mean() > 0.5
    if name == "RBF":
        model = KernelRidge(alpha=ridge, kernel="rbf", gamma=cell.facts["gamma"]).fit(x, y)
        np.testing.assert_allclose(model.predict(z), scores, rtol=1e-7, atol=1e-9)


def test_linear_is_the_ridge_of_least_error_by_refitting():
    ridges = (0.01, 0.1, 1.0)
    given = Given(ridge=(0.0, *ridges))
    (x, z), y = given.flat(), onehot(given)
    cell, errors = filled("LINEAR", given), {}
    unit = np.mean(np.sum((x - x.mean(0)) ** 2, 1))
    for ridge in ridges:
        left_out = []
        for i in range(N):
            rest = np.delete(np.arange(N), i)
            left_out.append(y[i] - Ridge(ridge * unit).fit(x[rest], y[rest]).predict(x[i : i + 1])[0])
        errors[ridge] = np.mean(np.square(left_out))
    assert {one["ridge"]: one["loo_error"] for one in cell.facts["tried"]} == pytest.approx(errors, rel=1e-8)
    best = min(errors, key=errors.get)
    assert cell.facts["ridge"] == best
    scores = Ridge(best * unit).fit(x, y).predict(z)
    np.testing.assert_array_equal(cell.predicted, scores.argmax(1))
    np.testing.assert_allclose(z @ cell.arrays["weights"].T + cell.arrays["intercept"], scores, rtol=1e-9)


def covariance(facts, x, z=None, scale=None):
    distance = cdist(x if z is None else z, x)
    return facts["scale"] * KERNELS["RBF"](distance, facts["length"] if scale is None else scale)


def log_marginal_likelihood(facts, x, y):
    C = covariance(facts, x) + facts["noise"] * np.eye(len(x))
    return sum(multivariate_normal(np.zeros(len(x)), C).logpdf(output) for output in y.T)


def check_gaussian_process(cell, given, slack):
    """All facts of the cell against closed forms; the likelihood must be at a maximum, up to `slack`."""
    facts, (x, z), y = cell.facts, given.flat(), onehot(given)
    found = log_marginal_likelihood(facts, x, y)
    assert facts["log_marginal_likelihood"] == pytest.approx(found, rel=1e-7)
    for key in ("scale", "length", "noise"):
        for factor in (0.5, 0.8, 1.25, 2):
            assert log_marginal_likelihood(facts | {key: factor * facts[key]}, x, y) < found + slack
    assert facts["ridge"] == facts["noise"] / facts["scale"]
    alpha = np.linalg.solve(covariance(facts, x) + facts["noise"] * np.eye(N), y)
    means = covariance(facts, x, z) @ alpha
    np.testing.assert_allclose(cell.arrays["scores"], means, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(cell.predicted, means.argmax(1))
    model = KernelRidge(alpha=facts["ridge"], kernel="rbf", gamma=0.5 / facts["length"] ** 2)
    wrong = []
    for i in range(N):
        rest = np.delete(np.arange(N), i)
        wrong.append(y[i] - model.fit(x[rest], y[rest]).predict(x[i : i + 1])[0])
    assert facts["loo_error"] == pytest.approx(np.mean(np.square(wrong)), rel=1e-6)
    right = (np.array(y - wrong).argmax(1) == given.y_train).mean()
    assert facts["loo_accuracy"] == pytest.approx(right)


def test_scikit_learns_gaussian_process():
    given = Given()
    cell = filled("SKLEARN-GP", given)
    check_gaussian_process(cell, given, 0)
    assert cell.facts["note"] is None
    assert abs(cell.facts["gain"]) < 1e-6


def test_gpytorchs_gaussian_process_is_the_same_model():
    pytest.importorskip("gpytorch")
    given = Given(adam_steps=200)
    cell, other = filled("GPYTORCH-GP", given), filled("SKLEARN-GP", given)
    check_gaussian_process(cell, given, 1e-3)
    best = other.facts["log_marginal_likelihood"]
    assert cell.facts["log_marginal_likelihood"] == pytest.approx(best, abs=1e-2)
    np.testing.assert_allclose(cell.arrays["scores"], other.arrays["scores"], atol=1e-2)
    # The result involves no randomness.
    few, again = (filled("GPYTORCH-GP", Given(adam_steps=3)) for _ in range(2))
    assert {**again.facts, "seconds": 0} == {**few.facts, "seconds": 0}
    np.testing.assert_array_equal(again.arrays["scores"], few.arrays["scores"])
    assert "is at no maximum, " in few.facts["note"] and 0.3 < few.facts["gain"] < 3
    # The gain is an estimate of the missing likelihood, better near the maximum.
    for steps, error in ((40, 0.4), (60, 0.2)):
        near = filled("GPYTORCH-GP", Given(adam_steps=steps)).facts
        assert near["gain"] == pytest.approx(best - near["log_marginal_likelihood"], rel=error)
        assert near["note"] is None
    assert few.facts["note"].endswith("raise baseline.adam_steps or change baseline.adam_rate")
    assert cell.facts["note"] is None


@pytest.mark.parametrize(("rate", "steps"), [(1e6, 3), (1000.0, 20), (10.0, 20), (1.0, 1)])
def test_a_rate_that_is_too_large_leaves_the_best_that_was_seen(rate, steps):
    """Overshooting steps end anywhere, as at variance 0 or length 1e-20: the best point seen is kept."""
    pytest.importorskip("gpytorch")
    given = Given(adam_rate=rate, adam_steps=steps)
    (x, _), y, cell = given.flat(), onehot(given), filled("GPYTORCH-GP", given)
    began = {"scale": 1.0, "length": median(x), "noise": 0.1}
    least = log_marginal_likelihood(began, x, y)
    assert cell.facts["log_marginal_likelihood"] >= least - 1e-6
    found = log_marginal_likelihood(cell.facts, x, y)
    assert cell.facts["log_marginal_likelihood"] == pytest.approx(found, rel=1e-7)
    assert "is at no maximum, " in cell.facts["note"] and "baseline.adam_rate" in cell.facts["note"]


@pytest.mark.parametrize("at", [(1.0, 1.0, 0.1), (0.2, 3.0, 0.01), (5.0, 0.5, 2.0)])
def test_slopes_are_those_of_differences(at):
    given = Given()
    (x, _), y = given.flat(), onehot(given)
    facts = dict(zip(("scale", "length", "noise"), at, strict=True))
    C = covariance(facts, x) + facts["noise"] * np.eye(N)
    first, second = gaussian.slopes(C, y, np.linalg.inv(C), facts["scale"], facts["noise"])

    def moved(key, by):
        return facts | {key: facts[key] * np.exp(by)}

    h, changes = 1e-5, []
    for i, key in enumerate(facts):
        up, down = (log_marginal_likelihood(moved(key, by), x, y) for by in (h, -h))
        assert first[i] == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-5)
        changes.append(sum(sign * (covariance(moved(key, by), x) + moved(key, by)["noise"] * np.eye(N))
                           for sign, by in ((1, h), (-1, -h))) / (2 * h))  # fmt: skip
    expected = [
        [K / 2 * np.trace(np.linalg.solve(C, a) @ np.linalg.solve(C, b)) for a in changes] for b in changes
    ]
    np.testing.assert_allclose(second, expected, rtol=1e-4)
    far = np.diag([1.5] * N)  # kernels of 0 have no logarithm
    assert all(np.isfinite(part).all() for part in gaussian.slopes(far, y, np.linalg.inv(far), 1.0, 0.5))


def test_what_ends_at_the_end_of_a_range_is_noted():
    cell = filled("RBF", Given(bandwidths=[1e-3, 2e-3], ridge=[3.0, 5.0]))
    assert "bandwidth tried is the best: add" in cell.facts["note"]
    assert (
        "ones to baseline.bandwidths; the " in cell.facts["note"]
        and "to baseline.ridge" in cell.facts["note"]
    )
    assert filled("RBF", Given(bandwidths=[1.0], ridge=0.1)).facts["note"] is None
    assert "smallest ridge tried is the best" in filled("LINEAR", Given(ridge=[100.0, 200.0])).facts["note"]
    given = Given()
    given.y_train = np.arange(N) % K  # labels that follow from the images, without noise
    assert "noise is at the lower end of its range, 1e-06 to 10" in filled("SKLEARN-GP", given).facts["note"]


def test_a_matrix_that_cannot_be_solved_names_the_key_of_the_baselines():
    given = Given(bandwidths=[1e6], ridge=0.0)  # up to rounding, all kernels are 1
    cell = filled("RBF", given)
    assert cell.facts["jitter"] > 0 or "baseline.ridge" in (cell.facts["doubt"] or "")
    with pytest.raises(UserError, match="column LINEAR needs a ridge above 0"):
        filled("LINEAR", Given(ridge=0.0))


@pytest.mark.parametrize(("given", "told"), [(0.0, "0.0"), ((0.0, 0.0), r"\[0.0, 0.0\]")])
def test_linear_without_a_ridge_is_refused_before_anything_is_solved(tmp_path, given, told):
    problem = f"column LINEAR needs a ridge above 0, and baseline.ridge is {told}: add one, such as 0.001"
    with pytest.raises(UserError, match=problem):
        columns.require(["LINEAR"], lambda: asked(40, ridge=given))
    columns.require(["LINEAR"], lambda: asked(40, ridge=(0.0, 0.1)))
    columns.require(["RBF"], lambda: asked(40, ridge=given))
    (tmp_path / "c.yaml").write_text(CONFIG)
    changes = ("--set", f"baseline.ridge={list(given) if isinstance(given, tuple) else given}")
    done = call("run", tmp_path / "c.yaml", "--output", tmp_path / "run", *changes)
    assert done.returncode == 2 and "column LINEAR needs a ridge above 0" in done.stderr
    assert not (tmp_path / "run" / "gram.zarr").exists()


def test_a_doubt_names_the_key_of_the_baselines_too(monkeypatch):
    given = Given()
    cell = filled("RBF", given)
    told = scoring.scored(replace(cell, undecided=M), given.y_test)["doubt"]
    assert told.endswith("of the test images; raise baseline.ridge")
    monkeypatch.setattr(baseline.kernels, "solved", doubtful(baseline.kernels.solved))
    assert filled("RBF", given).facts["doubt"] == "not solved; raise baseline.ridge"


def doubtful(solve):
    """The solver with a doubt about each solution."""

    def solved(*arguments, **how):
        found = solve(*arguments, **how)
        return replace(found, chosen=replace(found.chosen, doubt="not solved; raise solve.ridge"))

    return solved


@pytest.mark.parametrize("name", ["RBF", "LAPLACE"])
def test_a_bandwidth_far_below_any_distance_is_a_doubt(name, tmp_path):
    """Kernels of test images underflow to 0: each gets the first class, whatever it shows."""
    changes = ("--set", "baseline.bandwidths=[1e-4]", "--set", f"kernel.columns=[{name}]")
    (tmp_path / "c.yaml").write_text("name: a\ndataset: {train: 20, test: 10}\n")
    done = call("run", tmp_path / "c.yaml", "--output", tmp_path / "run", *changes)
    said = "10 of 10 test images are so far from all training images that with bandwidth 0.0001 their kernels"
    assert done.returncode == 2 and said in done.stderr and "add larger ones to baseline" in done.stderr
    given = Given(bandwidths=[1e-4])
    cell = filled(name, given)
    assert (cell.predicted == 0).all() and not scoring.scored(cell, given.y_test)["trusted"]
    assert filled(name, Given(bandwidths=[1.0])).facts["doubt"] is None
    assert baseline._far(1, M, 1.0) is None and baseline._far(100, 10_000, 1.0) is None
    assert baseline._far(101, 10_000, 1.0) is not None


def asked(n, memory=None, features=32, **settings):
    return Request(n, features, 10, memory, lambda name: Baseline(**settings))


@pytest.mark.parametrize(
    ("name", "known", "problem"),
    [
        ("SKLEARN-GP", asked(3001, 1000.0), "with 3,001 training images: .* or raise baseline.gp_images"),
        ("SKLEARN-GP", asked(50, 1000.0, gp_images=49), "so baseline.gp_images is 49: use fewer training"),
        ("SKLEARN-GP", asked(2000, 0.5), "needs 1.0 GiB and 0.5 GiB are free: use fewer training images"),
        ("LINEAR", asked(50_000, 2.0, 3072), "needs 4.8 GiB and 2.0 GiB are free: use fewer training images"),
    ],
)
def test_what_is_too_large_is_refused_beforehand(name, known, problem):
    with pytest.raises(UserError, match=problem):
        columns.find(name).require(known)
    columns.find(name).require(asked(40))


def test_a_missing_library_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "gpytorch", None)
    with pytest.raises(UserError, match=r"pip install 'cntk-bench\[gpytorch\]'") as found:
        columns.require(["GPYTORCH-GP"], lambda: asked(40))
    assert "\n" not in str(found.value)


CONFIG = """
name: baselines
dataset: {train: 40, test: 30}
kernel: {columns: [CNTK-V, RBF, LINEAR], depths: [3, 4]}
baseline: {bandwidths: [0.5, 1], ridge: [0.001, 0.1]}
"""


def test_a_run_fills_each_of_them_once(tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG)
    done = call("run", tmp_path / "c.yaml", "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    cells = [(one["column"], one["depth"]) for one in record["solutions"]]
    assert cells == [("CNTK-V", 3), ("CNTK-V", 4), ("RBF", None), ("LINEAR", None)]
    assert record["stages"][-1]["settings"]["baseline"]["bandwidths"] == [0.5, 1]
    assert {file.name for file in (tmp_path / "run" / "solutions").glob("*.npz")} == {
        *("CNTK-V-3.npz", "CNTK-V-4.npz", "RBF.npz", "LINEAR.npz")
    }
    kept = np.load(tmp_path / "run" / "solutions" / "RBF.npz")
    accuracy = 100 * (kept["predicted"] == kept["y_test"]).mean()
    assert record["solutions"][2]["accuracy"] == pytest.approx(accuracy)
    assert "without depths" in done.stdout and table(record) in done.stdout
    again = call("solve", tmp_path / "run", "--set", "kernel.columns=[RBF]", "--set", "baseline.ridge=0.5")
    assert again.returncode == 0, again.stderr
    (only,) = json.loads((tmp_path / "run" / "record.json").read_text())["solutions"]
    assert (only["column"], only["depth"], only["ridge"]) == ("RBF", None, 0.5)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("baseline.bandwidths=[0]", "baseline.bandwidths is [0]: expected numbers of at least 1e-6"),
        ("baseline.bandwidths=[]", "expected numbers of at least 1e-6"),
        ("baseline.bandwidth=[1]", "did you mean baseline.bandwidths?"),
        ("baseline.ridge=lo", "expected a finite number of at least 0, a list of such numbers"),
        ("baseline.gp_images=1", "an integer of at least 2"),
        ("baseline.adam_rate=.inf", "a number of at least 1e-6"),
        ("kernel.columns=[LAPLACIAN]", "did you mean LAPLACE?"),
    ],
)
def test_keys_of_the_baselines_are_checked(tmp_path, change, problem):
    (tmp_path / "c.yaml").write_text(CONFIG)
    done = call("run", tmp_path / "c.yaml", "--output", tmp_path / "run", "--set", change)
    assert done.returncode == 2 and problem in done.stderr and done.stderr.count("\n") == 1


def test_there_is_nothing_to_plan(tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG)
    done = call("plan", tmp_path / "c.yaml", "--set", "kernel.columns=[RBF]")
    assert done.returncode == 0 and "nothing to compute: these columns need no Gram matrix" in done.stdout


def test_columns_bring_no_library_before_it_is_used():
    heavy = ("sklearn", "torch", "gpytorch", "scipy")
    code = f"import sys, cntk_bench.columns; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and baseline.NAMES == (
        "RBF",
        "LAPLACE",
        "SKLEARN-GP",
        "GPYTORCH-GP",
        "LINEAR",
    )
