"""Iterative solvers against dense algebra and the direct solve; singular matrices; what files keep."""

import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from dataclasses import replace
from functools import cache
from functools import partial as partial_
from pathlib import Path

import numpy as np
import pytest
from held import Held
from scipy.spatial.distance import cdist
from test_ridge import fake_cupy  # noqa: F401

from cntk_bench import Readout, gram
from cntk_bench.data import load
from cntk_bench.errors import UserError
from cntk_bench.regression import (
    checkpoint,
    cholesky,
    fit,
    iterative,
    normalize,
    partial,
    placement,
    prediction,
    ridge,
    stream,
)
from cntk_bench.regression.attempts import How

N, M = 150, 60
PROGRESS = r"iteration \d+: relative residual \d\.\de[+-]\d\d \(largest of 10 classes\)"
REAL = [Readout("ntk", "v", 3), Readout("ntk", "gap", 3), Readout("ntk", "gap", 11), Readout("fc-ntk", "", 4)]


def onehot(labels, classes=10):
    return np.eye(classes)[labels] - 0.1


def smooth(width, seed=0):
    """Gaussian kernels of points in three dimensions, as float32; the condition is about width^10."""
    x = np.random.default_rng(seed).standard_normal((N + M, 3))
    K = np.exp(-cdist(x, x, "sqeuclidean") / (2 * width**2)).astype(np.float32)
    return K[:N, :N], K[N:, :N].astype(np.float64), np.arange(N) % 10


def low_rank():
    """Linear kernels of 12 features, as float32."""
    x = np.random.default_rng(0).standard_normal((N + M, 12))
    return (x[:N] @ x[:N].T).astype(np.float32), x[N:] @ x[:N].T, np.arange(N) % 10


@pytest.fixture(scope="module")
def real():
    """For each readout, (K as float32, K_test, labels) of digits."""
    images = load("digits", train=N, test=M, seed=1)
    found = {}
    for some, shape in ((REAL[:3], 4), (REAL[3:], 2)):
        x, z = images.x_train, images.x_test
        if shape == 2:
            x, z = (part.reshape(len(part), -1, 1, 1) for part in (x, z))
        K = gram(x, readouts=some, backend="cpu")
        T = gram(z, x, readouts=some, backend="cpu").astype(np.float64)
        found |= {r: (k, t, images.y_train) for r, k, t in zip(some, K, T, strict=True)}
    return found


def by(solver, K, labels, **more):
    """A solver's solution; "cg" gets the matrix in pieces, the last ones smaller."""
    classes = more.pop("classes", 10)
    if solver == "cg":
        return iterative.cg(Held(K, 64), labels, classes=classes, rank=more.pop("rank", N // 8), **more)
    return iterative.refined(K, labels, classes=classes, **more)


def apart(one, other):
    """The largest difference of scores, relative to their scale."""
    return np.abs(one - other).max() / np.abs(other).max()


@pytest.mark.parametrize("solver", ["cg", "refined"])
class TestAgreement:
    @pytest.mark.parametrize("r", [0.0, 1e-5, 1e-2])
    @pytest.mark.parametrize("readout", REAL, ids=str)
    def test_with_a_dense_solve_of_real_kernels(self, real, solver, readout, r):
        K, T, labels = real[readout]
        exact = K.astype(np.float64)
        alpha = np.linalg.solve(exact + r * exact.diagonal().mean() * np.eye(N), onehot(labels))
        found = by(solver, K, labels, ridge=r)
        assert found.chosen.doubt is None and found.chosen.jitter == 0
        assert apart(T @ found.alpha, T @ alpha) < 1e-6
        direct = ridge.solve(exact, labels, classes=10, ridge=r)
        assert apart(T @ found.alpha, T @ direct.alpha) < 1e-6
        one, other = (prediction.predict(s.alpha, [T], s.chosen.largest_residual) for s in (found, direct))
        assert (one.classes == other.classes).all()

    @pytest.mark.parametrize("width, r", [(0.7, 0.0), (2.0, 1e-6), (2.0, 1e-7), (5.0, 1e-6)])
    def test_where_float32_has_no_factor(self, solver, width, r):
        """Condition numbers go up to 1e9; rounding to float32 may make the matrix indefinite."""
        K, T, labels = smooth(width)
        direct = ridge.solve(K.astype(np.float64), labels, classes=10, ridge=r, error=0.0)
        more = {"rank": 60} if solver == "cg" else {}
        found = by(solver, K, labels, ridge=r, error=0.0, **more)
        assert found.chosen.doubt is None and found.chosen.jitter == direct.chosen.jitter
        assert apart(T @ found.alpha, T @ direct.alpha) < 1e-6
        if solver == "refined" and width > 1:
            assert found.facts["factor_jitter"] > 0 and np.isnan(found.chosen.loo_error)

    @pytest.mark.parametrize("contradiction", [False, True])
    def test_equal_images_count_as_one(self, real, solver, contradiction):
        """As in the direct solve: least jitter, whose limit gives equal images the mean of their targets."""
        K, T, labels = real[REAL[0]]
        index = np.r_[0:N, 7, 9, 9]
        labels = labels[index].copy()
        if contradiction:
            labels[-3:] = (labels[-3:] + 1) % 10
        K, T = K[np.ix_(index, index)], T[:, index]
        direct = ridge.solve(K.astype(np.float64), labels, classes=10)
        found = by(solver, K, labels, how=How(iterations=3000))
        assert found.chosen.jitter == direct.chosen.jitter == 1e-10 and found.chosen.doubt is None
        mean = onehot(labels)[:N]
        for i in (7, 9):
            mean[i] = onehot(labels)[index == i].mean(0)
        limit = T[:, :N] @ np.linalg.solve(K[:N, :N].astype(np.float64), mean)
        scores = T @ prediction._together(found.alpha, T)
        assert apart(scores, limit) < (1e-4 if contradiction else 1e-6)
        assert found.chosen.largest_residual <= fit.RESIDUAL

    def test_a_matrix_of_low_rank(self, solver):
        """More images than features and no biases: singular, although no two images are equal."""
        K, T, labels = low_rank()
        direct = ridge.solve(K.astype(np.float64), labels, classes=10)
        found = by(solver, K, labels, rank=20) if solver == "cg" else by(solver, K, labels)
        assert direct.chosen.jitter > 0 and found.chosen.doubt is None
        assert found.chosen.jitter == direct.chosen.jitter
        assert apart(T @ found.alpha, T @ direct.alpha) < 1e-6

    def test_what_no_jitter_makes_positive_is_refused(self, solver):
        K = np.eye(40, dtype=np.float32)
        K[3, 30] = K[30, 3] = 2
        with pytest.raises(
            UserError, match=r"not positive definite: with ridge 0 and jitter 0.0001 .* no kernel's"
        ):
            by(solver, K, np.arange(40) % 10, **({"rank": 5} if solver == "cg" else {}))

    def test_kernels_scaled_to_a_diagonal_of_one(self, real, solver):
        K, T, labels = real[REAL[0]]
        K, T = K.copy(), T.copy()
        K[5], K[:, 5], T[:, 5] = 0, 0, 0  # a black image
        scale = normalize.of_diagonal(K.diagonal())
        exact = K.astype(np.float64)
        normalize.unit_diagonal(exact)
        for r in (5e-5, 0.1):
            alpha = np.linalg.solve(exact + r * exact.diagonal().mean() * np.eye(N), onehot(labels))
            found = by(solver, K, labels, ridge=r, scale=scale)
            assert apart(T * scale @ found.alpha, T * scale @ alpha) < 1e-6
            residual = onehot(labels) - exact @ found.alpha - r * exact.diagonal().mean() * found.alpha
            assert found.chosen.largest_residual == pytest.approx(np.abs(residual).max(), abs=1e-10)
            if solver == "refined":
                expected = ridge.solve(exact, labels, classes=10, ridge=r).chosen
                assert found.chosen.loo_error == pytest.approx(expected.loo_error, rel=1e-4)

    @pytest.mark.parametrize("scaled", [False, True])
    def test_a_black_image_is_solved_with_jitter_and_without_warnings(self, real, solver, scaled):
        K, T, labels = real[REAL[0]]
        K, T = K.copy(), T.copy()
        K[5], K[:, 5], T[:, 5] = 0, 0, 0
        more = {"scale": normalize.of_diagonal(K.diagonal())} if scaled else {}
        exact = K.astype(np.float64)
        if scaled:
            normalize.unit_diagonal(exact)
        direct = ridge.solve(exact, labels, classes=10)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = by(solver, K, labels, **more)
        assert found.chosen.jitter == direct.chosen.jitter > 0 and found.chosen.doubt is None
        rows = T * more["scale"] if scaled else T
        assert apart(rows @ found.alpha, rows @ direct.alpha) < 1e-6

    @pytest.mark.parametrize("unit", [2.0**-100, 2.0**80])
    def test_units(self, real, solver, unit):
        K, T, labels = real[REAL[1]]
        expected = by(solver, K, labels, ridge=1e-3)
        found = by(solver, (K.astype(np.float64) * unit).astype(np.float32), labels, ridge=1e-3)
        assert apart(unit * found.alpha, expected.alpha) < 1e-6
        assert found.chosen.largest_residual < 1e-7

    def test_one_ridge_alone(self, real, solver):
        K, _, labels = real[REAL[0]]
        for path in ("loo", [0, 1e-3]):
            with pytest.raises(UserError, match=f"{solver} solves one ridge: leave-one-out"):
                by(solver, K, labels, ridge=path)
        assert by(solver, K, labels, ridge=[0.5]).chosen.ridge == 0.5

    def test_bad_input(self, real, solver):
        K, _, labels = real[REAL[0]]
        with pytest.raises(UserError, match="label 10 is outside"):
            by(solver, K, np.where(labels == 3, 10, labels))
        K = K.copy()
        K[30, 2] = np.nan
        with pytest.raises(UserError, match=r"NaN or infinity \(first in row 2\)"):
            by(solver, K, labels)

    def test_a_limit_that_is_reached_is_a_doubt(self, real, solver):
        K, T, labels = real[REAL[0]]
        tight = {"cg": How(iterations=4), "refined": How(iterations=1, tolerance=1e-12)}[solver]
        found = by(solver, K, labels, how=tight)
        figures = re.fullmatch(
            r"not solved: after (\d) iterations a relative residual of (\S+) is left, above solve.tolerance "
            r"\(1e-\d+\); raise solve.iterations or solve.ridge",
            found.chosen.doubt,
        )
        residual = onehot(labels) - K.astype(np.float64) @ found.alpha
        relative = (np.linalg.norm(residual, axis=0) / np.linalg.norm(onehot(labels), axis=0)).max()
        assert int(figures[1]) == tight.iterations
        assert float(figures[2]) == pytest.approx(relative, rel=0.05)

    def test_progress_is_told(self, real, solver):
        said = []
        found = by(solver, real[REAL[0]][0], real[REAL[0]][2], how=How(tell=said.append))
        assert len(said) == found.facts["iterations"]
        assert all(re.fullmatch(PROGRESS, words) for words in said)


@pytest.mark.parametrize("below", [5e-4, 0.05])
def test_a_jitter_is_named_with_its_own_pivot(below, caplog):
    """What one direction shows rules out larger jitters, which are then not tried."""
    v = np.random.default_rng(0).standard_normal(N)
    v /= np.linalg.norm(v)
    K, labels = np.eye(N) - (1 + below) * np.outer(v, v), np.arange(N) % 10
    with caplog.at_level("INFO"), pytest.raises(UserError) as refused:
        by("cg", K, labels, rank=5)
    said = str(refused.value)
    tried = re.findall(r"with jitter (\S+) the matrix is not positive definite \((\S+)\)", caplog.text)
    assert re.findall(r"jitter (\S+) a pivot is (\S+) of", said) == tried[-1:] and tried[-1][0] == "0"
    named = re.search("raise solve.ridge to ([^ ]+)$", said)
    assert bool(named) == (below < 1e-3) != ("no kernel's" in said)
    if named:
        assert by("cg", K, labels, rank=5, ridge=float(named[1])).chosen.doubt is None


def test_refined_tells_the_leave_one_out_error(real):
    for readout in REAL[:2]:
        K, _, labels = real[readout]
        expected = ridge.solve(K.astype(np.float64), labels, classes=10, ridge=1e-3).chosen
        found = by("refined", K, labels, ridge=1e-3).chosen
        assert found.loo_error == pytest.approx(expected.loo_error, rel=1e-3)
        assert found.loo_accuracy == expected.loo_accuracy
        assert found.condition == pytest.approx(expected.condition, rel=0.05)
        assert np.isnan(by("cg", K, labels, ridge=1e-3).chosen.loo_error)
        # Rounding to float32 moves a pivot, relative to its own diagonal entry, by sqrt(n) eps.
        rounding = len(K) ** 0.5 * float(np.finfo(np.float32).eps)
        bright = np.geomspace(0.1, 10, N)
        K, exact = (K * np.outer(bright, bright)).astype(np.float32), K.astype(np.float64)
        normalize.unit_diagonal(exact)
        expected = ridge.solve(exact, labels, classes=10, ridge=1e-3).chosen
        found = by("refined", K, labels, ridge=1e-3, scale=normalize.of_diagonal(K.diagonal())).chosen
        assert found.smallest_pivot == pytest.approx(expected.smallest_pivot, abs=rounding)


def test_a_residual_that_rounding_leaves_is_a_doubt(monkeypatch):
    """Equal images with different labels and too little jitter: no good solution exists, and it says so."""
    K, _, labels = smooth(0.5)
    index = np.r_[0:N, 7]
    labels = np.r_[labels, (labels[7] + 1) % 10]
    monkeypatch.setattr(fit, "JITTERS", (1e-14,))
    found = by("cg", K[np.ix_(index, index)], labels, how=How(iterations=3000))
    assert found.chosen.largest_residual > fit.RESIDUAL
    assert re.match("not solved: .*residual.* raise solve", found.chosen.doubt)


class Stopped(BaseException):
    pass


def states(how):
    """The files of states that are kept."""
    return sorted(how.file.parent.glob(f"{how.file.stem}-*.npz"))


class TestCheckpoints:
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch):
        monkeypatch.setattr(checkpoint, "SECONDS", 0.0)

    def interrupted(self, K, labels, how, after, **more):
        """Interrupt a solve after this many iterations, so that it leaves its state."""

        def tell(words):
            if words.startswith(f"iteration {after}:"):
                raise Stopped

        with pytest.raises(Stopped):
            by("cg", K, labels, how=replace(how, tell=tell), **more)
        assert len(states(how)) == 1

    @pytest.mark.parametrize("after", [1, 9])
    def test_what_was_interrupted_goes_on_to_the_same_bits(self, real, tmp_path, after):
        K, _, labels = real[REAL[1]]
        whole = by("cg", K, labels)
        said = []
        how = How(file=tmp_path / "kept" / "state.npz", tell=said.append)
        self.interrupted(K, labels, how, after)
        found = by("cg", K, labels, how=how)
        np.testing.assert_array_equal(found.alpha, whole.alpha)
        assert said[0].startswith(f"iteration {after + 1}:")
        assert found.facts == whole.facts and not states(how)

    def test_a_jitter_that_was_found_is_not_looked_for_again(self, tmp_path):
        K, _, labels = low_rank()
        whole = by("cg", K, labels, rank=20)
        assert whole.chosen.jitter > 0
        how = How(file=tmp_path / "state.npz")
        self.interrupted(K, labels, how, whole.facts["iterations"] - 3, rank=20)
        said = []
        found = by("cg", K, labels, rank=20, how=replace(how, tell=said.append))
        np.testing.assert_array_equal(found.alpha, whole.alpha)
        assert found.chosen.jitter == whole.chosen.jitter and len(said) <= 4

    def test_more_iterations_go_on(self, real, tmp_path):
        K, _, labels = real[REAL[0]]
        whole, how = by("cg", K, labels), How(file=tmp_path / "state.npz", iterations=5)
        assert by("cg", K, labels, how=how).chosen.doubt is not None
        said = []
        found = by("cg", K, labels, how=replace(how, iterations=500, tell=said.append))
        assert said[0].startswith("iteration 6:") and found.chosen.doubt is None
        np.testing.assert_array_equal(found.alpha, whole.alpha)

    def test_another_rank_goes_on_from_x(self, real, tmp_path):
        K, T, labels = real[REAL[1]]
        how = How(file=tmp_path / "state.npz")
        self.interrupted(K, labels, how, 15)
        said = []
        found = by("cg", K, labels, rank=40, how=replace(how, tell=said.append))
        assert said[0].startswith("iteration 16:") and found.chosen.doubt is None
        assert apart(T @ found.alpha, T @ by("cg", K, labels).alpha) < 1e-6

    @pytest.mark.parametrize("change", ["labels", "ridge", "matrix", "scale", "classes"])
    def test_the_state_of_another_problem_is_not_used(self, real, tmp_path, change):
        K, _, labels = real[REAL[0]]
        how = How(file=tmp_path / "state.npz")
        self.interrupted(K, labels, how, 9, ridge=1e-3)
        asked = {"ridge": 1e-3, "classes": 10}
        held = Held(K, 64)
        if change == "labels":
            labels = np.roll(labels, 1)
        elif change == "matrix":
            held = Held(K, 64, identity="another")
        else:
            asked |= {
                "ridge": {"ridge": 2e-3},
                "scale": {"scale": np.full(N, 2.0)},
                "classes": {"classes": 11},
            }[change]
        said, before = [], states(how)
        found = iterative.cg(held, labels, rank=N // 8, how=replace(how, tell=said.append), **asked)
        assert said[0].startswith("iteration 1:") and states(how) == before
        expected = iterative.cg(held, labels, rank=N // 8, **asked)
        np.testing.assert_array_equal(found.alpha, expected.alpha)

    def test_other_problems_in_between_leave_a_state(self, real, tmp_path):
        K, _, labels = real[REAL[0]]
        how, said = How(file=tmp_path / "state.npz"), []
        whole = by("cg", K, labels, ridge=1e-3)
        self.interrupted(K, labels, how, 9, ridge=1e-3)
        by("cg", K, labels, how=replace(how, iterations=3), ridge=1e-6)
        by("cg", K, labels, how=how, ridge=1.0)  # this one is solved
        assert len(states(how)) == 2
        found = by("cg", K, labels, how=replace(how, tell=said.append), ridge=1e-3)
        assert said[0].startswith("iteration 10:") and len(states(how)) == 1
        np.testing.assert_array_equal(found.alpha, whole.alpha)

    def test_states_do_not_pile_up(self, real, tmp_path, monkeypatch):
        K, _, labels = real[REAL[0]]
        how = How(file=tmp_path / "state.npz", iterations=2)
        others = [tmp_path / "state-draw-2-0123456789abcdef.npz", tmp_path / "state.npz"]
        for file in others:
            file.touch()
        monkeypatch.setattr(checkpoint, "MOST", 2)
        kept = []
        for value in (1e-6, 1e-5, 1e-4, 1e-6):
            by("cg", K, labels, how=how, ridge=value)
            kept.append(set(states(how)) - set(others))
        assert [len(some) for some in kept] == [1, 2, 2, 2] and kept[0] < kept[3] != kept[1]
        assert all(file.exists() for file in others)

    @pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty", "nan", "shape", "folder"])
    def test_a_damaged_state_is_not_used(self, real, tmp_path, damage, caplog):
        K, _, labels = real[REAL[0]]
        how = How(file=tmp_path / "state.npz")
        self.interrupted(K, labels, how, 9)
        (file,) = states(how)
        content = file.read_bytes()
        if damage in ("nan", "shape"):
            with np.load(file) as found:
                arrays = dict(found)
            arrays["x"] = arrays["x"] * np.nan if damage == "nan" else arrays["x"][1:]
            np.savez(file, **arrays)
        elif damage == "folder":
            file.unlink()
            file.mkdir()
        else:
            middle = len(content) // 2
            flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            file.write_bytes(
                {"cut": content[:middle], "flipped": flipped, "text": b"state", "empty": b""}[damage]
            )
        said = []
        found = by("cg", K, labels, how=replace(how, tell=said.append))
        assert said[0].startswith("iteration 1:") and found.chosen.doubt is None
        assert "it is not used" in caplog.text

    def test_a_full_disk_costs_the_state_alone(self, real, tmp_path, monkeypatch, caplog):
        def full(*_, **__):
            raise OSError(28, "No space left on device")

        K, _, labels = real[REAL[0]]
        expected = by("cg", K, labels)
        monkeypatch.setattr(np, "savez", full)
        found = by("cg", K, labels, how=How(file=tmp_path / "state.npz"))
        np.testing.assert_array_equal(found.alpha, expected.alpha)
        assert "its state is not kept: no space left to write" in caplog.text
        assert not list(tmp_path.iterdir())


@cache
def near_equal():
    """CNTK-V of depth 21; half of the images almost equal the other half, but have other labels."""
    images = load("digits", train=N + M, test=2, seed=1)
    x = images.x_train.copy()
    x[: N // 2] = x[N // 2 : N] + 1e-5 * np.random.default_rng(0).standard_normal(x[: N // 2].shape)
    K = gram(x, readouts=[Readout("ntk", "v", 21)], backend="cpu")[0]
    return K[:N, :N], K[N:, :N].astype(np.float64), images.y_train[:N]


@pytest.mark.parametrize("iterations", [40, 400])
@pytest.mark.parametrize("rank", [0, N // 8])
@pytest.mark.parametrize("made", [near_equal, low_rank, partial_(smooth, 2.0), partial_(smooth, 8.0)])
def test_what_is_trusted_is_solved_however_ill_conditioned(made, rank, iterations):
    """The residual is reported as it is; a solve that fell short is doubted, and says by how much."""
    K, T, labels = made()
    exact, y, trusted = K.astype(np.float64), onehot(labels), 0
    for r in (0.0, 1e-7, 1e-5):
        found = by("cg", K, labels, ridge=r, rank=rank, how=How(iterations=iterations), error=0.0)
        mean = exact.diagonal().mean()
        A = exact + (r + found.chosen.jitter) * mean * np.eye(len(K))  # the matrix that was solved
        left = y - A @ found.alpha
        relative = float((np.linalg.norm(left, axis=0) / np.linalg.norm(y, axis=0)).max())
        assert found.facts["relative_residual"] == pytest.approx(relative, rel=0.5, abs=1e-9)
        if found.chosen.doubt is None:
            trusted += 1
            assert relative < 1e-6 and (relative < 1.5e-8 or "rounding leaves" in found.facts["note"])
            direct = ridge.solve(A, labels, classes=10, ridge=0.0, error=0.0)
            assert direct.chosen.jitter == 0 and apart(T @ found.alpha, T @ direct.alpha) < 1e-6
        else:
            told = re.search(
                r"after (\d+) iterations a relative residual of (\S+) is left", found.chosen.doubt
            )
            assert int(told[1]) == iterations and float(told[2]) == pytest.approx(relative, rel=0.1)
            assert relative > 1e-8
    assert trusted or iterations == 40 or made is not near_equal


def test_refined_on_a_gpu(real, fake_cupy):  # noqa: F811
    """The host's code for GPUs, with NumPy in CuPy's place."""
    K, T, labels = real[REAL[1]]
    expected = by("refined", K, labels, ridge=1e-4)
    found = by("refined", K, labels, ridge=1e-4, device="cuda")
    assert type(found.alpha) is np.ndarray and apart(T @ found.alpha, T @ expected.alpha) < 1e-9
    assert found.chosen.loo_error == pytest.approx(expected.chosen.loo_error, rel=1e-5)


@pytest.mark.parametrize("solver", ["cg", "refined"])
def test_the_peak_is_as_predicted(monkeypatch, solver):
    """Only arrays are counted, as tracemalloc sees nothing else."""
    monkeypatch.setattr(cholesky, "BLOCK", 200)
    n, side, labels = 900, 300, np.arange(900) % 10
    by(solver, np.eye(40, dtype=np.float32), labels[:40])  # things that are allocated only once
    tracemalloc.start()
    try:
        K = np.full((n, n), 0.5, np.float32)
        K[np.diag_indices(n)] = 1
        held, before = K, 0
        if solver == "cg":
            before = tracemalloc.get_traced_memory()[0]
            held = Held(K, side)
            iterative.cg(held, labels, classes=10, rank=100, ridge=1e-2)
        else:
            iterative.refined(held, labels, classes=10, ridge=1e-2, overwrite=True)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    if solver == "cg":
        pieces = (4 + 8 * stream.PIECES) * side**2
        place = placement.streamed(n, classes=10, free=0, streaming=pieces)
        predicted = place.host - partial.memory(n, 0) + partial.memory(n, 100)
    else:
        predicted = placement.predict(n, classes=10, device="cpu", dtype="float32", method="refined").host
    arrays = predicted - placement.BLAS_BUFFERS
    assert 0.6 * arrays < peak <= arrays


KILLED = """
import sys
import numpy as np
from cntk_bench.regression import checkpoint, iterative
from cntk_bench.regression.attempts import How
from held import Held
checkpoint.SECONDS = 0.0
K, labels = np.load(sys.argv[1] + "/K.npy"), np.load(sys.argv[1] + "/labels.npy")
file, slowly = __import__("pathlib").Path(sys.argv[1] + "/state.npz"), sys.argv[2] == "slowly"
how = How(file=file, tell=lambda words: slowly and __import__("time").sleep(0.02))
alpha = iterative.cg(Held(K, 64), labels, classes=10, rank=18, how=how).alpha
np.save(sys.argv[1] + "/alpha.npy", alpha)
"""


def test_a_killed_solve_goes_on_to_the_same_bits(real, tmp_path):
    K, _, labels = real[REAL[1]]
    np.save(tmp_path / "K.npy", K)
    np.save(tmp_path / "labels.npy", labels)
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def start(how):
        return subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), how], env=environment)

    assert start("at once").wait() == 0
    whole = np.load(tmp_path / "alpha.npy")
    (tmp_path / "alpha.npy").unlink()

    def state():
        return [file.read_bytes() for file in tmp_path.glob("state-*.npz")]

    kills = 0
    for _ in range(2):
        before, process = state(), start("slowly")
        while process.poll() is None and state() in ([], before):
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    assert kills == 2
    assert start("at once").wait() == 0
    np.testing.assert_array_equal(np.load(tmp_path / "alpha.npy"), whole)
    assert not state() and Path(tmp_path / "K.npy").exists()
