"""Conjugate gradients against SciPy's, and the preconditioner against its definition."""

import warnings

import numpy as np
import pytest
from held import Held
from scipy.sparse.linalg import LinearOperator
from scipy.sparse.linalg import cg as scipy_cg

from cntk_bench.errors import UserError
from cntk_bench.regression import conjugate, partial, stream
from cntk_bench.regression.cholesky import NotPositiveDefinite


def kernel(n=90, seed=0, width=3.0):
    """A Laplace kernel with an uneven diagonal, (n, n), and targets (n, 3) whose rows sum to zero."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 4))
    bright = np.exp(rng.standard_normal(n))
    A = np.exp(-np.sqrt(((x[:, None] - x) ** 2).sum(-1)) / width) * np.outer(bright, bright)
    return A, np.eye(3)[np.arange(n) % 3] - 1 / 3


def factor(A, rank, shift=0.0):
    return partial.factor(Held(A, 20), A.diagonal().copy(), np.full(len(A), shift), rank)


def test_a_diagonal_entry_of_zero_is_a_pivot_of_zero():
    A, _ = kernel(20)
    A[3], A[:, 3] = 0, 0
    for rank in (0, 5, 20):
        with warnings.catch_warnings(), pytest.raises(NotPositiveDefinite) as refused:
            warnings.simplefilter("error")
            factor(A, rank)
        assert refused.value.pivot == 0


def dense(A, pivots):
    """By definition: A, but of its Schur complement beside the pivots only the diagonal is kept."""
    order = np.r_[pivots, np.setdiff1d(np.arange(len(A)), pivots)].astype(int)
    m, B = len(pivots), A[np.ix_(order, order)]
    L1 = np.linalg.cholesky(B[:m, :m])
    L2 = np.linalg.solve(L1, B[:m, m:]).T
    left = np.block([[L1, np.zeros((m, len(A) - m))], [L2, np.eye(len(A) - m)]])
    D = np.r_[np.ones(m), (B[m:, m:] - L2 @ L2.T).diagonal()]
    out = np.empty_like(A)
    out[np.ix_(order, order)] = (left * D) @ left.T
    return out


class TestSteps:
    @pytest.mark.parametrize("rank", [None, 0, 12])
    def test_every_iterate_is_scipys(self, rank):
        """SciPy solves each column alone; ours share each product, but must have the same iterates.

        A ridge limits rounding errors: without it, both differ from 80-bit iterates after ten steps.
        """
        A, y = kernel(60)
        A += 5 * np.eye(60)
        P = (lambda b: b.copy()) if rank is None else factor(A, rank)
        M = LinearOperator(A.shape, matvec=lambda b: P(b.reshape(-1, 1))[:, 0], dtype=float)
        for count in (1, 2, 4, 7):
            found = conjugate.solve(lambda b: A @ b, P, y, tolerance=1e-14, limit=count)
            for c in range(3):
                expected, _ = scipy_cg(A, y[:, c], rtol=0, atol=0, maxiter=count, M=M)
                np.testing.assert_allclose(found.x[:, c], expected, rtol=0, atol=1e-7 * abs(expected).max())
            assert (found.iterations, found.ended) == (count, "limit")

    def test_solves_to_the_tolerance_which_is_measured(self):
        A, y = kernel()
        for tolerance in (1e-3, 1e-9):
            found = conjugate.solve(lambda b: A @ b, factor(A, 10), y, tolerance=tolerance, limit=500)
            np.testing.assert_allclose(found.residual, y - A @ found.x, atol=1e-12)
            relative = (np.linalg.norm(y - A @ found.x, axis=0) / np.linalg.norm(y, axis=0)).max()
            assert found.ended == "solved" and tolerance / 100 < found.relative <= tolerance
            assert found.relative == pytest.approx(relative, rel=1e-3)

    def test_a_column_that_is_solved_costs_nothing_more(self):
        A, y = kernel()
        y = np.column_stack([A[:, 3], y[:, :2]])  # the first target is a column of A, so one step solves it
        widths = []

        def times(b):
            widths.append(b.shape[1])
            return A @ b

        P = factor(A, len(A) - 1)
        found = conjugate.solve(
            times, lambda b: P(b) if b.shape[1] == 3 else b.copy(), y, tolerance=1e-6, limit=40
        )
        assert found.relative <= 1e-6 or found.ended == "limit"
        assert widths[0] == 3 and (len(widths) == 2 or min(widths) < 3)

    def test_rounding_ends_it_where_no_tolerance_can(self):
        A, y = kernel(40)
        A = A + 1e7 * np.ones_like(A)  # rounding keeps residuals above eps |A| |x|
        found = conjugate.solve(lambda b: A @ b, factor(A, 5), y, tolerance=1e-14, limit=2000)
        assert found.ended == "rounding" and 1e-14 < found.relative < 1e-5
        assert found.relative == pytest.approx(
            (np.linalg.norm(y - A @ found.x, axis=0) / np.linalg.norm(y, axis=0)).max(), rel=0.5
        )

    def test_negative_curvature_is_told_relative_to_a_unit(self):
        A = np.diag([2.0, -3.0])
        with pytest.raises(NotPositiveDefinite) as told:
            conjugate.solve(
                lambda b: A @ b, lambda b: b.copy(), np.array([[0.0], [1.0]]),
                tolerance=1e-8, limit=9, unit=np.array([[1.0], [6.0]]),
            )  # fmt: skip
        assert told.value.pivot == pytest.approx(-0.5)

    def test_norms_are_weighted(self):
        A, y = kernel(50)
        weight = np.linspace(0.01, 100, 50)[:, None]
        found = conjugate.solve(lambda b: A @ b, factor(A, 5), y, tolerance=1e-6, limit=500, weight=weight)
        weighed = np.linalg.norm(weight * (y - A @ found.x), axis=0) / np.linalg.norm(weight * y, axis=0)
        assert weighed.max() <= 1e-6 and found.relative == pytest.approx(weighed.max(), rel=1e-3)

    def test_a_preconditioner_that_rounding_spoils_is_left_out(self):
        """Where it is not positive for a column, the residual itself is the direction."""
        A, y = kernel(40)
        found = conjugate.solve(lambda b: A @ b, lambda b: -b, y, tolerance=1e-8, limit=2000)
        assert found.ended == "solved"
        np.testing.assert_allclose(A @ found.x, y, atol=1e-7)


class TestPreconditioner:
    @pytest.mark.parametrize("rank", [0, 1, 7, 40, 90])
    def test_is_its_definition(self, rank):
        A, y = kernel()
        P = factor(A, rank)
        assert len(P.pivots) == len(set(P.pivots.tolist())) == rank
        expected = dense(A, P.pivots)
        # It equals A in the pivots' rows.
        np.testing.assert_allclose(expected[P.pivots], A[P.pivots], atol=1e-9)
        np.testing.assert_allclose(expected.diagonal(), A.diagonal())  # and on the diagonal
        np.testing.assert_allclose(P(y), np.linalg.solve(expected, y), rtol=1e-7, atol=1e-9)

    def test_pivots_are_the_greedy_ones(self, monkeypatch):
        """With batches of one: each pivot is the largest entry on the Schur complement's diagonal."""
        monkeypatch.setattr(partial, "batch", lambda rank: 1)
        A, _ = kernel(40)
        expected, S = [], A.copy()
        for _ in range(15):
            j = int(S.diagonal().argmax())
            expected.append(j)
            S = S - np.outer(S[:, j], S[j]) / S[j, j]
        assert factor(A, 15).pivots.tolist() == expected

    @pytest.mark.parametrize("columns", [7, 4096])
    def test_batches_keep_what_they_leave_out_small(self, columns, monkeypatch):
        """Images come in nearly equal pairs: a batch must not take both of a pair."""
        monkeypatch.setattr(partial, "COLUMNS", columns)
        A, _ = kernel(40)
        twice = np.kron(A, np.ones((2, 2))) + 1e-6 * np.diag(np.kron(A.diagonal(), np.ones(2)))
        passes = []

        class Counted(Held):
            def pieces(self, diagonal=False):
                passes.append(diagonal)
                return super().pieces(diagonal)

        P = partial.factor(Counted(twice, 16), twice.diagonal().copy(), np.zeros(80), 40)
        assert len(P.pivots) == 40 == len(set((P.pivots // 2).tolist()))
        assert len(passes) <= partial.PASSES
        np.testing.assert_allclose(P(twice @ np.ones((80, 1))), 1, atol=1e-4)

    def test_a_shift_is_added_to_the_diagonal(self):
        A, y = kernel(30)
        P = factor(A, 30, shift=0.7)
        np.testing.assert_allclose(P(y), np.linalg.solve(A + 0.7 * np.eye(30), y), rtol=1e-9)

    def test_a_singular_matrix_is_told(self):
        A, _ = kernel(30)
        index = np.r_[0:30, 3]
        with pytest.raises(NotPositiveDefinite) as told:
            factor(A[np.ix_(index, index)], 31)
        assert abs(told.value.pivot) < 1e-12
        assert len(factor(A[np.ix_(index, index)], 31, shift=1e-3).pivots) >= 30

    def test_memory_is_that_of_its_arrays(self):
        import tracemalloc

        A, _ = kernel(800)
        held = Held(A, 400)
        factor(A[:50, :50], 5)
        tracemalloc.start()
        partial.factor(held, A.diagonal().copy(), np.zeros(800), 200)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        pieces = stream.PIECES * 8 * 400**2  # a piece and the arrays it is made from
        assert 0.5 * partial.memory(800, 200) < peak <= partial.memory(800, 200) + pieces


class TestStream:
    @pytest.mark.parametrize("side", [1, 7, 50, 64])
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_products_rows_and_diagonal(self, side, dtype):
        A, y = kernel(50)
        A = A.astype(dtype)
        # So a read of the upper triangle would show.
        spoilt = np.tril(A) + np.triu(np.full_like(A, np.nan), 1)
        held, exact = Held(spoilt, side), A.astype(np.float64)
        np.testing.assert_allclose(stream.times(held, y), exact @ y, rtol=1e-12, atol=1e-12)
        chosen = np.array([31, 0, 49, 7])
        np.testing.assert_array_equal(stream.rows(held, chosen), exact[chosen])
        np.testing.assert_array_equal(stream.diagonal(held), exact.diagonal())

    @pytest.mark.parametrize("side", [4, 64])
    def test_the_closest_images(self, side):
        A, _ = kernel(30)
        own = A.diagonal() + 0.1
        share = A**2 / np.outer(own, own)
        share[np.diag_indices(30)] = 0
        assert stream.closest(Held(A, side), own) == pytest.approx(share.max())

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_is_not_finite_is_told(self, value):
        A, _ = kernel(30)
        A[20, 3] = value
        with pytest.raises(UserError, match=r"NaN or infinity \(first in row 3\)"):
            stream.closest(Held(A, 8), np.ones(30))
        A[5, 5] = value
        with pytest.raises(UserError, match=r"first in row 5"):
            stream.diagonal(Held(A, 8))
        with pytest.raises(UserError, match="mean diagonal 0"):
            stream.diagonal(Held(np.zeros((4, 4))))
