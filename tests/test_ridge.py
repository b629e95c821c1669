"""Kernel regression against dense linear algebra, brute-force refits and scikit-learn."""

import re
import sys
import time
import tracemalloc
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from cntk_bench.errors import UserError
from cntk_bench.regression import cholesky, iterative, loading, placement, prediction, ridge, sensitivity
from cntk_bench.regression import fit as fit_room
from cntk_bench.system import memory


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Matrices are small, so blocks are, too; with 7, the last block is usually smaller."""
    monkeypatch.setattr(cholesky, "BLOCK", 7)


def problem(n=40, m=25, classes=3, seed=0):
    """A Gram matrix of clustered points, by a Laplace kernel: (K, labels, K_test, labels_test)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n + m) % classes
    x = rng.standard_normal((n + m, 4)) + 1.5 * rng.standard_normal((classes, 4))[labels]
    gram = np.exp(-0.3 * np.sqrt(((x[:, None] - x) ** 2).sum(-1)))
    return gram[:n, :n], labels[:n], gram[n:, :n], labels[n:]


def onehot(labels, classes):
    return np.array([[0.9 if c == label else -0.1 for c in range(classes)] for label in labels])


class TestSolve:
    @pytest.mark.parametrize("r", [0.0, 1e-3, 0.5])
    def test_equals_dense_solve(self, r):
        K, y, _, _ = problem()
        K = 5.0 * K  # a mean diagonal other than 1
        expected = np.linalg.solve(K + r * 5.0 * np.eye(len(K)), onehot(y, 3))
        solution = ridge.solve(K, y, classes=3, ridge=r)
        np.testing.assert_allclose(solution.alpha, expected, rtol=1e-9, atol=1e-11)
        assert (solution.chosen.ridge, solution.chosen.jitter, solution.path) == (r, 0, (solution.chosen,))

    def test_predicts_as_scikit_learn(self):
        from sklearn.kernel_ridge import KernelRidge

        K, y, K_test, y_test = problem(60, 200)
        model = KernelRidge(alpha=0.02, kernel="precomputed").fit(K, onehot(y, 3))
        expected = model.predict(K_test).argmax(axis=1)
        # The mean diagonal of K is 1, so ridge and alpha are the same.
        alpha = ridge.solve(K, y, classes=3, ridge=0.02).alpha
        got = prediction.predict(
            alpha, (K_test[i : i + 33].astype(np.float32) for i in range(0, 200, 33))
        ).classes
        np.testing.assert_array_equal(got, expected)
        assert 0.5 < (got == y_test).mean() < 1  # better than chance, but not perfect

    def test_leaves_the_gram_alone_unless_told(self):
        K, y, _, _ = problem()
        kept = K.copy()
        ridge.solve(K, y, classes=3)
        np.testing.assert_array_equal(K, kept)

    def test_reads_one_triangle_and_overwrites(self):
        K, y, _, _ = problem()
        expected = ridge.solve(K, y, classes=3, ridge=[0, 0.1])
        spoilt = K.copy()
        for start in range(0, len(K), cholesky.BLOCK):
            spoilt[start : start + cholesky.BLOCK, start + cholesky.BLOCK :] = 0
        got = ridge.solve(spoilt, y, classes=3, ridge=[0, 0.1], overwrite=True)
        np.testing.assert_array_equal(got.alpha, expected.alpha)
        if len(K) > cholesky.BLOCK:
            assert spoilt[0, -1] != 0  # it was used as workspace

    def test_float32(self):
        K, y, K_test, _ = problem()
        double = ridge.solve(K, y, classes=3)
        single = ridge.solve(K.astype(np.float32), y, classes=3, dtype="float32")
        # Rounding the matrix to float32, by 6e-8 of an entry, remains; refinement removes all other errors.
        error = np.finfo(np.float32).eps * double.chosen.condition
        np.testing.assert_allclose(single.alpha, double.alpha, atol=error * np.abs(double.alpha).max())
        assert single.alpha.dtype == double.alpha.dtype == np.float64
        assert single.chosen.largest_residual <= fit_room.REFINED and single.chosen.doubt is None

    def test_scale_changes_nothing_but_alpha(self):
        K, y, _, _ = problem()
        a = ridge.solve(K, y, classes=3, ridge=[1e-4, 1e-1])
        b = ridge.solve(1000 * K, y, classes=3, ridge=[1e-4, 1e-1])
        np.testing.assert_allclose(1000 * b.alpha, a.alpha, rtol=1e-9, atol=1e-12)
        for p, q in zip(a.path, b.path, strict=True):
            assert (p.ridge, p.jitter, p.loo_accuracy) == (q.ridge, q.jitter, q.loo_accuracy)
            got = [q.loo_error, q.condition, q.smallest_pivot]
            np.testing.assert_allclose(got, [p.loo_error, p.condition, p.smallest_pivot], rtol=1e-8)


class TestLeaveOneOut:
    @pytest.mark.parametrize("r", [0.0, 1e-2, 1.0])
    def test_equals_refitting(self, r):
        K, y, _, _ = problem(30)
        # On an uneven diagonal, where r must not be scaled by each entry.
        K = K * np.outer(w := np.linspace(0.5, 2, 30), w)
        shift = r * np.trace(K) / 30
        Y, held_out = onehot(y, 3), np.empty((30, 3))
        for i in range(30):
            rest = np.delete(np.arange(30), i)
            alpha = np.linalg.solve(K[np.ix_(rest, rest)] + shift * np.eye(29), Y[rest])
            held_out[i] = K[i, rest] @ alpha
        fit = ridge.solve(K, y, classes=3, ridge=r).chosen
        np.testing.assert_allclose(fit.loo_error, ((Y - held_out) ** 2).mean(), rtol=1e-9)
        assert fit.loo_accuracy == (held_out.argmax(1) == y).mean()

    def test_path_equals_separate_solves(self):
        K, y, _, _ = problem()
        values = (1.0, 0.0, 1e-2)
        solution = ridge.solve(K, y, classes=3, ridge=list(values))
        singles = [ridge.solve(K, y, classes=3, ridge=v) for v in values]
        for fit, single in zip(solution.path, singles, strict=True):
            for name in ("ridge", "jitter", "loo_error", "loo_accuracy", "condition", "smallest_pivot"):
                assert getattr(fit, name) == getattr(single.chosen, name)
        best = min(singles, key=lambda s: s.chosen.loo_error)
        np.testing.assert_array_equal(solution.alpha, best.alpha)
        assert solution.chosen in solution.path and solution.chosen.ridge == best.chosen.ridge

    def test_noise_asks_for_a_ridge_and_clean_labels_do_not(self):
        K, y, _, _ = problem(120)
        noisy = np.where(np.random.default_rng(1).random(120) < 0.4, (y + 1) % 3, y)
        assert ridge.solve(K, noisy, classes=3, ridge="loo").chosen.ridge >= 0.1
        two = np.repeat([0, 1], 60)  # two clusters far apart, with a label each
        x = np.linspace(0, 1, 120) + 10 * two
        K = np.exp(-np.abs(x[:, None] - x))
        assert ridge.solve(K, two, classes=2, ridge="loo").chosen.ridge <= 1e-3

    def test_of_equal_errors_the_larger_ridge_wins(self):
        K, y = np.eye(12), np.arange(12) % 2  # nothing can be learnt: every held-out output is 0
        for values in ([0, 3], [3, 0]):  # chosen so that sqrt(1 + r) is exact
            assert ridge.solve(K, y, classes=2, ridge=values).chosen.ridge == 3

    def test_the_grid_goes_on_while_its_largest_ridge_is_the_best(self):
        """With labels that are noise, larger ridges are better."""
        K, _, _, _ = problem(90)
        labels = np.random.default_rng(0).permutation(np.arange(90) % 3)
        solution = ridge.solve(K, labels, classes=3, ridge="loo")
        tried = [fit.ridge for fit in solution.path]
        assert tried[:8] == list(ridge.LOO_RIDGES) and tried[-1] > 1
        assert solution.edge == ("largest" if solution.chosen.ridge == tried[-1] < ridge.LARGEST else None)
        assert solution.chosen.ridge >= 1 and tried[-1] <= ridge.LARGEST
        errors = [fit.loo_error for fit in solution.path]
        assert solution.chosen.loo_error == min(errors)

    @pytest.mark.parametrize(
        ("values", "edge"),
        [([1e-6, 1e-5], "largest"), ([10.0, 20.0], "smallest"), ([0.0, 1e6], None), ([1e-6], None)],
    )
    def test_a_list_whose_end_is_the_best_says_so(self, values, edge):
        """As 40 % of the labels are wrong, the best ridge is about 1."""
        K, y, _, _ = problem(120)
        noisy = np.where(np.random.default_rng(1).random(120) < 0.4, (y + 1) % 3, y)
        assert ridge.solve(K, noisy, classes=3, ridge=values).edge == edge

    def test_where_larger_ridges_change_nothing_none_is_asked_for(self):
        for values, edge in (([1.0, ridge.LARGEST], None), ([1.0, 1e6], None), ([1.0, 1e3], "largest")):
            assert ridge._edge(values[-1], values) == edge

    def test_default_path_starts_at_the_paper(self):
        assert ridge.ridges("loo")[0] == 0 and ridge.ridges(0.5) == (0.5,) and ridge.ridges([1, 1]) == (1,)
        assert ridge.ridges(np.array(0.5)) == (0.5,) and ridge.ridges(np.array([1, 2])) == (1, 2)


class TestDiagnostics:
    @pytest.mark.parametrize("r", [0.0, 0.1])
    @pytest.mark.parametrize("order", [1, -1])
    def test_figures(self, r, order):
        K, y, _, _ = problem()
        K = K * np.outer(w := np.linspace(0.3, 2, 40)[::order], w)  # the smallest pivot comes first, or last
        mean_diagonal = np.trace(K) / 40
        A = K + r * mean_diagonal * np.eye(40)
        fit = ridge.solve(K, y, classes=3, ridge=r).chosen
        condition = np.linalg.cond(A, 1)
        assert condition / 3 <= fit.condition <= condition * (1 + 1e-9)
        pivot = (np.linalg.cholesky(A).diagonal() ** 2).min()
        np.testing.assert_allclose(fit.smallest_pivot, pivot / mean_diagonal, rtol=1e-9)
        assert fit.residual < 1e-12 and fit.seconds > 0

    def test_residual_is_measured(self, monkeypatch):
        K, y, _, _ = problem()
        monkeypatch.setattr(cholesky.Cholesky, "solve", lambda self, b: 2 * np.linalg.solve(K, b))
        np.testing.assert_allclose(ridge.solve(K, y, classes=3).chosen.residual, 1, rtol=1e-9)

    def test_condition_is_repeatable_and_leaves_random_state_alone(self):
        K, y, _, _ = problem()
        before = np.random.get_state()[1].copy()
        a, b = (ridge.solve(K, y, classes=3).chosen.condition for _ in range(2))
        assert a == b
        np.testing.assert_array_equal(np.random.get_state()[1], before)


class TestJitter:
    def duplicated(self):
        """40 images, 5 of which are repeated at the end."""
        K, y, _, _ = problem()
        index = np.r_[0:40, 20:25]
        return K[np.ix_(index, index)], y[index]

    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_duplicated_images(self, dtype):
        K, y = self.duplicated()
        assert np.linalg.matrix_rank(K) == 40
        solution = ridge.solve(K, y, classes=3, dtype=dtype)
        assert 1e-10 <= solution.chosen.jitter <= (1e-9 if dtype == "float64" else 1e-4)
        fitted = K @ solution.alpha
        assert (fitted.argmax(axis=1) == y).all()
        A = K + solution.chosen.jitter * np.eye(45)
        if dtype == "float64":
            residual = np.linalg.norm(A @ solution.alpha - onehot(y, 3)) / np.linalg.norm(onehot(y, 3))
            assert residual < 1e-5 and solution.chosen.condition > 1e8

    def test_leave_one_out_tends_to_the_projector_formula(self):
        K, y = self.duplicated()
        y = y.copy()
        y[40:] = (y[40:] + 1) % 3  # copies contradict originals: when one is left out, the other decides
        values, vectors = np.linalg.eigh(K)
        null = values < 1e-12 * values.max()
        P, Y = vectors[:, null] @ vectors[:, null].T, onehot(y, 3)
        inverse = (vectors[:, ~null] / values[~null]) @ vectors[:, ~null].T
        singular = P.diagonal() > 1e-6
        assert set(np.flatnonzero(singular)) == {*range(20, 25), *range(40, 45)}
        left_out = np.where(
            singular[:, None],
            (P @ Y) / np.where(singular, P.diagonal(), 1)[:, None],
            (inverse @ Y) / inverse.diagonal()[:, None],
        )
        fit = ridge.solve(K, y, classes=3).chosen
        np.testing.assert_allclose(fit.loo_error, (left_out**2).mean(), rtol=1e-5)
        assert fit.loo_accuracy == ((Y - left_out).argmax(axis=1) == y).mean()

    def test_is_the_least_that_suffices(self):
        K, y, _, _ = problem()
        values, vectors = np.linalg.eigh(K)
        values[0] = -3e-7
        K = (vectors * values) @ vectors.T
        fit = ridge.solve(K, y, classes=3).chosen
        np.testing.assert_allclose(fit.jitter, 1e-6)
        assert ridge.solve(K, y, classes=3, ridge=1e-3).chosen.jitter == 0

    def test_a_pivot_of_rounding_size_is_not_taken_for_one(self):
        K = np.eye(30)
        K[20, 3] = K[3, 20] = 1 - 2.0**-51  # image 20 has the pivot 2**-50, positive but only noise
        assert ridge.solve(K, np.arange(30) % 2, classes=2, error=0.0).chosen.jitter == 1e-10

    @pytest.mark.parametrize("brightness", [1e-3, 1, 30, 1e3])
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_equal_images_that_contradict_each_other_count_as_one(self, dtype, brightness):
        """At any brightness: as the jitter goes to 0, equal images act as a single one whose target is the
        mean of theirs."""
        for seed in range(6):
            K, y, K_test, _ = problem(60, seed=seed)
            scale = np.ones(60)
            scale[7] = brightness
            K, K_test = K * np.outer(scale, scale), K_test * scale
            index = np.r_[0:60, [7] * (1 + seed % 3)]
            labels = np.r_[y, (y[7] + 1) % 3, np.full(seed % 3, (y[7] + 2) % 3)]
            solution = ridge.solve(K[np.ix_(index, index)], labels, classes=3, dtype=dtype)
            Y = onehot(labels, 3)
            mean = Y[:60].copy()
            mean[7] = Y[index == 7].mean(0)
            limit = K_test @ np.linalg.solve(K, mean)
            # To first order, what is added to the diagonal, s, moves the scores by K_test K^-1 s K^-1 Y.
            moved = K_test @ np.linalg.solve(K, np.linalg.solve(K, mean))
            shift = solution.chosen.jitter * K.diagonal()[index].mean() * np.abs(moved).max()
            assert prediction.predict(solution.alpha, [K_test[:, index]]).undecided <= 1
            together = prediction._together(solution.alpha, K_test[:, index])
            error = np.abs(K_test[:, index] @ together - limit).max()
            assert solution.chosen.doubt is None and solution.chosen.largest_residual <= fit_room.RESIDUAL
            rounding = np.finfo(float).eps * np.abs(solution.alpha).max() * np.abs(K_test[:, 7]).max()
            assert error <= 3 * shift + 2 * rounding + 1e-7

    @pytest.mark.parametrize("value", [0.0, 1e-9])
    def test_targets_that_cannot_be_fitted_are_fitted_by_least_squares(self, value):
        """The limit of the ridge to 0, however different the images' own entries are."""
        rng = np.random.default_rng(0)
        A, B = rng.standard_normal((30, 8)), rng.standard_normal((10, 8))
        A *= rng.uniform(0.1, 2, (30, 1))
        labels = np.arange(30) % 3
        solution = ridge.solve(A @ A.T, labels, classes=3, ridge=value, error=0.0)
        expected = B @ np.linalg.lstsq(A, onehot(labels, 3), rcond=None)[0]
        assert solution.chosen.jitter <= 1e-8 and solution.chosen.doubt is None
        np.testing.assert_allclose(B @ A.T @ solution.alpha, expected, atol=1e-4)

    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_a_solution_is_doubted_exactly_if_its_residual_is_large(self, dtype, monkeypatch):
        """Equal images of two classes, too little jitter: solved well, or doubted for the residual."""
        K, y, _, _ = problem(60)
        index = np.r_[0:60, 7]
        labels = np.r_[y, (y[7] + 1) % 3]
        monkeypatch.setattr(fit_room, "JITTERS", (1e-13,) if dtype == "float64" else (5e-7,))
        monkeypatch.setattr(cholesky, "_factor_block", lambda a, own, tolerance: np.linalg.cholesky(
            a + np.diag(8 * np.finfo(a.dtype).eps * own).astype(a.dtype)).T.copy())  # fmt: skip
        solution = ridge.solve(K[np.ix_(index, index)], labels, classes=3, dtype=dtype)
        if dtype == "float32" or solution.chosen.doubt is not None:
            assert solution.chosen.largest_residual > fit_room.RESIDUAL
            assert "raise solve.ridge" in solution.chosen.doubt
        else:
            assert solution.chosen.largest_residual <= fit_room.RESIDUAL

    def test_a_doubtful_fit_is_chosen_only_if_all_are(self, monkeypatch):
        K, y, _, _ = problem()
        fit = ridge.fit

        def doubtful(matrix, y, labels, value, **rest):
            alpha, found = fit(matrix, y, labels, value, **rest)
            if value < 0.5:
                found = replace(found, doubt="not solved", loo_error=-1.0 if value else float("nan"))
            return alpha, found

        monkeypatch.setattr(ridge, "fit", doubtful)
        assert ridge.solve(K, y, classes=3, ridge=[0.1, 0.5]).chosen.ridge == 0.5
        assert ridge.solve(K, y, classes=3, ridge=[0.0, 0.1]).chosen.ridge == 0.1

    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_an_uneven_diagonal_alone_asks_for_no_jitter(self, dtype):
        """D K D is as regular as K for any diagonal D: different brightness is no reason to doubt a pivot."""
        K, y, _, _ = problem()
        scale = np.logspace(-6, 6, 40)
        chosen = ridge.solve(K * np.outer(scale, scale), y, classes=3, dtype=dtype, error=0.0).chosen
        assert chosen.jitter == 0

    def test_a_black_image_has_no_share(self):
        """Its row is zero: it makes the matrix singular, but adds nothing to any score."""
        K, y, K_test, _ = problem()
        black = np.zeros((41, 41))
        black[:40, :40] = K
        solution = ridge.solve(black, np.r_[y, 0], classes=3)
        scores = np.c_[K_test, np.zeros(len(K_test))] @ solution.alpha
        np.testing.assert_allclose(scores, K_test @ np.linalg.solve(K, onehot(y, 3)), atol=1e-6)
        assert solution.chosen.jitter == 1e-10 and solution.chosen.doubt is None

    @pytest.mark.parametrize("j", [3, 18], ids=["across blocks", "within a block"])
    def test_indefinite_is_refused_with_its_pivot(self, j):
        K = np.eye(30)
        K[20, j] = K[j, 20] = 1.5  # the Schur complement of image j is 1 - 2.25 at image 20
        with pytest.raises(UserError, match=r"not positive definite.* pivot is -1\.2.*no kernel's"):
            ridge.solve(K, np.arange(30) % 2, classes=2)
        assert ridge.solve(K, np.arange(30) % 2, classes=2, ridge=0.6).chosen.jitter == 0

    def test_a_ridge_is_named_only_where_it_lifts_the_pivot(self):
        """The Schur complement of image 3 is 1 - s^2 at image 20, and rises by twice what is added, about."""
        for below in (5e-4, 0.05):
            K, y = np.eye(30), np.arange(30) % 2
            K[20, 3] = K[3, 20] = 1 + below
            with pytest.raises(UserError) as refused:
                ridge.solve(K, y, classes=2)
            named = re.search("raise solve.ridge to ([^ ]+)$", str(refused.value))
            assert bool(named) == (below < 1e-3) != ("no kernel's" in str(refused.value))
            if named:
                assert ridge.solve(K, y, classes=2, ridge=float(named[1])).chosen.ridge == 0.001

    @pytest.mark.parametrize("i, j", [(0, 0), (20, 3), (29, 29)])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_nan_is_told_apart(self, value, i, j):
        K = np.eye(30)
        K[i, j] = K[j, i] = value
        with pytest.raises(UserError, match=rf"NaN or infinity \(first in row {min(i, j)}\)"):
            ridge.solve(K, np.arange(30) % 2, classes=2)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(gram=np.ones((3, 4))), r"shape \(3, 4\)"),
        (dict(gram=np.zeros((4, 4))), "mean diagonal 0"),
        (dict(gram=np.ones((1, 1)), labels=[0]), r"shape \(1, 1\)"),
        (dict(labels=[0, 1, 2]), "4 integers"),
        (dict(labels=[0.0, 1.0, 0.0, 1.0]), "float64"),
        (dict(labels=[0, 1, 2, 3]), r"label 3 is outside 0 \.\. 2"),
        (dict(labels=[0, 1, -1, 2]), "label -1"),
        (dict(classes=1), "1 classes"),
        (dict(ridge=-0.1), "ridge -0.1"),
        (dict(ridge=[0, float("nan")]), "ridge nan"),
        (dict(ridge=True), "ridge True"),
        (dict(ridge=[]), "empty"),
        (dict(ridge="cv"), "ridge cv is unknown: use a number, a list of numbers or 'loo'"),
    ],
)
def test_bad_input(change, message):
    arguments = dict(gram=np.eye(4), labels=[0, 1, 2, 0], classes=3, ridge=0.0) | change
    with pytest.raises(UserError, match=message) as caught:
        ridge.solve(arguments.pop("gram"), np.array(arguments.pop("labels")), **arguments)
    assert "\n" not in str(caught.value)


def test_images_that_rounding_alone_decides_are_counted():
    """Two almost equal images of different classes: coefficients of 1e7 and -1e7 amplify float32 rounding."""
    rng = np.random.default_rng(0)
    blocks = rng.random((200, 3)).astype(np.float32)
    plain = np.array([[1.0, 0.0], [0.0, 1.0], [0.3, 0.1]])
    found = prediction.predict(plain, [blocks])
    assert found.undecided <= 1 and (found.classes == (blocks @ plain).argmax(1)).all()
    blocks[:, 1] = np.nextafter(blocks[:, 0], np.float32(2))
    large = np.array([[1e7, 0.0], [-1e7, 0.0], [0.0, 0.5]])
    assert prediction.predict(large, [blocks[:150], blocks[150:]]).undecided > 100
    # The same image: its kernels have the same errors, and its coefficients cancel.
    blocks[:, 1] = blocks[:, 0]
    equal = prediction.predict(large, [blocks[:150], blocks[150:]])
    assert equal.undecided == 0 and (equal.classes == 1).all()
    wide = rng.random((200, 3))
    disturbed = wide * (1 + 2.0**-24 * rng.uniform(-1, 1, wide.shape))  # rounding errors like float32's
    changed = prediction.predict(large, [wide]).classes != prediction.predict(large, [disturbed]).classes
    assert changed.sum() <= prediction.predict(large, [wide]).undecided + 1


@pytest.mark.filterwarnings("error")
def test_scores_of_kernels_near_the_ends_of_float64():
    """The result is right but undecided, as its errors are unknown; or it is told to be out of range."""
    block, alpha = np.array([[1.0, 2.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = prediction.predict(alpha * 1e-300, [block * 1e300])
    assert found.classes == [0] and found.undecided == 1
    assert prediction.predict(alpha, [block]).undecided == 0
    with pytest.raises(UserError, match="scores leave float64's range"):
        prediction.predict(alpha / np.finfo(float).tiny, [block * 1e10])


def test_predict_refuses_nan():
    with pytest.raises(UserError, match="test Gram matrix holds NaN"):
        prediction.predict(np.ones((2, 3)), [np.ones((4, 2)), np.array([[1, np.nan]])])


class TestMemory:
    @pytest.mark.parametrize("dtype, n", [("float64", 600), ("float32", 600)])
    def test_peak_is_as_predicted(self, dtype, n, monkeypatch):
        monkeypatch.setattr(cholesky, "BLOCK", 200)
        labels = np.arange(n) % 10
        ridge.solve(np.eye(10), labels[:10], classes=10, dtype=dtype)  # things that are allocated only once
        tracemalloc.start()
        try:
            gram = np.full((n, n), 0.5, dtype)
            gram[np.diag_indices(n)] = 1
            ridge.solve(gram, labels, classes=10, ridge=[0, 1e-2], dtype=dtype, overwrite=True)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        predicted = placement.predict(n, classes=10, device="cpu", dtype=dtype)
        arrays = predicted.host - placement.BLAS_BUFFERS  # tracemalloc sees only arrays
        assert 0.75 * arrays < peak <= arrays and predicted.gpu == 0

    def test_the_paper_fits_where_it_should(self, monkeypatch):
        monkeypatch.setattr(cholesky, "BLOCK", 512)
        host = placement.predict(50_000, classes=10, device="cpu", dtype="float64").host
        gpu = placement.predict(50_000, classes=10, device="cuda", dtype="float64").gpu
        assert 20e9 < host < 22e9 and 20e9 < gpu < 24 * memory.GIB

    def test_places(self, monkeypatch):
        monkeypatch.setattr(cholesky, "BLOCK", 512)
        free = {"cpu": 10 * memory.GIB, "cuda": 24 * memory.GIB}

        def available(device="cpu"):
            if free[device] == 0:
                raise UserError("no GPU")
            return free[device]

        monkeypatch.setattr(memory, "available", available)

        def where(n, **chosen):
            p = placement.choose(n, classes=10, **chosen)
            return p.device, p.dtype

        assert where(1000) == ("cuda", "float64")
        assert where(1000, device="cpu") == ("cpu", "float64")
        assert where(45_000) == ("cuda", "float64")  # needs 16 GiB on the GPU and 8 on the host
        assert where(45_000, device="cpu") == ("cpu", "float32")
        free["cuda"] = 9 * memory.GIB
        assert where(31_000) == ("cuda", "float64") and where(34_000) == ("cpu", "float64")
        free["cuda"] = 0
        assert where(1000) == ("cpu", "float64")
        with pytest.raises(UserError, match="no GPU"):
            where(1000, device="cuda")
        with pytest.raises(
            UserError, match=r"100000 .* float32 needs 3\d\.\d GiB and this machine has 10\.0"
        ):
            where(100_000)
        with pytest.raises(UserError, match=r"45000 .* float64 needs 1\d\.\d GiB .*, float32 or more memory"):
            where(45_000, dtype="float64")
        with pytest.raises(UserError, match="'gpu' is unknown"):
            where(10, device="gpu")
        with pytest.raises(UserError, match="'half' is unknown"):
            where(10, dtype="half")

    def test_free_memory_of_this_machine(self, monkeypatch):
        """At most what the machine has, or what a control group has left."""
        import os

        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert 2**20 < memory.available() <= installed
        monkeypatch.setattr(memory, "_groups", lambda *_: [12345, 2**60])
        assert memory.available() == 12345

    def test_control_groups(self, tmp_path):
        membership = tmp_path / "membership"
        for folder, names, numbers in [
            ("user/job", ("memory.max", "memory.current"), ("max", 5)),
            ("user", ("memory.max", "memory.current"), (1000, 700)),
            ("memory/job", ("memory.limit_in_bytes", "memory.usage_in_bytes"), (900, 850)),
        ]:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            for name, number in zip(names, numbers, strict=True):
                (tmp_path / folder / name).write_text(f"{number}\n")
            (tmp_path / folder / "memory.stat").write_text("anon 7\nactive_file 30\ninactive_file 50\n")
        membership.write_text("9:name=systemd:/\n4:cpu,memory:/job\n0::/user/job\n")
        assert sorted(memory._groups(tmp_path, membership)) == [130, 380]
        assert memory._groups(tmp_path, tmp_path / "absent") == []


class DeviceArray(np.ndarray):
    """An array that refuses to meet a host array, as CuPy's do."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        for a in (*inputs, *out):
            if isinstance(a, np.ndarray) and not isinstance(a, DeviceArray):
                raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        inputs = [np.asarray(a) if isinstance(a, np.ndarray) else a for a in inputs]
        if out:
            kwargs["out"] = tuple(np.asarray(a) for a in out)
        result = getattr(ufunc, method)(*inputs, **kwargs)
        return out[0] if out else np.asarray(result).view(DeviceArray)

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray) and not isinstance(value, DeviceArray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        super().__setitem__(key, value)


@pytest.fixture
def fake_cupy(monkeypatch):
    """CuPy's functions on DeviceArray, so that the GPU path's host code runs without a GPU."""
    from scipy.linalg import solve_triangular

    def on_device(make):
        return lambda *args, **kwargs: make(*args, **kwargs).view(DeviceArray)

    def solve(a, b, trans=0):
        assert isinstance(a, DeviceArray) and isinstance(b, DeviceArray)
        return solve_triangular(np.asarray(a), np.asarray(b), trans=trans).view(DeviceArray)

    cupy = ModuleType("cupy")
    for name in ("array", "asarray", "empty", "zeros", "eye", "tril"):
        setattr(cupy, name, on_device(getattr(np, name)))
    cupy.asnumpy = lambda a: np.array(a)
    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=lambda: None)
    cupy.cuda = SimpleNamespace(
        is_available=lambda: True,
        runtime=SimpleNamespace(memGetInfo=lambda: (2 * memory.GIB, 3 * memory.GIB)),
    )
    linalg = ModuleType("cupyx.scipy.linalg")
    linalg.solve_triangular = solve
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupyx.scipy.linalg", linalg)


class TestGpuHostCode:
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_equals_cpu(self, fake_cupy, dtype):
        K, y, _, _ = problem()
        K = K.astype(np.float32)
        cpu = ridge.solve(K, y, classes=3, ridge="loo", dtype=dtype)
        gpu = ridge.solve(K, y, classes=3, ridge="loo", dtype=dtype, device="cuda")
        assert type(gpu.alpha) is np.ndarray and gpu.alpha.dtype == np.float64
        scale = np.abs(cpu.alpha).max()
        np.testing.assert_allclose(gpu.alpha, cpu.alpha, atol=1e-8 * scale)
        assert gpu.chosen.ridge == cpu.chosen.ridge and len(gpu.path) == 8

    def test_free_memory(self, fake_cupy):
        assert memory.available("cuda") == 2 * memory.GIB
        assert placement.choose(5000, classes=10).device == "cuda"


BROKEN = {
    "an old driver": RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient"),
    "anything": OSError("libcuda.so.1:\x1b[31m file too short"),
    "no words": RuntimeError(),
}


@pytest.mark.parametrize("error", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("where", ["is_available", "memGetInfo"])
def test_a_broken_gpu_is_no_gpu(fake_cupy, monkeypatch, error, where):
    """With a broken GPU, "auto" takes the CPU, and "cuda" reports CuPy's error in one line."""

    def fail():
        raise error

    cuda = sys.modules["cupy"].cuda
    monkeypatch.setattr(*((cuda, where) if where == "is_available" else (cuda.runtime, where)), fail)
    assert placement.choose(100, classes=10).device == "cpu"
    with pytest.raises(UserError) as caught:
        placement.choose(100, classes=10, device="cuda")
    text = str(caught.value)
    assert "does not work" in text and "use 'cpu'" in text and text.isprintable()
    assert (str(error).split(":")[0] or "RuntimeError") in text


def test_a_gpu_that_fails_in_the_solve(fake_cupy, monkeypatch):
    K, y, _, _ = problem()

    def fail(*_, **__):
        raise MemoryError("out of memory allocating 20,000,000,000 bytes")

    monkeypatch.setattr(sys.modules["cupy"], "empty", fail)
    with pytest.raises(UserError, match="GPU failed in the solve .out of memory.*--set solve.device=cpu"):
        ridge.solve(K, y, classes=3, device="cuda")


def test_missing_gpu_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(UserError, match="needs CuPy .*pip install 'cntk-bench"):
        memory.available("cuda")
    absent = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "cupy", absent)
    with pytest.raises(UserError, match="needs an NVIDIA GPU"):
        memory.available("cuda")


def test_the_memory_that_the_user_says_there_is(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device="cpu": 2**30)
    with pytest.raises(UserError, match="solve.memory"):
        placement.choose(20_000, classes=10, device="cpu", dtype="float64")
    assert placement.choose(20_000, classes=10, device="cpu", dtype="float64", limit=4).dtype == "float64"
    assert placement.choose(20_000, classes=10, device="cpu", limit=2).dtype == "float32"


class TestWithoutLeaveOneOut:
    """With one ridge, leave-one-out figures can be skipped if nobody wants them."""

    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    @pytest.mark.parametrize("solver", [ridge.solve, iterative.refined])
    def test_all_else_is_the_same(self, solver, dtype, monkeypatch):
        K, y, _, _ = problem()
        kinds = {"classes": 3, "ridge": 1e-3} | ({"dtype": dtype} if solver is ridge.solve else {})
        usual = solver(K, y, **kinds)
        monkeypatch.setattr(cholesky.Cholesky, "inverse_diagonal", None)  # would take n^3 / 3 operations
        found = solver(K, y, **kinds, leave_one_out=False)
        np.testing.assert_array_equal(found.alpha, usual.alpha)
        assert np.isnan([found.chosen.loo_error, found.chosen.loo_accuracy]).all()
        same = {"loo_error": 0.0, "loo_accuracy": 0.0, "condition": 0.0, "seconds": 0.0}
        assert replace(found.chosen, **same) == replace(usual.chosen, **same)
        assert found.chosen.doubt is None and np.isfinite(usual.chosen.loo_error)

    @pytest.mark.parametrize("seed", range(5))
    def test_the_condition_is_still_a_bound_within_a_third(self, seed):
        """For nearly singular matrices with any null vector, against the inverse."""
        rng = np.random.default_rng(seed)
        n = 40
        null = rng.standard_normal(n) * (rng.random(n) < 0.3)
        Q, _ = np.linalg.qr(np.column_stack([null, rng.standard_normal((n, n - 1))]))
        K = Q @ np.diag(np.r_[1e-7, rng.uniform(0.5, 2, n - 1)]) @ Q.T
        K = (K + K.T) / 2
        found = ridge.solve(K, np.arange(n) % 2, classes=2, leave_one_out=False, error=0.0).chosen
        truth = np.linalg.cond(K, 1)
        assert found.jitter == 0 and truth / 3 <= found.condition <= truth * (1 + 1e-6)

    @pytest.mark.parametrize("value", [[0.1, 1.0], "loo"])
    def test_several_ridges_are_chosen_by_it_all_the_same(self, value):
        K, y, _, _ = problem()
        one = ridge.solve(K, y, classes=3, ridge=value)
        other = ridge.solve(K, y, classes=3, ridge=value, leave_one_out=False)
        assert replace(one.chosen, seconds=0) == replace(other.chosen, seconds=0)


@pytest.mark.parametrize("deep", [1, 2, 8])
@pytest.mark.parametrize("n", [6, 7, 30, 61])
def test_however_deep_products_are_the_factor_is_the_same(monkeypatch, n, deep):
    """In blocks of 7: solutions, inverse diagonals and pivots against NumPy's."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, n))
    matrix = x @ x.T + n * np.eye(n)
    device = replace(cholesky.Device.named("cpu"), deep=deep)
    factor = cholesky.Cholesky(matrix.copy(), device)
    factor.factor(np.ones(n), 1e-9)
    inverse = np.linalg.inv(matrix + np.eye(n))
    b = rng.standard_normal((n, 3))
    np.testing.assert_allclose(factor.solve(b), inverse @ b, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(factor.inverse_diagonal(), inverse.diagonal(), rtol=1e-10)
    pivots = np.linalg.cholesky(matrix + np.eye(n)).diagonal() ** 2
    np.testing.assert_allclose(factor.pivots(), pivots, rtol=1e-10)


class TestPivots:
    """The factor's own account of pivots, against the textbook recursion."""

    A = np.array([[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 9.0]])  # with pivots 4, 0, 9

    def factored(self, matrix, shift, tolerance):
        factor = cholesky.Cholesky(np.array(matrix, np.float64), cholesky.Device.named("cpu"))
        return factor.factor(np.array(shift, np.float64), tolerance)

    @pytest.mark.parametrize("block", [1, 2, 3])
    @pytest.mark.parametrize(
        ("entry", "pivot"),
        [
            (0.5, -0.5 / 0.5),  # LAPACK stops here: 0.5 - 2^2 / 4 = -0.5, relative to 0.5
            (1.0 + 2**-10, 2.0**-10 / (1 + 2**-10)),  # LAPACK goes on, but this pivot is only rounding
        ],
    )
    def test_a_failing_pivot_is_told_relative_to_its_own_entry(self, monkeypatch, block, entry, pivot):
        monkeypatch.setattr(cholesky, "BLOCK", block)
        matrix = self.A.copy()
        matrix[1, 1] = entry
        with pytest.raises(cholesky.NotPositiveDefinite) as found:
            self.factored(matrix, np.zeros(3), 2.0**-9)
        assert found.value.pivot == pytest.approx(pivot, rel=1e-9)

    @pytest.mark.parametrize("first", [-4.0, 0.0])
    def test_the_first_pivot_may_fail(self, first):
        matrix = np.diag([first, 1.0, 1.0])
        with pytest.raises(cholesky.NotPositiveDefinite) as found:
            self.factored(matrix, np.zeros(3), 1e-9)
        assert found.value.pivot == first

    def test_the_tolerance_is_of_the_shifted_entry(self):
        """Pivots: 4 + 4 = 8; then 1 + s - 4 / 8, compared with its entry 1 + s; and 9."""
        for s in (0.0, 1.0, 7.0):
            share = (1 + s - 0.5) / (1 + s)
            assert self.factored(self.A, [4, s, 0], share * 0.999) == pytest.approx(min(0.5 + s, 8))
            with pytest.raises(cholesky.NotPositiveDefinite):
                self.factored(self.A, [4, s, 0], share * 1.001)

    def test_a_pivot_at_the_tolerance_itself_is_rounding(self):
        with pytest.raises(cholesky.NotPositiveDefinite):
            self.factored(np.eye(3), np.zeros(3), 1.0)

    @pytest.mark.parametrize("n", [5, 7, 20])
    def test_row_sums_and_products_read_the_lower_triangle(self, n):
        matrix = np.random.default_rng(n).standard_normal((n, n))
        whole = np.tril(matrix) + np.tril(matrix, -1).T
        spoilt = np.where(np.triu(np.ones((n, n)), 1) > 0, np.nan, matrix)
        for i in range(0, n, cholesky.BLOCK):  # even within blocks on the diagonal
            assert np.isnan(spoilt[i, i + 1 : i + 2]).all()
        factor = cholesky.Cholesky(spoilt, cholesky.Device.named("cpu"))
        np.testing.assert_allclose(factor.absolute_row_sums(), abs(whole).sum(1), rtol=1e-12)
        b = np.random.default_rng(0).standard_normal((n, 2))
        np.testing.assert_allclose(factor.times(b), whole @ b, rtol=1e-10, atol=1e-12)


class TestEndsOfTheRange:
    """Kernels near the ends of float32's range are solved like others."""

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("scale", [2.0**-120, 2.0**-50, 2.0**100])
    def test_a_power_of_two_changes_nothing_but_alpha(self, scale, dtype):
        K, y, K_test, _ = problem()
        kinds = {"classes": 3, "ridge": [0, 1e-4, 1e-2], "dtype": dtype}
        usual = ridge.solve(K.astype(np.float32), y, **kinds)
        extreme = ridge.solve((K * scale).astype(np.float32), y, **kinds)
        assert replace(usual.chosen, seconds=0) == replace(extreme.chosen, seconds=0)
        np.testing.assert_array_equal(extreme.alpha * scale, usual.alpha)
        found = [
            prediction.predict(one.alpha, [(K_test * s).astype(np.float32)])
            for one, s in ((usual, 1.0), (extreme, scale))
        ]
        np.testing.assert_array_equal(found[0].classes, found[1].classes)

    def test_left_out_residuals_that_are_not_finite_are_a_doubt(self, monkeypatch):
        K, y, _, _ = problem()
        monkeypatch.setattr(
            cholesky.Cholesky, "inverse_diagonal", lambda self: np.where(np.arange(len(K)) == 3, np.nan, 1.0)
        )
        assert "not finite" in ridge.solve(K, y, classes=3).chosen.doubt


class TestRounding:
    """Where only rounding decides, there is a tie, or an image is undecided."""

    def test_a_class_that_the_residual_could_change_is_undecided(self):
        alpha, row = np.array([[1.0, 1.0 - 1e-5], [0.0, 0.0]]), np.array([[1.0, 0.5]])
        assert prediction.predict(alpha, [row]).undecided == 0
        assert prediction.predict(alpha, [row], residual=1e-4).undecided == 1
        assert prediction.predict(alpha, [row], residual=0.6e-5).undecided == 1  # it moves both scores
        assert prediction.predict(alpha, [row], residual=0.4e-5).undecided == 0

    def test_left_out_scores_that_differ_by_rounding_are_a_tie(self):
        y = np.array([[0.9, -0.1, -0.1]] * 3)
        rounding = np.array([[0, 1e-17, 2e-17], [1e-17, 0, 0], [0, 0, 1e-9]])
        assert list(fit_room._classes(y, y - rounding)) == [0, 0, 2]

    def test_black_images_left_out_get_the_first_class(self):
        """Nothing is known about them: every score is exactly 0."""
        K, y, _, _ = problem(30)
        black = np.arange(30) >= 20
        K = K * ~black[:, None] * ~black
        fit = ridge.solve(K, y, classes=3, ridge=0.1).chosen
        others = ridge.solve(K[:20, :20], y[:20], classes=3, ridge=0.1 * 20 / 30).chosen
        right = others.loo_accuracy * 20 + (y[20:] == 0).sum()
        assert fit.loo_accuracy == pytest.approx(right / 30)

    def test_a_ridge_that_cannot_be_solved_costs_only_itself(self):
        K, y, _, _ = problem()
        K[np.diag_indices(len(K))] = 0.5  # not positive definite without a ridge
        solution = ridge.solve(K, y, classes=3, ridge=[0.0, 10.0])
        assert [fit.ridge for fit in solution.path] == [10.0] and solution.chosen.doubt is None
        with pytest.raises(UserError, match="not positive definite"):
            ridge.solve(K, y, classes=3, ridge=[0.0])

    @pytest.mark.parametrize("value", [1e308, [0, 1e16]])
    def test_a_ridge_beyond_sense_is_refused(self, value):
        K, y, _, _ = problem()
        with pytest.raises(UserError, match="use numbers from 0 to 1e.15"):
            ridge.solve(K, y, classes=3, ridge=value)


class TestSmallThings:
    """Details that mutation testing showed to be checked by no other test."""

    def test_the_remedy_is_ten_times_what_was_tried(self):
        K = np.eye(4)
        K[0, 1] = K[1, 0] = 1.005  # with the ridge below, a pivot of 1.0011 - 1.005^2 / 1.0011
        with pytest.raises(
            UserError, match=r"with ridge 0.001 and jitter 0.0001 .* raise solve.ridge to 0.011$"
        ):
            ridge.solve(K, np.arange(4) % 2, classes=2, ridge=1e-3)

    @pytest.mark.parametrize("r", [3.0, 30.0])
    def test_the_condition_of_a_large_ridge(self, r):
        K, y, _, _ = problem()
        condition = np.linalg.cond(K + r * np.eye(40), 1)
        assert (
            condition / 3 <= ridge.solve(K, y, classes=3, ridge=r).chosen.condition <= condition * (1 + 1e-9)
        )

    def test_a_gram_is_loaded_row_block_by_row_block(self):
        gram = np.random.default_rng(0).random((20, 20), np.float32)
        device = SimpleNamespace(empty=np.zeros, asarray=np.asarray)
        loaded = loading._load(gram, device, np.dtype("float64"), False)
        assert loaded.dtype == np.float64 and (loaded == gram).all()

    def test_images_that_are_equal_to_some_test_images_only_are_two(self):
        """Columns that agree in the first rows but differ in a later one are two different images."""
        block = np.ones((6, 3))
        block[5, 1] = 0.5
        alpha = np.array([[2.0, 0.0], [-1.0, 0.5], [0.25, 0.0]])
        together = prediction._together(alpha, block)
        np.testing.assert_array_equal(together, [[2.25, 0.0], [-1.0, 0.5], [0.0, 0.0]])
        np.testing.assert_allclose(block @ together, block @ alpha)

    @pytest.mark.parametrize(("share", "undecided"), [(0.9, 1), (1.1, 0)])
    def test_an_image_is_undecided_where_its_margin_is_below_the_noise(self, share, undecided):
        """A score has the noise KERNEL_ERROR sqrt(sum (K alpha)^2); a margin has that of both scores, where
        these come from different training images."""
        block = np.array([[3.0, 4.0]])
        scores = np.array([12.0, 12.0 * (1 - share * np.sqrt(2) * sensitivity.KERNEL_ERROR)])
        # With single products as scores, the noise is KERNEL_ERROR times the score.
        alpha = np.diag(scores / block[0])
        assert prediction.predict(alpha, [block]).undecided == undecided

    @pytest.mark.parametrize("alike", [0.95, 0.0, -0.95])
    def test_the_deviation_of_a_margin_is_that_of_kernels_with_errors(self, alike):
        """Monte Carlo: the errors of a test image's kernels are the same in the scores of all classes."""
        rng, error, n = np.random.default_rng(0), 1e-6, 30
        first, other = rng.standard_normal((2, n))
        alpha = np.stack([first + 1, alike * first + (1 - alike**2) ** 0.5 * other + 1, np.zeros(n)], axis=1)
        block = rng.random((8, n))
        scores, together = prediction.scored(alpha, block)
        margin, deviation = prediction.margins(scores, together, block, error)
        assert (scores.argmin(axis=1) == 2).all()
        np.testing.assert_array_equal(margin, np.abs(scores[:, 0] - scores[:, 1]))
        disturbed = block * (1 + error * rng.standard_normal((4000, *block.shape))) @ alpha
        measured = (disturbed[..., 0] - disturbed[..., 1]).std(axis=0)
        np.testing.assert_allclose(deviation, measured, rtol=5 / 8000**0.5)
        np.testing.assert_array_equal(
            prediction.unsure(scores, together, block, error=1e5 * error), margin < 1e5 * deviation
        )

    def test_residuals_that_show_in_scores_are_a_doubt(self):
        assert "residuals of up to 0.01" in fit_room.untrusted(0.01, 0.0)
        assert fit_room.untrusted(1e-4, 0.0) is None and fit_room.untrusted(np.nan, 0.0)

    def test_the_grid_grows_by_tens(self):
        K, _, _, _ = problem(90)
        labels = np.random.default_rng(0).permutation(np.arange(90) % 3)
        tried = [fit.ridge for fit in ridge.solve(K, labels, classes=3, ridge="loo").path]
        assert tried[8:] == [10.0 * 10**k for k in range(len(tried) - 8)]

    def test_the_seconds_are_those_of_the_fit(self):
        started = time.perf_counter()
        fit = ridge.solve(*problem()[:2], classes=3).chosen
        assert 0 < fit.seconds <= time.perf_counter() - started

    @pytest.mark.parametrize(
        ("device", "free", "room"), [("cuda", 500, True), ("cuda", 499, False), ("cpu", 10**9, False)]
    )
    def test_the_next_matrix_is_read_ahead_where_there_is_room(self, monkeypatch, device, free, room):
        monkeypatch.setattr(memory, "available", lambda *_: free)
        place = placement.Place(device, "float32", host=100, gpu=0)
        assert placement.room_ahead(place, 10) is room  # 4 bytes for each of 100 entries
        asked = free / placement.GIB  # an explicit limit is believed, whatever is free
        monkeypatch.setattr(memory, "available", lambda *_: 0)
        assert placement.room_ahead(place, 10, asked) is room

    def test_memory_on_a_gpu_is_that_of_the_arrays(self):
        """The matrix, panels of n x BLOCK (6 in float64, 10 in float32) and 8 arrays of n x k."""
        n, k, block = 3000, 10, cholesky.BLOCK
        for dtype, size, panels in (("float64", 8, 6), ("float32", 4, 10)):
            place = placement.predict(n, classes=k, device="cuda", dtype=dtype)
            assert place.gpu == size * (n * n + panels * n * block + 8 * n * k) + 2**30
            assert place.host == 4 * (n * n + 2 * n * block) + size * 8 * n * k + 2**26

    def test_what_does_not_fit_is_told_in_gib(self, monkeypatch):
        monkeypatch.setattr(memory, "available", lambda *_: 3 * 2**30)
        with pytest.raises(UserError, match=r"this machine has 3\.0 GiB free"):
            placement.choose(40_000, classes=10, device="cpu", dtype="float64")
