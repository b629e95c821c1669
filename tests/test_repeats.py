"""Repeated training images have the first one's rows and columns, however a matrix is read."""

import numpy as np
import pytest
from test_grams_stream import READOUTS

from cntk_bench import Readout, gram, reference
from cntk_bench.data import load
from cntk_bench.grams import growth, matrix, repeats
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.stream import Stored
from cntk_bench.grams.tiles import Plan
from cntk_bench.regression import stream

N, M = 37, 9
DIGESTS = np.arange(N)
DIGESTS[[12, 20, 36]], DIGESTS[30] = 3, 17  # one image occurs four times, another twice


@pytest.fixture
def made(tmp_path):
    """A store whose triangle has no two equal entries."""
    plan = Plan(N, M, 8, 2)
    labels = np.arange(N) % 10, np.arange(M) % 10
    images = ImageFacts(labels, labels, (DIGESTS, np.zeros(M, np.int64)))
    store = growth.create(tmp_path / "gram.zarr", plan, {"readouts": READOUTS}, images)
    with store.shared():
        for one in plan.tiles():
            rows, cols = np.arange(N + M)[one.rows(plan)], np.arange(N)[one.cols(plan)]
            rows = rows + N * (one.part == "test")
            low, high = np.minimum(rows[:, None], cols), np.maximum(rows[:, None], cols)
            store.write(one, np.stack([1000 + 64 * high + low] * 2).astype("f4"))
    return store


def plain():
    high, low = np.maximum.outer(np.arange(N), np.arange(N)), np.minimum.outer(np.arange(N), np.arange(N))
    return 1000.0 + 64 * high + low, 1000.0 + 64 * np.arange(N, N + M)[:, None] + np.arange(N)


@pytest.mark.parametrize("draw", [(0, 1), (0, 2), (1, 2)])
def test_matrices(made, draw):
    sizes = (36, M) if draw[1] > 1 else None
    train, test = plain()
    found = matrix.matrix(made, "train", READOUTS[0], sizes=sizes, draw=draw)
    half = matrix.matrix(made, "train", READOUTS[0], sizes=sizes, draw=draw, triangle="lower")
    np.testing.assert_array_equal(np.tril(half), np.tril(found))
    np.testing.assert_array_equal(found, found.T)
    where = matrix.images(Plan(36 if sizes else N, M, 8, 1, draw[1]), draw)
    leader = [DIGESTS[where].tolist().index(one) for one in DIGESTS[where]]
    np.testing.assert_array_equal(found, train[where, where][np.ix_(leader, leader)])
    columns = test[:, where][:, leader]
    np.testing.assert_array_equal(matrix.matrix(made, "test", READOUTS[0], sizes=sizes, draw=draw), columns)
    blocks = matrix.row_blocks(made, READOUTS[0], sizes=sizes, draw=draw)
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), columns)
    streamed, rng = Stored(made, READOUTS[0], sizes=sizes, draw=draw), np.random.default_rng(0)
    b = rng.standard_normal((len(found), 3))
    np.testing.assert_allclose(stream.times(streamed, b), found @ b, rtol=1e-12)
    np.testing.assert_allclose(stream.times(streamed, b, squared=True), found**2 @ b, rtol=1e-12)
    chosen = rng.permutation(len(found))
    np.testing.assert_array_equal(stream.rows(streamed, chosen), found[chosen])
    np.testing.assert_array_equal(stream.diagonal(streamed), found.diagonal())
    own = found.diagonal()
    shares = found**2 / np.outer(own, own)
    shares[np.diag_indices(len(own))] = 0
    assert stream.closest(streamed, own) >= shares.max() * (1 - 1e-12)
    if draw == (1, 2):  # no image occurs twice in this draw
        assert streamed.leader is None
        return
    unlike = Stored(made, READOUTS[0], sizes=sizes, draw=draw)
    unlike.leader = None
    assert unlike.identity != streamed.identity


def test_where_all_differ_nothing_changes():
    assert repeats.leaders(None) is None and repeats.leaders(np.arange(5)) is None
    block = np.arange(6.0).reshape(2, 3)
    repeats.share_columns(block, None)
    np.testing.assert_array_equal(block, np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("pool", ["v", "gap"])
def test_kernels_in_memory(pool):
    x = load("digits", train=20, test=2).x_train.copy()
    x[15] = x[4]
    readouts = [Readout("ntk", pool, 4)]
    found = gram(x, readouts=readouts, backend="cpu")[0]
    np.testing.assert_array_equal(found[15], found[4])
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found, reference.gram(x, readouts=readouts)[0], rtol=1e-6)
