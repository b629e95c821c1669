"""The small-data protocol of scripts/uci.py: its kernels, choices and figures."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import uci  # noqa: E402


def by_matrices(x, depth, fixed):
    """The recursion on whole matrices, c_sigma = 1, without 1 / n_0; layers above `fixed` are trained."""
    S = x.astype("f8") @ x.T.astype("f8")
    theta = np.zeros_like(S)
    for layer in range(1, depth + 1):
        theta += S * (layer > fixed)
        if layer < depth:
            n = np.sqrt(np.outer(np.diag(S), np.diag(S)))
            angle = np.arccos(np.clip(S / n, -1, 1))
            S = n * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
            theta *= (np.pi - angle) / (2 * np.pi)
    return theta


def test_ntks_with_fixed_layers():
    x, _ = uci.load("wine")
    found = uci.ntks(x)
    assert len(found) == 15
    for depth in range(1, 6):
        for fixed in range(depth):
            name = f"fc-ntk-{depth}" + (f"-f{fixed}" if fixed else "")
            expected = by_matrices(x, depth, fixed)
            np.testing.assert_allclose(found[name], expected / np.diag(expected).mean(), rtol=1e-5, atol=1e-6)


def test_classifiers_have_the_kernels_of_their_names():
    x, _ = uci.load("iris")
    kernels = uci.classifiers(x)
    assert {name: len(chosen) for name, chosen in kernels.items()} == {
        "NTK": 15,
        "NTK, all layers trained": 5,
        "NNGP (all but the last layer fixed)": 5,
        "Gaussian": 10,
        "linear": 1,
    }
    gaussian = kernels["Gaussian"]["gamma 0.5"]
    np.testing.assert_allclose(gaussian, rbf_kernel(x.astype("f8"), gamma=0.5), rtol=1e-6)


def test_the_choice_is_made_on_one_half_against_the_other(monkeypatch):
    calls = []

    def accuracy(K, y, train, test, cost):
        calls.append((train, test))
        return 50.0 + (K is kernels["b"]) * (cost >= 1)

    monkeypatch.setattr(uci, "accuracy", accuracy)
    y, kernels = np.arange(40) % 4, {"a": np.eye(40), "b": np.eye(40)}
    assert uci.chosen(kernels, y, seed=0) == ("b", 1.0)  # the first of equally good ones
    train, test = calls[0]
    assert sorted([*train, *test]) == list(range(40)) and len(train) == 20
    assert np.bincount(y[train]).tolist() == [5] * 4
    calls.clear()
    uci.folded(kernels["a"], y, 1.0, seed=0)
    assert sorted(np.concatenate([test for _, test in calls])) == list(range(40)) and len(calls) == 4
    assert all(not set(train) & set(test) for train, test in calls)


def test_an_accuracy_is_that_of_a_support_vector_machine():
    x, y = uci.load("iris")
    train, test = np.arange(0, 150, 2), np.arange(1, 150, 2)
    machine = SVC(kernel="linear", C=0.1).fit(x[train], y[train])
    expected = 100 * machine.score(x[test], y[test])
    assert uci.accuracy(x.astype("f8") @ x.T, y, train, test, 0.1) == pytest.approx(expected)


def test_figures_over_data_sets():
    """By hand: the best are 100, 80, 90; ranks are 1 2 1.5, 2 1 1.5, 3 3 3."""
    found = uci.summary({"a": [100, 70, 90], "b": [96, 80, 90], "c": [89, 68, 85.6]})
    assert found["a"] == pytest.approx({"mean": 260 / 3, "P90": 200 / 3, "P95": 200 / 3, "rank": 1.5})
    assert found["b"] == pytest.approx({"mean": 266 / 3, "P90": 100, "P95": 100, "rank": 1.5})
    assert found["c"] == pytest.approx({"mean": 242.6 / 3, "P90": 100 / 3, "P95": 100 / 3, "rank": 3})


def test_the_whole_protocol_on_iris(capsys, monkeypatch, tmp_path):
    tmp_path /= "folder that is not there"
    options = ["--data", "iris", "iris", "--seeds", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["uci.py", *options])
    monkeypatch.setattr(uci, "COSTS", (0.1, 10.0))
    uci.main()
    table = (tmp_path / "uci-sklearn.md").read_text()
    assert table in capsys.readouterr().out and "| NTK | 9" in table and "± nan" not in table
    # iris is included only once.
    assert len(json.loads((tmp_path / "uci-sklearn.json").read_text())["results"]) == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seeds", "0"], "--seeds 0: give at least 1"),
        (["--output", "/dev/null/here"], "cannot write to --output /dev/null/here"),
        (["--data", "iris", "tulips"], "invalid choice: 'tulips'"),
    ],
)
def test_bad_input_is_told_before_anything_is_computed(options, words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["uci.py", *options])
    monkeypatch.setattr(uci, "protocol", lambda *_: pytest.fail("it began"))
    with pytest.raises(SystemExit) as ended:
        uci.main()
    assert ended.value.code == 2 and words in capsys.readouterr().err
