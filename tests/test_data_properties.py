"""Properties of the order and of the layouts that hold for all labels and shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cntk_bench.data import checks
from cntk_bench.data.identity import digest
from cntk_bench.data.order import balanced_order
from cntk_bench.data.scaling import affine, prepared, scaling
from cntk_bench.errors import UserError

SOME = settings(max_examples=60)
LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=80).map(np.array)
SEEDS = st.integers(0, 2**63 - 1)
STREAMS = st.integers(0, 2)
SIDES = st.integers(1, 4)


@SOME
@given(LABELS, SEEDS, STREAMS)
def test_every_prefix_is_balanced(labels, seed, stream):
    order = balanced_order(labels, seed, stream)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(len(labels)))
    totals = np.bincount(labels)
    # counts[i, c]: images of class c among the first i + 1
    counts = np.cumsum(labels[order][:, None] == np.arange(len(totals)), axis=0)
    left = np.where(counts < totals, counts, len(labels))
    assert (left.min(1) >= counts.max(1) - 1).all()


@SOME
@given(LABELS, SEEDS, STREAMS)
def test_within_a_class_the_order_is_that_of_the_keys(labels, seed, stream):
    """Labels only decide which class is next: within a class, the order is the one without labels."""
    order = balanced_order(labels, seed, stream)
    alone = balanced_order(np.zeros_like(labels), seed, stream)
    for label in np.unique(labels):
        assert np.array_equal(order[labels[order] == label], alone[labels[alone] == label])


@SOME
@given(SEEDS, SEEDS)
def test_seeds_and_streams_make_different_orders(one, other):
    labels = np.arange(60) % 3
    orders = {tuple(balanced_order(labels, seed, s)) for seed in {one, other} for s in range(3)}
    # There are 20!^3 possible orders, so two are never equal by chance.
    assert len(orders) == 3 * len({one, other})


@SOME
@given(st.integers(1, 5), SIDES, st.integers(1, 5), st.data())
def test_channels_last_and_first_are_the_same_images(n, side, channels, draw):
    x = draw.draw(arrays.arrays(np.uint8, (n, side, side, channels)))
    first = np.moveaxis(x, -1, 1)
    assert np.array_equal(checks.images(x, "x"), first)
    if channels != side:  # where both sizes agree, channels are taken to be last
        assert np.array_equal(checks.images(first, "x"), first)
    assert np.array_equal(checks.images(x[..., 0], "x"), first[:, :1])


@SOME
@given(arrays.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4))
def test_a_shape_is_read_or_refused(shape):
    x = np.zeros(shape, np.uint8)
    square = (
        len(shape) == 2
        or len(shape) in (3, 4)
        and (shape[1] == shape[2] or (len(shape) == 4 and shape[2] == shape[3]))
    )
    if x.size and square:
        found = checks.images(x, "x")
        assert found.ndim == 4 and found.shape[2] == found.shape[3] and found.size == x.size
    else:
        with pytest.raises(UserError, match="^x has the shape"):
            checks.images(x, "x")


@SOME
@given(
    arrays.arrays(np.float64, (7, 2, 2, 2), elements=st.floats(-1e9, 1e9)),
    st.integers(0, 6),
    st.sampled_from([np.nan, np.inf, -np.inf, np.nextafter(1e9, 2e9), -2e9]),
)
def test_one_impossible_pixel_is_found(x, image, value):
    assert np.array_equal(checks.images(x, "x"), np.moveaxis(x, 3, 1))  # 1e9 itself is allowed
    x[image, 1, 0, 1] = value
    with pytest.raises(UserError, match=f"in image {image}: remove"):
        checks.images(x, "x")


@SOME
@given(
    st.lists(st.integers(-2, 5), min_size=1, max_size=12),
    st.lists(st.integers(-1, 5), min_size=1, max_size=5),
)
def test_classes_are_counted_or_refused(train, test):
    k = max(train) + 1
    sound = set(train) == set(range(k)) and k >= 2 and set(test) <= set(train)
    if sound:
        assert checks.classes(np.array(train), np.array(test)) == k
    else:
        with pytest.raises(UserError, match="y_train has the label|y_test has the label"):
            checks.classes(np.array(train), np.array(test))


@SOME
@given(arrays.arrays(np.uint8, (6, 2, 3, 3)), arrays.arrays(np.uint8, 6), st.permutations(range(6)))
def test_the_digest_knows_no_order(x, y, order):
    whole = digest(x, y)
    assert digest(x[order], y[order]) == whole != ""
    x[order[0], 1, 2, 0] ^= 1
    assert digest(x, y) != whole


@SOME
@given(
    arrays.arrays(np.float32, (9, 2, 2, 2), elements=st.integers(-9, 9).map(float)),
    st.permutations(range(9)),
    st.integers(1, 9),
)
def test_scaled_images_are_the_ones_asked_for(x, order, n):
    index = np.array(order[:n])
    try:
        shift, scale = scaling(x, "standardize")
    except UserError:
        assert (x == x[:1, :, :1, :1]).all()
        return
    found = prepared(x, index, affine(shift, scale))
    deviation = x.std((0, 2, 3), dtype=np.float64).reshape(2, 1, 1)
    deviation[(x == x[:1, :, :1, :1]).all((0, 2, 3))] = 1
    expected = (x[index] - x.mean((0, 2, 3), dtype=np.float64).reshape(2, 1, 1)) / deviation
    assert found.dtype == np.float32 and found.flags.c_contiguous
    # The values are at most 9, rounded to float32.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@SOME
@given(arrays.arrays(np.int8, (7, 2, 2, 2)), st.integers(-1000, 20))
def test_standardised_images_have_no_unit(x, power):
    """Scaling all pixels by a power of two changes no bit, even where their squares underflow (1e-301)."""
    try:
        shift, scale = scaling(x.astype(np.float64), "standardize")
    except UserError:
        return
    tiny = np.ldexp(x.astype(np.float64), power)
    found = scaling(tiny, "standardize")
    constant = (x == x[:1, :, :1, :1]).all((0, 2, 3)).reshape(2, 1, 1)
    assert np.array_equal(found[0], np.ldexp(shift, power))
    assert np.array_equal(found[1], np.where(constant, 1, np.ldexp(scale, power)))
    assert np.array_equal(
        prepared(tiny, np.arange(7), affine(*found))[:, ~constant[:, 0, 0]],
        prepared(x.astype(np.float64), np.arange(7), affine(shift, scale))[:, ~constant[:, 0, 0]],
    )
