"""Measured rates and costs, on a clock that only a fake backend moves: a millisecond for each pair."""

import numpy as np
import pytest

from cntk_bench.config.config import Solve
from cntk_bench.costs import measure
from cntk_bench.costs.forecast import Forecast
from cntk_bench.costs.measure import Rate
from cntk_bench.costs.span import Span
from cntk_bench.executors.local import WAITING
from cntk_bench.grams import missing
from cntk_bench.grams.tiles import Plan
from cntk_bench.kernels.spec import Readout, Spec
from cntk_bench.regression import placement

SPEC = Spec((Readout("ntk", "v", 3), Readout("ntk", "gap", 3)), 1, 4)
IMAGES = np.random.default_rng(0).standard_normal((64, 1, 4, 4)).astype("f4")


class Fake:
    name, source, spec, together = "cpu", "0", SPEC, 1

    def __init__(self, clock):
        self.clock, self.tiles = clock, []

    def prepare(self, images):
        self.clock[0] += 5.0  # not part of a tile's time
        return images

    def tile(self, x, z, symmetric=False):
        first = not self.tiles
        self.tiles.append((len(x), len(z)))
        columns = [i + 1 if symmetric else len(z) for i in range(len(x))]
        pairs = sum(-(-some // self.together) * self.together for some in columns)
        self.clock[0] += 1e-3 * pairs + 100 * first  # the first call also compiles
        return np.ones((len(SPEC.readouts), len(x), len(z)), "f4")

    def start(self, x, z, symmetric=False):
        return lambda: self.tile(x, z, symmetric)

    def tile_bytes(self, side):
        return 1000 * side


@pytest.fixture
def backend(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    return Fake(clock)


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


def test_the_cost_of_a_run(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(measure.memory, "peak", lambda: 1000 * 1024)
    plan = Plan(600, 100, 8, 2)
    asked = []

    def told(*arguments):
        asked.append(arguments)
        return Forecast(7, Span(2.0, 3.0))

    monkeypatch.setattr(measure, "forecast", told)
    backend.name = "cuda"  # a backend that computes no more pairs than a tile has
    how = Solve(ridge="loo")
    found = measure.cost(SPEC, plan, IMAGES, backend, tmp_path / "not" / "there", 3, how, 7)
    assert found.seconds == pytest.approx(1e-3 * (600 * 601 // 2 + 100 * 600))
    assert found.time == Span(pytest.approx(found.seconds), pytest.approx(found.seconds * measure.UNKNOWN))
    assert asked == [(plan, found.solve, how, 7, 3)]
    assert found.solve_time == Span(14.0, pytest.approx(21.0 * measure.UNKNOWN))
    assert found.disk == plan.bytes and found.disk_free > 0 and found.solve_fits
    assert found.solve == placement.choose(600, classes=3)
    waiting = WAITING * 2 * 4 * 8**2
    assert found.compute_memory == 1000 * 1024 + 8000 + waiting


@pytest.mark.parametrize(("side", "draws"), [(8, 1), (16, 2), (20, 3), (24, 1), (33, 2)])
def test_the_cost_counts_columns_that_a_cpu_computes_for_nobody(backend, tmp_path, monkeypatch, side, draws):
    monkeypatch.setattr(measure, "forecast", lambda *_: Forecast(1, None))
    backend.together = 16
    plan = Plan(60, 50, side, len(SPEC.readouts), draws)
    found = measure.cost(SPEC, plan, IMAGES, backend, tmp_path, 3)
    began = backend.clock[0]
    for tile in plan.tiles():
        rows, columns = tile.shape(plan)[1:]
        backend.tile(IMAGES[:rows], IMAGES[:columns], tile.diagonal)
    assert found.seconds == pytest.approx(backend.clock[0] - began)
    began = backend.clock[0]
    backend.tile(IMAGES[:side], IMAGES[:side])
    assert found.tile_seconds == pytest.approx(backend.clock[0] - began)


def test_the_cost_of_what_a_run_lacks(backend, tmp_path, monkeypatch):
    """The tiles of 8 new images lack both readouts; the others lack the second, which alone is slower."""
    monkeypatch.setattr(measure, "forecast", lambda *_: Forecast(1, None))
    slow = Fake(backend.clock)
    slow.tile = lambda x, z: [backend.tile(x, z) for _ in range(2)]
    created = []
    monkeypatch.setattr(measure.backends, "create", lambda name, spec: created.append(spec) or slow)
    backend.name = "cuda"
    plan = Plan(32, 0, 8, 2)
    lacks = missing.Missing(
        plan, (32, 0), {(0, 1): {"train": np.arange(6, 10)}, (1,): {"train": np.arange(6)}}
    )
    found = measure.cost(SPEC, plan, IMAGES, backend, tmp_path, 3, missing=lacks)
    assert created == [Spec(SPEC.readouts[1:], 1, 4)]
    old, new = 24 * 25 // 2, 8 * 24 + 8 * 9 // 2
    assert found.seconds == pytest.approx(1e-3 * (new + 2 * old))
    assert found.done == (0, 0) and found.in_part == 6
    assert found.disk == (4 * 2 + 6) * (4 * 8**2 + 4)
    assert found.pairs_per_second == pytest.approx((new + old) / found.seconds)
    nothing = measure.cost(
        SPEC, plan, IMAGES, backend, tmp_path, 3, missing=missing.Missing(plan, (32, 0), {})
    )
    assert nothing.done == (10, plan.pairs) and nothing.time == Span(0, 0) and nothing.share(4) == 0
    assert nothing.pairs_per_second is None and nothing.tile_seconds is None and nothing.disk == 0


def test_several_workers_end_with_the_last_tile_of_the_one_that_has_most(backend, tmp_path):
    plan = Plan(100, 0, 10, len(SPEC.readouts))  # 55 tiles
    work = (measure.Work(plan.pairs, Rate(10, (1.0,))),)
    cost = measure.Cost(plan, missing.whole(plan), work, 0, 0, None, True, Forecast(1, None))
    assert cost.seconds == plan.pairs / 10 and cost.share(1) == 1 and cost.solve_time is None
    assert cost.share(5) == pytest.approx(1 / 5)
    assert cost.share(10) == pytest.approx(6 / 55)
    assert cost.share(55) == cost.share(1000) == pytest.approx(1 / 55)


def test_a_rate_tells_its_fastest_and_its_slowest_call():
    rate = Rate(100, (2.0, 1.0, 4.0))
    assert (rate.runs, rate.seconds, rate.pairs_per_second) == (3, 2.0, 50)
    assert rate.span(1000) == Span(10, 40)
