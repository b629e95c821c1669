"""Draws in tiles: which tiles hold pairs within a draw, against brute force; sides that waste little."""

from itertools import product

import pytest

from cntk_bench.errors import UserError
from cntk_bench.grams import layout
from cntk_bench.grams.tiles import Plan, auto_tile


def brute(plan):
    """Names of tiles with a pair within a draw; their number of pairs, and of pairs across draws."""
    draw, names, pairs, wasted = plan.n_train // plan.draws, [], 0, 0
    for tile in Plan(plan.n_train, plan.n_test, plan.tile, 1).tiles():
        rows, cols = (range(s.start, s.stop) for s in (tile.rows(plan), tile.cols(plan)))
        inside = [(i, j) for i, j in product(rows, cols) if not tile.diagonal or i >= j]
        within = [tile.part == "test" or i // draw == j // draw for i, j in inside]
        if any(within):
            names.append(str(tile))
            pairs, wasted = pairs + len(within), wasted + within.count(False)
    return names, pairs, wasted


@pytest.mark.parametrize("draws, draw, tile", [*product([1, 2, 3, 5], [1, 3, 4, 6, 10], [1, 2, 3, 4, 7, 16])])
def test_tiles_of_draws(draws, draw, tile):
    plan = Plan(draws * draw, 5, tile, 1, draws)
    names, pairs, wasted = brute(plan)
    assert [str(one) for one in plan.tiles()] == names
    assert (plan.count, plan.pairs, plan.wasted) == (len(names), pairs, wasted)
    assert wasted == 0 or draw % tile
    whole = Plan(draws * draw, 5, tile, 1)
    assert [plan.number(one) for one in plan.tiles()] == [whole.number(one) for one in plan.tiles()]


@pytest.mark.parametrize("draw", [2, 10, 20, 40, 80, 160, 320, 640, 1280])
@pytest.mark.parametrize("work", [2 * 10**4, 2 * 10**7])
def test_the_published_sizes_waste_little(draw, work):
    """No waste where 16 columns, which a CPU computes together, divide a draw; else less than 1 %."""
    side = auto_tile(10 * draw, 10_000, work, 10**10, 10)
    plan, whole = Plan(10 * draw, 10_000, side, 1, 10), Plan(10 * draw, 10_000, min(draw, 1024), 1, 10)
    assert (plan.wasted == 0) == (draw % 16 == 0)
    assert plan.wasted < 0.01 * plan.pairs
    assert plan.computed(16) <= whole.computed(16)
    assert 16 <= side <= 1024


def test_a_size_that_no_side_divides_wastes_little():
    draw = 1009  # a prime
    side = auto_tile(5 * draw, 10_000, 2 * 10**7, 10**10, 5)
    plan = Plan(5 * draw, 10_000, side, 1, 5)
    assert 0 < plan.wasted < 0.01 * plan.pairs
    # The search begins at half of the side that suits the backend: no larger side up to it wastes less.
    assert all(Plan(5 * draw, 0, other, 1, 5).wasted >= plan.wasted for other in range(side, 2 * side))


def test_one_draw_has_the_side_that_it_had():
    assert auto_tile(50_000, 10_000, 2 * 10**7, 10**10, 1) == auto_tile(50_000, 10_000, 2 * 10**7, 10**10)


def test_draws_are_equally_large():
    with pytest.raises(UserError, match="10 images cannot be 3 draws"):
        Plan(10, 5, 4, 1, 3)


@pytest.mark.parametrize("draws, draw, tile", [*product([1, 2, 3, 5], [1, 3, 4, 6], [1, 2, 3, 4, 7, 16])])
def test_numbers_of_tiles_of_draws_among_more_images(draws, draw, tile):
    """In a store with more images, found by arrays, against the tiles of a plan of these images alone."""
    more, view = Plan(draws * draw + 5, 9, tile, 1), Plan(draws * draw, 4, tile, 1, draws)
    for part in ("train", "test"):
        found = layout.within(more, part, (view.n_train, view.n_test), draws)
        assert found.tolist() == [more.number(one) for one in view.tiles(part)]
    for plan in (view, Plan(draws * draw, 4, tile, 1)):
        found = layout.within(plan, "train", None, draws)
        assert found.tolist() == [view.number(one) for one in view.tiles("train")]
