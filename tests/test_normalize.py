"""Kernels with a unit diagonal, against direct computation with the test images' own kernels."""

import numpy as np
import pytest

from cntk_bench import Readout, data, gram, report
from cntk_bench.analyses import findings
from cntk_bench.config import config
from cntk_bench.errors import UserError
from cntk_bench.records.directory import Run
from cntk_bench.regression import normalize, prediction
from cntk_bench.runs import compute as computing
from cntk_bench.runs import solve as solving

COLUMNS = {
    "CNTK-V": Readout("ntk", "v", 4), "CNTK-GAP": Readout("ntk", "gap", 4),
    "CNTK-LAP2": Readout("ntk", "lap:2", 4), "CNTK-LAP7": Readout("ntk", "lap:7", 4),
    "CNN-GP-LAP2": Readout("nngp", "lap:2", 4),
}  # fmt: skip
CONFIG = f"""
name: unit
dataset: {{name: digits, train: 40, test: 60, preprocess: none}}
kernel: {{columns: [{", ".join(COLUMNS)}], depths: [4]}}
compute: {{tile: 40, backend: cpu}}
solve: {{normalize: unit_diagonal, ridge: 0.01}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unit")
    (folder / "unit.yaml").write_text(CONFIG)
    run = Run(folder / "run")
    computing.compute(run, config.load(folder / "unit.yaml"))
    return run


@pytest.fixture(scope="module")
def whole():
    """All kernels between all images, training and test, and the images."""
    images = data.load("digits", train=40, test=60, preprocess="none")
    x = np.concatenate([images.x_train, images.x_test])
    kernels = gram(x, readouts=list(COLUMNS.values())).astype(np.float64)
    return dict(zip(COLUMNS, kernels, strict=True)), images


def direct(K, y, ridge):
    """Scores (m, k) from a kernel of training and test images, scaled to a unit diagonal."""
    own = np.sqrt(K.diagonal())
    K, n = K / np.outer(own, own), len(y)
    return K[n:, :n] @ np.linalg.solve(K[:n, :n] + ridge * np.eye(n), np.eye(10)[y])  # one-hot targets


@pytest.mark.parametrize("ridge", [5e-5, 0.01, 1.0])
def test_the_table_is_that_of_the_kernel_of_unit_diagonal(run, whole, ridge):
    kernels, images = whole
    solved = solving.solve(run, run.config((f"solve.ridge={ridge}",)))
    for solution in solved["solutions"]:
        name = solution["column"]
        kept, scores = np.load(run.solutions / f"{name}-4.npz"), direct(kernels[name], images.y_train, ridge)
        np.testing.assert_array_equal(kept["predicted"], scores.argmax(1))
        assert solution["accuracy"] == 100 * (scores.argmax(1) == images.y_test).mean()
        assert solution["normalize"] == "unit_diagonal" and solution["trusted"]
        # Coefficients belong to targets less 0.1: scores agree up to that shift, which changes no argmax.
        own = np.sqrt(kernels[name].diagonal()[:40])
        unit = kernels[name][:40, :40] / np.outer(own, own)
        targets = np.eye(10)[images.y_train] - 0.1
        expected = np.linalg.solve(unit + ridge * np.eye(40), targets)
        np.testing.assert_allclose(kept["alpha"], expected, rtol=1e-3, atol=1e-3 * abs(expected).max())
        np.testing.assert_allclose(kept["scale"], 1 / own, rtol=1e-6)
    assert "Kernels are scaled to a diagonal of one" in report.table(solved)


def test_outputs_that_need_unknown_kernels_are_neither_kept_nor_shown(run):
    solved = solving.solve(run, run.config(("solve.ridge=5e-5",)))
    for solution in solved["solutions"]:
        with np.load(run.solutions / f"{solution['column']}-4.npz") as kept:
            assert "predicted" in kept and "outputs" not in kept
    found = findings.gather(run, run.config(), solved, run.solutions)
    assert found.counts is not None and found.mistakes is None
    assert "kernels of test images with themselves are not stored" in found.absent["mistakes"]
    kept = {"outputs": np.eye(10)[:2], "y_test": np.array([1, 2])}  # as an earlier version kept
    with pytest.raises(UserError, match="are not stored"):
        findings._mistakes(run.config(), solved["data"], found.cell, kept)


def test_what_is_undecided_does_not_depend_on_the_brightness_of_test_images(whole):
    kernels, images = whole
    K = kernels["CNTK-GAP"]
    alpha = np.linalg.solve(K[:40, :40], np.eye(10)[images.y_train])
    bright = np.geomspace(1e-3, 1e3, 60)[:, None]
    plain, other = (
        prediction.predict(alpha, normalize.scaled_blocks([rows], np.ones(40)), residual=0.2)
        for rows in (K[40:, :40], bright * K[40:, :40])
    )
    assert 0 < plain.undecided == other.undecided < 60 and (plain.classes == other.classes).all()


def test_it_is_another_table_than_without(run, whole):
    kernels, images = whole
    solved = solving.solve(run, run.config(("solve.normalize=none",)))
    assert all("normalize" not in solution for solution in solved["solutions"])
    assert "diagonal of one" not in report.table(solved)
    differs = []
    for name in COLUMNS:
        kept = np.load(run.solutions / f"{name}-4.npz")
        differs.append((kept["predicted"] != direct(kernels[name], images.y_train, 0.01).argmax(1)).any())
    assert any(differs)


def test_windows_as_large_as_the_image_are_global_pooling_of_all_layers(whole):
    """Proportional kernels have the same unit-diagonal kernel: on 8 x 8 images, LAP7 is GAP."""
    kernels, images = whole
    x = np.concatenate([images.x_train, images.x_test])
    (K,) = gram(x, readouts=[Readout("ntk", "gap", 4, "all")]).astype(np.float64)
    units = [A / np.sqrt(np.outer(A.diagonal(), A.diagonal())) for A in (K, kernels["CNTK-LAP7"])]
    np.testing.assert_allclose(*units, rtol=3e-6)


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-15), (np.float32, 3e-7)])
def test_in_place_in_the_lower_triangle_and_black_images(dtype, tolerance):
    n = normalize.BLOCK + 9
    vectors = np.random.default_rng(0).standard_normal((n, 5)) * np.geomspace(1e-6, 1e6, n)[:, None]
    vectors[7] = 0
    K = vectors @ vectors.T
    own = np.sqrt(K.diagonal())
    own[7] = 1
    found = np.tril(K).astype(dtype)
    scale = normalize.unit_diagonal(found)
    np.testing.assert_allclose(found, np.tril(K / np.outer(own, own)), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(scale, 1 / own, rtol=1e-6)
    assert not found[7].any() and np.allclose(np.delete(found.diagonal(), 7), 1, rtol=0, atol=1e-15)


def test_rows_of_test_images_keep_their_order_and_black_ones_stay_black():
    block, scale = np.array([[4.0, -8.0], [0.0, 0.0], [1e-30, 2e-30]]), np.array([0.5, 1.0])
    (found,) = normalize.scaled_blocks([block], scale)
    np.testing.assert_allclose(found, [[0.25, -1.0], [0, 0], [0.25, 1.0]])
