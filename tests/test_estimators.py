"""The estimators: scikit-learn's checks and tools; the same numbers as the command line and KernelRidge."""

import doctest
import pickle
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted
from test_cli import call

import cntk_bench
from cntk_bench import CNTKClassifier, CNTKRegressor, Readout, data, estimators, gram, open_run
from cntk_bench.regression import checks, ridge
from cntk_bench.system import memory

BOTH = (CNTKClassifier, CNTKRegressor)
CHECKED = [
    *(made(**settings) for made in BOTH for settings in ({}, {"kernel": "precomputed"})),
    CNTKClassifier(kernel="nngp", standardize=False, ridge=0.0),
    CNTKRegressor(pool="gap", depth=3, ridge=[0.01, 0.1]),
    CNTKRegressor(kernel="fc-ntk", depth=2, bias=0.1),
]


def excused(estimator):
    if estimator.kernel == "precomputed":
        return {"check_positive_only_tag_during_fit": "its X is no Gram matrix: (n, n) is needed"}
    return {}


@parametrize_with_checks(CHECKED, expected_failed_checks=excused)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """40 training and 30 test images, standardised as in a run; and the same images raw."""
    asked = {"train": 40, "test": 30, "statistics": "subset"}
    return data.load("digits", **asked), data.load("digits", **asked, preprocess="none")


def test_predictions_are_those_of_a_run(digits, tmp_path):
    (tmp_path / "c.yaml").write_text("""
dataset: {train: 40, test: 30}
preprocess: {statistics: subset}
kernel: {columns: [CNTK-V, CNTK-GAP, CNN-GP-LAP2], depths: [3, 5]}
""")
    done = call("run", tmp_path / "c.yaml", "--output", tmp_path / "run", "--set", "solve.ridge=[0, 0.01]")
    assert done.returncode == 0, done.stderr
    prepared, raw = digits
    for column, settings in {
        "CNTK-V": {},
        "CNTK-GAP": {"pool": "gap"},
        "CNN-GP-LAP2": {"kernel": "nngp", "pool": "lap:2"},
    }.items():
        model = CNTKClassifier(**settings, depth=5, ridge=[0, 0.01])
        kept = np.load(tmp_path / "run" / "solutions" / f"{column}-5.npz")
        alpha = kept["alpha"]
        # A stored kernel's last digit may depend on what is computed beside it, and an image's on where it is
        # standardised. dK changes alpha by at most |dK| |alpha| / (smallest eigenvalue).
        K = open_run(tmp_path / "run").gram(column, 5).train
        last_digit = np.finfo(np.float32).eps * np.linalg.cond(K)
        for images, standardize, digits_off in ((prepared, False, 1), (raw, True, 4)):
            fitted = clone(model).set_params(standardize=standardize).fit(images.x_train, images.y_train)
            moved = np.linalg.norm(fitted.dual_coef_ - alpha, axis=0) / np.linalg.norm(alpha, axis=0)
            assert (moved <= digits_off * last_digit).all()
            np.testing.assert_array_equal(fitted.predict(images.x_test), kept["predicted"])
            (chosen,) = [one for one in fitted.path_ if one["ridge"] == fitted.ridge_]
            assert chosen["ridge"] + chosen["jitter"] == kept["ridge"]


def test_outputs_are_those_of_scikit_learns_kernel_ridge(digits):
    x, y, z = digits[0].x_train, digits[0].y_train, digits[0].x_test
    readouts = [Readout("ntk", "v", 4)]
    K, Z = (gram(a, x, readouts=readouts)[0].astype(float) for a in (x, z))
    absolute = 0.05 * K.diagonal().mean()
    settings = {"depth": 4, "ridge": 0.05, "standardize": False}
    model = KernelRidge(alpha=absolute, kernel="precomputed").fit(K, np.eye(10)[y] - 0.1)
    outputs = CNTKClassifier(**settings).fit(x, y).decision_function(z)
    np.testing.assert_allclose(outputs, model.predict(Z), rtol=1e-9, atol=1e-12)
    # Targets of three magnitudes, one of them constant.
    targets = np.stack([1000.0 * y, y**2 / 1000, np.full(len(y), 3.0)], 1)
    model.fit(K, targets)
    both = [
        CNTKRegressor(**settings).fit(x, targets),
        CNTKRegressor(kernel="precomputed", ridge=0.05).fit(K, targets),
    ]
    for fitted, tested in zip(both, (z, Z), strict=True):
        np.testing.assert_allclose(fitted.predict(tested), model.predict(Z), rtol=1e-6)
        np.testing.assert_allclose(fitted.dual_coef_, model.dual_coef_, rtol=1e-6)
        assert fitted.n_outputs_ == 3 and fitted.predict(tested).shape == (30, 3)
    alone = CNTKRegressor(**settings).fit(x, targets[:, 0])
    assert alone.predict(z).shape == (30,)
    np.testing.assert_allclose(alone.predict(z), model.predict(Z)[:, 0], rtol=1e-6)


def test_leave_one_out_of_real_targets_by_refitting():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)), rng.normal(size=(20, 2)) * [1, 100] + [5, 0]
    K = x @ x.T + np.eye(20)
    values = [0.01, 0.1, 1.0]
    solution, errors = ridge.regress(K, y, ridge=values), []
    for value in values:
        absolute, left_out = value * K.diagonal().mean(), []
        for i in range(20):
            rest = np.delete(np.arange(20), i)
            model = KernelRidge(alpha=absolute, kernel="precomputed").fit(K[np.ix_(rest, rest)], y[rest])
            left_out.append(y[i] - model.predict(K[i : i + 1, rest])[0])
        errors.append(np.mean(np.square(left_out / y.std(0))))
    np.testing.assert_allclose([fit.loo_error for fit in solution.path], errors, rtol=1e-9)
    assert solution.chosen.ridge == values[int(np.argmin(errors))] and np.isnan(solution.chosen.loo_accuracy)
    model = CNTKRegressor(kernel="precomputed", ridge=values).fit(K, y)
    assert (model.ridge_, model.loo_error_) == (solution.chosen.ridge, solution.chosen.loo_error)
    assert [one["ridge"] for one in model.path_] == values


@pytest.mark.parametrize("unit, mean", [(1.0, 0.0), (100.0, 30.0), (1e-3, 0.0)])
def test_leave_one_out_error_of_one_output_is_in_its_units(unit, mean):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(20, 5)), mean + unit * rng.normal(size=20)
    K, values, errors = x @ x.T + np.eye(20), [0.01, 0.1, 1.0], []
    for value in values:
        left_out = []
        for i in range(20):
            rest = np.delete(np.arange(20), i)
            model = KernelRidge(alpha=value * K.diagonal().mean(), kernel="precomputed")
            left_out.append(y[i] - model.fit(K[np.ix_(rest, rest)], y[rest]).predict(K[i : i + 1, rest])[0])
        errors.append(np.mean(np.square(left_out)))
    for targets in y, y[:, None]:
        model = CNTKRegressor(kernel="precomputed", ridge=values).fit(K, targets)
        np.testing.assert_allclose([one["loo_error"] for one in model.path_], errors, rtol=1e-9)
        assert model.loo_error_ == min(one["loo_error"] for one in model.path_)


def test_a_vector_is_an_image_of_one_pixel():
    """There, one convolution's NNGP kernel is the arc-cosine kernel of degree 1 (Cho and Saul 2009)."""
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=(25, 3)), rng.normal(size=25), rng.normal(size=(10, 3))
    model = CNTKRegressor(kernel="nngp", depth=2, ridge=0.01, standardize=False).fit(x, y)

    def kernel(a, b):
        lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
        angle = np.arccos(np.clip(a @ b.T / lengths, -1, 1))
        return lengths * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi

    K = kernel(x, x)
    expected = kernel(z, x) @ np.linalg.solve(K + 0.01 * K.diagonal().mean() * np.eye(25), y)
    np.testing.assert_allclose(model.predict(z), expected, rtol=1e-4, atol=1e-5)
    assert model.image_shape_ == (3, 1, 1) and model.n_features_in_ == 3


def test_every_parameter_of_a_kernel_is_passed_on(digits):
    x, y, z = digits[0].x_train, digits[0].y_train, digits[0].x_test
    for settings, readout in (
        ({"kernel": "fc-ntk", "bias": 0.5}, Readout("fc-ntk", "", 3, bias=0.5)),
        ({"kernel": "fc-nngp"}, Readout("fc-nngp", "", 3)),
        ({"pool": "gap", "train": "all"}, Readout("ntk", "gap", 3, "all")),
        ({"pool": "lap:2", "flip": True}, Readout("ntk", "lap:2", 3, flip=True)),
    ):
        model = CNTKClassifier(**settings, depth=3, ridge=0.01, standardize=False).fit(x, y)
        K, Z = (gram(a, x, readouts=[readout])[0].astype(float) for a in (x, z))
        other = CNTKClassifier(kernel="precomputed", ridge=0.01).fit(K, y)
        np.testing.assert_allclose(
            model.decision_function(z), other.decision_function(Z), rtol=1e-6, atol=1e-8
        )


def test_images_come_in_three_forms(digits):
    raw = digits[1]
    x, y, z = raw.x_train, raw.y_train, raw.x_test
    outputs = CNTKClassifier(depth=3).fit(x, y).decision_function(z)
    for shape in ("square", (1, 8, 8), [1, 8, 8]):
        model = CNTKClassifier(depth=3, image_shape=shape).fit(x.reshape(40, 64), y)
        np.testing.assert_array_equal(model.decision_function(z.reshape(30, 64)), outputs)
        np.testing.assert_array_equal(model.decision_function(z), outputs)
        assert model.image_shape_ == (1, 8, 8) and model.n_features_in_ == 64
    mean, deviation = x.astype(float).mean(), x.astype(float).std()
    np.testing.assert_allclose((model.shift_.item(), model.scale_.item()), (mean, deviation), rtol=1e-12)
    # Prediction, too, uses the statistics of the training images.
    bright = CNTKClassifier(depth=3).fit(5 * x + 3, y)
    np.testing.assert_allclose(bright.decision_function(5 * z + 3), outputs, rtol=1e-3, atol=1e-5)
    model = CNTKClassifier(depth=3, image_shape=(4, 4, 4)).fit(x.reshape(40, 64), y)
    assert model.image_shape_ == (4, 4, 4)


@pytest.mark.parametrize(
    ("settings", "shape", "problem"),
    [
        ({"image_shape": (1, 8, 9)}, (40, 64), r"64 features, which image_shape \(1, 8, 9\) does not fit"),
        ({"image_shape": "square"}, (40, 63), "63 features, which image_shape square does not fit"),
        ({"image_shape": (1, 7, 7)}, (40, 1, 8, 8), r"images of shape \(1, 8, 8\), which image_shape"),
        ({"image_shape": "round"}, (40, 64), r"image_shape is round: use None, 'square' or \(C, P, P\)"),
        ({}, (40, 1, 8, 7), r"images of shape \(1, 8, 7\), which image_shape None does not fit: use square"),
        ({"depth": 1}, (40, 64), "use an integer of at least 2"),
        ({"pool": "max"}, (40, 64), "max"),
        ({"kernel": "rbf"}, (40, 64), "kernel 'rbf' is unknown: use 'ntk', 'nngp', 'fc-ntk' or"),
        ({"ridge": -1}, (40, 64), "ridge -1 is not possible: use numbers from 0"),
        ({"backend": "abacus"}, (40, 64), "abacus"),
        ({"kernel": ["ntk"]}, (40, 64), r"kernel \['ntk'\] is unknown: use 'ntk'"),
        ({"image_shape": (1, 8, 8.0)}, (40, 64), r"image_shape is \(1, 8, 8.0\): use None, 'square' or"),
        ({"image_shape": ("1", "8", "8")}, (40, 64), "image_shape is .*: use None, 'square' or"),
        ({"image_shape": (1, -8, -8)}, (40, 64), "image_shape is .*: use None, 'square' or"),
        ({"image_shape": (1, None, 8)}, (40, 64), "image_shape is .*: use None, 'square' or"),
        ({"standardize": "no"}, (40, 64), "standardize is no: use True or False"),
        ({"kernel": "precomputed", "kernel_error": -1}, (40, 40), "kernel_error is -1: use None, or"),
        (
            {"kernel": "precomputed", "kernel_error": 1.0},
            (40, 40),
            "a number from 0 to below 1, such as",
        ),
        ({"kernel": "precomputed", "kernel_error": "small"}, (40, 40), "kernel_error is small: use None"),
        ({"kernel": "precomputed", "kernel_error": True}, (40, 40), "kernel_error is True: use None"),
        ({"kernel": "precomputed", "kernel_error": np.nan}, (40, 40), "kernel_error is nan: use None"),
        ({"kernel": "fc-ntk", "flip": True}, (40, 64), "flip: vectors have no mirror images: leave it out"),
        ({"kernel": "precomputed"}, (40, 40), "X is not symmetric: a precomputed kernel to fit"),
        (
            {"kernel": "precomputed"},
            (40, 64),
            r"X has shape \(40, 64\): a precomputed kernel is n x n to fit",
        ),
    ],
)
def test_what_is_not_possible_is_a_value_error_of_one_line(settings, shape, problem):
    x = np.random.default_rng(0).normal(size=shape)
    with pytest.raises(ValueError, match=problem) as caught:
        CNTKClassifier(**settings).fit(x, np.arange(40) % 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [CNTKClassifier, CNTKRegressor])
def test_images_that_are_all_alike(model):
    x, y = np.full((40, 1, 4, 4), 3.0), np.arange(40) % 2
    said = (
        "X is constant in every channel, so it cannot be standardised: give images that differ, or "
        "standardize=False"
    )
    with pytest.raises(ValueError, match=f"^{said}$"):
        model().fit(x, y)
    assert model(standardize=False, depth=2, ridge=0.1).fit(x, y).X_fit_.shape == x.shape


def test_input_that_scikit_learn_refuses(digits, monkeypatch):
    x, y = digits[0].x_train, digits[0].y_train
    model = CNTKClassifier(depth=3).fit(x, y)
    with pytest.raises(ValueError, match="y has one class, 3: labels of at least two are needed"):
        CNTKClassifier().fit(x, np.full(40, 3))
    with pytest.raises(ValueError, match="NaN"):
        CNTKClassifier().fit(np.where(x > 0, np.nan, x), y)
    with pytest.raises(TypeError, match="[Ss]parse"):
        CNTKClassifier().fit(sparse.csr_array(x.reshape(40, 64)), y)
    with pytest.raises(ValueError, match="X has 63 features, but CNTKClassifier is expecting 64"):
        model.predict(x.reshape(40, 64)[:, 1:])
    with pytest.raises(ValueError, match=r"images of shape \(4, 4, 4\), and was fitted to \(1, 8, 8\)"):
        model.predict(x.reshape(40, 4, 4, 4))
    with pytest.raises(ValueError, match="float32"):
        CNTKClassifier(standardize=False).fit(1e300 * x.astype(float), y)
    with pytest.raises(TypeError, match="sample_weight"):
        CNTKClassifier().fit(x, y, sample_weight=np.ones(40))
    assert not hasattr(model, "predict_proba")
    monkeypatch.setattr(memory, "available", lambda: 2**20)
    with pytest.raises(ValueError, match="40 training images need 0.1 GiB, and 0.0 are free: use fewer"):
        CNTKClassifier().fit(x, y)


def test_units_of_images_and_targets_change_nothing(digits):
    x, y, z = (np.asarray(part, float) for part in (digits[0].x_train, digits[0].y_train, digits[0].x_test))
    settings = {"kernel": "fc-ntk", "depth": 3, "ridge": 0.01}
    expected = CNTKRegressor(**settings).fit(x, y).predict(z)
    for size in (1e-300, 1e-160, 1e160, 1e300):
        found = CNTKRegressor(**settings).fit(size * x, size * y).predict(size * z)
        np.testing.assert_allclose(found / size, expected, rtol=1e-6)


def test_targets_that_are_all_zero_give_zero(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = CNTKRegressor(kernel="fc-ntk").fit(digits[0].x_train, np.zeros((40, 2)))
        assert (model.predict(digits[0].x_test) == 0).all() and model.path_[0]["residual"] == 0


def twins():
    """Kernels of digits and their labels; two of the training images are almost equal, of two classes."""
    images = data.load("digits", train=60, test=50)
    x, y, z, truth = images.x_train.astype(float), images.y_train.copy(), images.x_test, images.y_test
    x[40], y[40] = x[3], (y[3] + 1) % 10
    x[40, 0, 4, 4] += 1e-5
    K, Z = (gram(a, x, readouts=[Readout("ntk", "v", 3)])[0].astype(float) for a in (x, z))
    return K, y, Z, truth


@pytest.mark.parametrize("by", [3.0, "mean diagonal"])
def test_a_matrix_and_its_multiples_give_the_same_fit(by):
    """What is divided in float64 are no float32 numbers, but their errors are float32's all the same."""
    K, y, Z, truth = twins()
    scale = by if isinstance(by, float) else K.diagonal().mean()
    model = CNTKClassifier(kernel="precomputed", ridge=0).fit(K, y)
    other = clone(model).fit(K / scale, y)
    assert model.path_[0]["jitter"] == other.path_[0]["jitter"] > 1e-9
    np.testing.assert_allclose(other.decision_function(Z / scale), model.decision_function(Z), atol=1e-5)
    assert model.score(Z, truth) == other.score(Z / scale, truth) > 0.5


def test_entries_that_are_more_exact_are_said_to_be():
    K, y, _, _ = twins()
    exact = CNTKClassifier(kernel="precomputed", ridge=0, kernel_error=0)
    assert exact.fit(K, y).path_[0]["jitter"] < 1e-8  # noise is fitted, as was asked for
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), np.arange(20) % 2
    x[7] = x[2] + 1e-4
    K = np.exp(-np.square(x[:, None] - x).sum(-1) / 2)  # in float64: 1 - K_27 is 1.5e-8, known to 1e-8 of it
    stored, exact = (
        CNTKClassifier(kernel="precomputed", ridge=0, kernel_error=error).fit(K, y) for error in (None, 1e-15)
    )
    assert stored.path_[0]["jitter"] > 0 and exact.path_[0]["jitter"] == 0


@pytest.mark.parametrize("made", BOTH)
def test_a_fit_that_fails_leaves_nothing_to_predict_with(digits, made):
    x, y, z = digits[0].x_train, digits[0].y_train, digits[0].x_test
    model = made(depth=3, ridge=-1)
    with pytest.raises(ValueError, match="ridge -1 is not possible"):
        model.fit(x, y)
    for later in ("first", "again"):
        with pytest.raises(NotFittedError):
            model.predict(z)
        with pytest.raises(NotFittedError):
            check_is_fitted(model)
        if later == "first":
            assert model.set_params(ridge=0.1).fit(x, y).predict(z).shape == (30,)
            with pytest.raises(ValueError, match="ridge -1 is not possible"):
                model.set_params(ridge=-1).fit(x[::-1] + 1, y % 2)


def test_a_matrix_rounded_in_float32_is_symmetric_enough(digits, monkeypatch):
    x, y = digits[0].x_train.reshape(40, -1), digits[0].y_train
    K = x.astype(np.float32) @ x.T.astype(np.float32)
    K[3, 5] *= 1 + 1e-6
    monkeypatch.setattr(checks, "BLOCK", 7)
    CNTKClassifier(kernel="precomputed", ridge=0.1).fit(K, y)
    K[38, 2] += 0.01 * abs(K).max()
    with pytest.raises(ValueError, match="not symmetric"):
        CNTKClassifier(kernel="precomputed", ridge=0.1).fit(K, y)


def test_labels_are_what_was_given(digits):
    x, y, z = digits[0].x_train, digits[0].y_train, digits[0].x_test
    numbers = CNTKClassifier(depth=3).fit(x, y)
    words = CNTKClassifier(depth=3).fit(x, np.array([f"digit {label}" for label in y]))
    assert list(words.classes_) == [f"digit {label}" for label in range(10)]
    assert list(words.predict(z)) == [f"digit {label}" for label in numbers.predict(z)]
    two = CNTKClassifier(depth=3).fit(x, np.where(y < 5, "low", "high"))
    outputs = two.decision_function(z)
    assert outputs.shape == (30,) and list(two.predict(z)) == list(np.where(outputs > 0, "low", "high"))
    assert two.score(z, np.where(digits[0].y_test < 5, "low", "high")) > 0.7


def test_a_solution_that_cannot_be_trusted_warns(monkeypatch):
    solve = ridge.regress

    def doubtful(*arguments, **how):
        found = solve(*arguments, **how)
        return replace(found, chosen=replace(found.chosen, doubt="not solved; raise solve.ridge"))

    monkeypatch.setattr(ridge, "regress", doubtful)
    with pytest.warns(ConvergenceWarning, match="not to be trusted: not solved; raise ridge") as caught:
        CNTKRegressor(kernel="precomputed").fit(np.eye(4), np.arange(4.0))
    assert caught[0].filename == __file__


def test_predictions_come_in_blocks(digits, monkeypatch):
    x, y, z = digits[0].x_train, digits[0].y_train, digits[0].x_test
    model = CNTKClassifier(depth=3).fit(x, y)
    whole = model.decision_function(z)
    monkeypatch.setattr(estimators, "BLOCK", 7)
    np.testing.assert_allclose(model.decision_function(z), whole, rtol=1e-10, atol=1e-12)


def test_searches_pipelines_and_calibration(monkeypatch):
    x, y = (part[:90] for part in load_digits(return_X_y=True))
    scores = cross_val_score(CNTKClassifier(depth=3, image_shape="square"), x, y, cv=3)
    assert len(scores) == 3 and scores.mean() > 0.75
    computed, original = [], estimators.gram
    monkeypatch.setattr(
        estimators, "gram", lambda *a, **k: (computed.append(len(a[0])), original(*a, **k))[1]
    )
    model = make_pipeline(FunctionTransformer(np.sqrt), CNTKClassifier(image_shape="square"))
    grid = {"cntkclassifier__depth": [2, 3], "cntkclassifier__ridge": [0.0, "loo"]}
    search = GridSearchCV(model, grid, cv=2, refit=True).fit(x, y)
    # For each fold and setting, one to fit and one to predict; then the refit.
    assert len(computed) == 2 * 4 * 2 + 1
    assert search.best_score_ > 0.75 and set(search.best_params_) == set(grid)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    monkeypatch.undo()
    calibrated = CalibratedClassifierCV(CNTKClassifier(depth=2, image_shape="square"), cv=2).fit(x, y)
    np.testing.assert_allclose(calibrated.predict_proba(x[:5]).sum(1), 1)


def test_a_matrix_is_searched_without_computing_it_again():
    x, y = (part[:90] for part in load_digits(return_X_y=True))
    x = (x.reshape(-1, 1, 8, 8) - x.mean()) / x.std()
    settings = {"depth": 3, "standardize": False, "ridge": 0.01}
    computed = cross_val_score(CNTKClassifier(**settings), x, y, cv=3)
    K = gram(x, readouts=[Readout("ntk", "v", 3)])[0]
    stored = cross_val_score(CNTKClassifier(kernel="precomputed", ridge=0.01), K, y, cv=3)
    np.testing.assert_array_equal(stored, computed)
    search = GridSearchCV(CNTKClassifier(kernel="precomputed"), {"ridge": [0.0, 0.01, 0.1]}, cv=3).fit(K, y)
    assert search.cv_results_["mean_test_score"][1] == pytest.approx(computed.mean())


def test_a_fitted_one_is_the_same_in_another_process(digits, tmp_path):
    x, y, z = digits[0].x_train, digits[0].y_train, digits[0].x_test
    model = CNTKClassifier(depth=3).fit(x, y)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "z.npy", z)
    code = """
import pickle, sys, numpy as np
model = pickle.load(open(sys.argv[1] + "/model.pickle", "rb"))
np.save(sys.argv[1] + "/outputs.npy", model.decision_function(np.load(sys.argv[1] + "/z.npy")))
"""
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=300)
    np.testing.assert_array_equal(np.load(tmp_path / "outputs.npy"), model.decision_function(z))
    fresh = clone(model)
    assert fresh.get_params() == model.get_params() and not hasattr(fresh, "dual_coef_")


def test_the_examples_of_the_docstrings_hold():
    found = [test for made in BOTH for test in doctest.DocTestFinder(recurse=False).find(made)]
    for test in found:
        result = doctest.DocTestRunner().run(test)
        assert result.attempted >= 4 and not result.failed
    assert len(found) == 2


def test_the_example_of_the_tutorial_holds():
    page = Path(cntk_bench.__file__).parents[1] / "docs" / "tutorials" / "scikit-learn.md"
    (code,) = re.findall(r"## An estimator\n.*?```python\n(.*?)```", page.read_text(), re.S)
    names = {}
    exec(code, names)
    assert names["search"].best_score_ > 0.9 and names["model"].score(names["z"], names["labels"]) > 0.9
