"""Predicted costs of runs, on the clock of a made-up backend (`slow_backend`)."""

import numpy as np
import pytest
import slow_backend
from slow_backend import IMAGES, SPEC, SlowBackend

from cntk_bench.config.config import Solve
from cntk_bench.costs import cost
from cntk_bench.costs.forecast import Forecast
from cntk_bench.costs.measure import Rate
from cntk_bench.costs.span import Span
from cntk_bench.executors.local import WAITING
from cntk_bench.grams import missing
from cntk_bench.grams.tiles import Plan
from cntk_bench.kernels.spec import Spec
from cntk_bench.regression import placement


@pytest.fixture
def backend(monkeypatch):
    return slow_backend.begin(monkeypatch)


def test_the_cost_of_a_run(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(cost.memory, "peak", lambda: 1000 * 1024)
    plan = Plan(600, 100, 8, 2)
    asked = []

    def told(*arguments):
        asked.append(arguments)
        return Forecast(7, Span(2.0, 3.0))

    monkeypatch.setattr(cost, "forecast", told)
    backend.name = "cuda"  # a backend that computes no more pairs than a tile has
    how = Solve(ridge="loo")
    found = cost.cost(SPEC, plan, IMAGES, backend, tmp_path / "not" / "there", 3, how, 7)
    assert found.seconds == pytest.approx(1e-3 * (600 * 601 // 2 + 100 * 600))
    assert found.time == Span(pytest.approx(found.seconds), pytest.approx(found.seconds * cost.UNKNOWN))
    assert asked == [(plan, found.solve, how, 7, 3)]
    assert found.solve_time == Span(14.0, pytest.approx(21.0 * cost.UNKNOWN))
    assert found.disk == plan.bytes and found.disk_free > 0 and found.solve_fits
    assert found.solve == placement.choose(600, classes=3)
    waiting = WAITING * 2 * 4 * 8**2
    assert found.compute_memory == 1000 * 1024 + 8000 + waiting


@pytest.mark.parametrize(("side", "draws"), [(8, 1), (16, 2), (20, 3), (24, 1), (33, 2)])
def test_the_cost_counts_columns_that_a_cpu_computes_for_nobody(backend, tmp_path, monkeypatch, side, draws):
    monkeypatch.setattr(cost, "forecast", lambda *_: Forecast(1, None))
    backend.together = 16
    plan = Plan(60, 50, side, len(SPEC.readouts), draws)
    found = cost.cost(SPEC, plan, IMAGES, backend, tmp_path, 3)
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
    monkeypatch.setattr(cost, "forecast", lambda *_: Forecast(1, None))
    slow = SlowBackend(backend.clock)
    slow.tile = lambda x, z: [backend.tile(x, z) for _ in range(2)]
    created = []
    monkeypatch.setattr(cost.backends, "create", lambda name, spec: created.append(spec) or slow)
    backend.name = "cuda"
    plan = Plan(32, 0, 8, 2)
    lacks = missing.Missing(
        plan, (32, 0), {(0, 1): {"train": np.arange(6, 10)}, (1,): {"train": np.arange(6)}}
    )
    found = cost.cost(SPEC, plan, IMAGES, backend, tmp_path, 3, missing=lacks)
    assert created == [Spec(SPEC.readouts[1:], 1, 4)]
    old, new = 24 * 25 // 2, 8 * 24 + 8 * 9 // 2
    assert found.seconds == pytest.approx(1e-3 * (new + 2 * old))
    assert found.done == (0, 0) and found.in_part == 6
    assert found.disk == (4 * 2 + 6) * (4 * 8**2 + 4)
    assert found.pairs_per_second == pytest.approx((new + old) / found.seconds)
    nothing = cost.cost(SPEC, plan, IMAGES, backend, tmp_path, 3, missing=missing.Missing(plan, (32, 0), {}))
    assert nothing.done == (10, plan.pairs) and nothing.time == Span(0, 0) and nothing.share(4) == 0
    assert nothing.pairs_per_second is None and nothing.tile_seconds is None and nothing.disk == 0


def test_several_workers_end_with_the_last_tile_of_the_one_that_has_most(backend, tmp_path):
    plan = Plan(100, 0, 10, len(SPEC.readouts))  # 55 tiles
    work = (cost.Work(plan.pairs, Rate(10, (1.0,))),)
    found = cost.Cost(plan, missing.whole(plan), work, 0, 0, None, True, Forecast(1, None))
    assert found.seconds == plan.pairs / 10 and found.share(1) == 1 and found.solve_time is None
    assert found.share(5) == pytest.approx(1 / 5)
    assert found.share(10) == pytest.approx(6 / 55)
    assert found.share(55) == found.share(1000) == pytest.approx(1 / 55)
