"""The geometry of tiles, against brute force over single entries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cntk_bench import backends
from cntk_bench.errors import UserError
from cntk_bench.grams.tiles import FEWEST, LARGEST, LIMIT, MOST, SMALLEST, Plan, Tile, auto_tile

PLANS = [Plan(7, 5, 3, 2), Plan(6, 4, 2, 1), Plan(5, 3, 8, 4), Plan(1, 1, 1, 1), Plan(9, 0, 4, 3)]


@pytest.mark.parametrize("plan", PLANS)
def test_tiles_cover_each_entry_once(plan):
    train, test = np.zeros((plan.n_train, plan.n_train), int), np.zeros((plan.n_test, plan.n_train), int)
    for tile in plan.tiles():
        (train if tile.part == "train" else test)[tile.rows(plan), tile.cols(plan)] += 1
    on_or_below = np.kron(np.tri(plan.blocks("train")), np.ones((plan.tile, plan.tile)))
    assert (train == on_or_below[: plan.n_train, : plan.n_train]).all()
    assert (test == 1).all()


@pytest.mark.parametrize("plan", PLANS)
def test_pairs_and_shapes(plan):
    on_or_below = np.tri(plan.n_train)
    for tile in plan.tiles():
        rows, cols = tile.rows(plan), tile.cols(plan)
        entries = on_or_below if tile.part == "train" else np.ones((plan.n_test, plan.n_train))
        assert tile.pairs(plan) == entries[rows, cols].sum()
        assert tile.shape(plan) == (plan.readouts, *entries[rows, cols].shape)
        assert tile.diagonal == (tile.part == "train" and rows == cols)
    assert plan.count == len(plan.tiles())
    assert plan.pairs == sum(tile.pairs(plan) for tile in plan.tiles())


def test_order_completes_the_first_images_first():
    plan = Plan(12, 4, 3, 1)
    reach = [tile.rows(plan).stop for tile in plan.tiles("train")]
    assert reach == sorted(reach)
    assert plan.tiles() == plan.tiles("train") + plan.tiles("test")


def test_names_are_distinct():
    names = [str(tile) for tile in Plan(200, 150, 7, 1).tiles()]
    assert str(Tile("test", 3, 7)) == "test-3-7"
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("sizes", [(0, 1, 1, 1), (4, -1, 1, 1), (4, 1, 0, 1), (4, 1, 1, 0), (4, 1, 2.0, 1)])
def test_impossible_sizes(sizes):
    with pytest.raises(UserError, match="is not possible"):
        Plan(*sizes)


def test_too_many_tiles_are_refused_before_they_are_made():
    # A triangle of 1414 rows has 1,000,405 tiles; one of 1413 rows has 998,991.
    assert Plan(1413, 0, 1, 1).count == len(Plan(1413, 0, 1, 1).tiles()) == 998_991 <= LIMIT == 1_000_000
    with pytest.raises(UserError, match="compute.tile 1 makes 1,000,405 tiles.*use at least 8"):
        Plan(1414, 0, 1, 1)
    with pytest.raises(UserError, match="tile 9 makes .* tiles.* use at least 48$"):
        Plan(50_000, 10_000, 9, 1)
    assert Plan(50_000, 10_000, 48, 1).count <= LIMIT
    with pytest.raises(UserError, match="use at least 48$"):
        Plan(50_000, 10_000, 40, 1)
    with pytest.raises(UserError, match="use at least"):  # refused at once, for any number of tiles
        Plan(10**18, 0, 1, 1)


GAP, V = 20 * 32**4, 20 * 32**2


@pytest.mark.parametrize("n_train, n_test", [(20, 10), (200, 500), (4000, 2000), (50_000, 10_000)])
@pytest.mark.parametrize("work", [GAP, V, 20 * 8**2])
@pytest.mark.parametrize("tile_work", [10**10, 10**12])
def test_auto_tile(n_train, n_test, work, tile_work):
    side = auto_tile(n_train, n_test, work, tile_work)
    plan = Plan(n_train, n_test, side, 5)
    assert side % 16 == 0 and SMALLEST <= side <= LARGEST
    if side > SMALLEST:  # at most the intended work, unless that means too many tiles
        assert side**2 * work < 2 * tile_work or len(plan.tiles()) > MOST / 2
        assert len(plan.tiles()) > FEWEST / 2
    assert len(plan.tiles()) < 2 * MOST


def test_auto_tile_of_the_papers_columns():
    cpu, cuda = backends.tile_work("cpu"), backends.tile_work("cuda")
    assert auto_tile(50_000, 10_000, GAP, cpu) == auto_tile(50_000, 10_000, GAP, cuda) == 288
    assert auto_tile(50_000, 10_000, V, cpu) == 992
    assert auto_tile(50_000, 10_000, V, cuda) == LARGEST
    assert auto_tile(200, 500, GAP, cpu) == 32
    assert auto_tile(1280, 10_000, GAP, cuda) == 224  # 50,176 pairs


@pytest.mark.parametrize(("edge", "side"), [(23, 16), (24, 32), (39, 32), (40, 48)])
def test_auto_tile_is_rounded_to_the_nearest_multiple_of_16(edge, side):
    assert auto_tile(1000, 0, 1, edge**2) == side


@pytest.mark.parametrize(("together", "multiple"), [(1, 16), (8, 16), (16, 16), (12, 24), (32, 32), (48, 48)])
def test_auto_tile_is_a_multiple_of_what_a_backend_computes_at_once(together, multiple):
    sides = {auto_tile(10**5, 0, 1, edge**2, together=together) for edge in range(1, 1500)}
    assert sides == {side for side in range(multiple, LARGEST + 1, multiple) if side >= min(sides)}
    assert auto_tile(10, 0, 1, 1, together=together) == multiple


@pytest.mark.parametrize(("draw", "side"), [(10, 30), (20, 16), (40, 16), (80, 16), (160, 32), (640, 32)])
def test_auto_tile_of_draws_computes_few_pairs_that_nobody_needs(draw, side):
    """CNTK-GAP at depth 15 on a CPU, which computes 16 columns at once: the work is counted tile by tile."""
    chosen = auto_tile(10 * draw, 1000, 15 * 2**20, 2 * 10**10, 10)
    assert chosen == side
    needed = 10 * draw * (draw + 1) / 2 + 1000 * 10 * draw

    def computed(tile):
        plan = Plan(10 * draw, 1000, tile, 1, 10)
        shapes = [(one.diagonal, *one.shape(plan)[1:]) for one in plan.tiles()]
        of_rows = (i + 1 if diagonal else cols for diagonal, rows, cols in shapes for i in range(rows))
        found = sum(-(-columns // 16) * 16 for columns in of_rows)
        assert plan.computed(16) == found
        return found

    assert computed(chosen) == min(map(computed, {min(draw, 32), *range(16, 33)}))
    assert computed(chosen) < 1.14 * needed and computed(20) > 1.55 * needed


def test_no_tile_is_empty():
    for plan in PLANS:
        assert all(tile.pairs(plan) > 0 for tile in plan.tiles())


def test_a_plan_and_a_tile_stay_as_they_were_checked():
    for thing, name in ((Plan(7, 5, 3, 2), "tile"), (Tile("test", 0, 0), "row")):
        with pytest.raises(AttributeError):
            setattr(thing, name, 1)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((True, 1, 1, 1), "n_train True is not possible: use an integer of at least 1"),
        ((4, -1, 1, 1), "n_test -1 is not possible: use an integer of at least 0"),
        ((4, 1, "8", 1), "tile '8' is not possible: use an integer of at least 1"),
        ((4, 1, 1, None), "readouts None is not possible: use an integer of at least 1"),
    ],
)
def test_an_impossible_size_is_told_with_what_is_possible(sizes, words):
    with pytest.raises(UserError) as caught:
        Plan(*sizes)
    assert str(caught.value) == words


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 70), st.integers(1, 4))
def test_tiles_cover_every_pair_once(n_train, n_test, tile, readouts):
    plan = Plan(n_train, n_test, tile, readouts)
    seen = {"train": np.zeros((n_train, n_train), int), "test": np.zeros((n_test, n_train), int)}
    for one in plan.tiles():
        block = np.zeros(one.shape(plan)[1:], int) + 1
        if one.diagonal:
            block = np.tril(block)
        seen[one.part][one.rows(plan), one.cols(plan)] += block
        assert one.pairs(plan) == block.sum() and one.shape(plan)[0] == readouts
        assert max(block.shape) <= tile
    assert (seen["train"] == np.tri(n_train, dtype=int)).all() and (seen["test"] == 1).all()
    assert plan.count == len(plan.tiles()) == len({str(one) for one in plan.tiles()})
    assert plan.pairs == sum(one.pairs(plan) for one in plan.tiles())


@pytest.mark.parametrize("plan", [Plan(11, 5, 3, 2), Plan(8, 0, 8, 1), Plan(1, 7, 2, 1)])
def test_numbers_of_tiles(plan):
    for part in ("train", "test"):
        tiles = plan.tiles(part)
        assert [plan.number(tile) for tile in tiles] == list(range(plan.count_of(part)))
        assert [plan.tile_at(part, n) for n in range(len(tiles))] == tiles
    for tile in (Tile("train", 0, 1), Tile("train", 99, 0), Tile("test", 0, 99), Tile("test", 99, 0)):
        with pytest.raises(KeyError):
            plan.number(tile)
