"""Measured rates, on the clock of a made-up backend (`slow_backend`)."""

import pytest
import slow_backend
from slow_backend import IMAGES, SPEC

from cntk_bench.costs import measure
from cntk_bench.costs.measure import Rate
from cntk_bench.costs.span import Span


@pytest.fixture
def backend(monkeypatch):
    return slow_backend.begin(monkeypatch)


def test_a_rate_is_that_of_a_warm_tile(backend):
    found = measure.rate(backend, IMAGES, seconds=1.0, runs=5)
    # Takes 1.024 s; the first size to take more than half a second.
    assert found.pairs == 32**2 and found.runs == 5
    assert found.pairs_per_second == pytest.approx(1000)
    assert backend.tiles[-5:] == [(32, 32)] * 5
    assert measure.rate(backend, IMAGES, seconds=100.0).pairs == 64**2  # there are no more images
    assert measure.rate(backend, IMAGES, seconds=1e-4).pairs == 16**2  # this fills the lanes


@pytest.mark.parametrize("name, together, pairs", [("cuda", 1, 63 * 64 // 2), ("cpu", 16, 2992)])
def test_the_stage_counts_its_own_pairs_and_time(backend, tmp_path, name, together, pairs):
    """Tiles of 24, 24, 15 images in lanes of 16: 512, 512, 240 on the diagonal, (24 + 15 + 15) x 32 left."""
    backend.name, backend.together = name, together
    looked = []
    found = measure.stage(backend, IMAGES, Rate(1, (1e-3,)), 2.0, tmp_path, lambda *args: looked.append(args))
    (store, images), *more = looked
    assert not more and store.progress.missing() == [] and len(images) == store.plan.n_train == 63
    assert store.plan.tile == 24 and list(tmp_path.iterdir()) == []
    assert store.plan.pairs == 63 * 64 // 2 == sum(t.pairs(store.plan) for t in store.progress.done())
    assert found.pairs == store.plan.computed(together) == pairs
    prepared = 5.0 * 5  # 5 blocks of images, each prepared when first needed
    assert found.seconds == pytest.approx(1e-3 * found.pairs + 100 + prepared)


def test_the_stage_writes_no_more_than_it_may(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "SCRATCH", 20_000)
    plans = []
    measure.stage(backend, IMAGES, Rate(1, (1e-9,)), 9.0, tmp_path, lambda store, _: plans.append(store.plan))
    assert 10_000 < plans[0].pairs * 4 * len(SPEC.readouts) <= 21_000


def test_a_rate_tells_its_fastest_and_its_slowest_call():
    rate = Rate(100, (2.0, 1.0, 4.0))
    assert (rate.runs, rate.seconds, rate.pairs_per_second) == (3, 2.0, 50)
    assert rate.span(1000) == Span(10, 40)
