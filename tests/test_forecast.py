"""The predicted time of a solve: on a clock that only made-up solves move, and from counted work."""

import tempfile
from dataclasses import replace

import numpy as np
import pytest

from cntk_bench.cli import units
from cntk_bench.config.config import Solve
from cntk_bench.costs import forecast
from cntk_bench.costs.forecast import Forecast, extrapolated
from cntk_bench.costs.span import Span
from cntk_bench.grams.tiles import Plan
from cntk_bench.regression import cholesky, iterative, placement, prediction, ridge
from cntk_bench.regression.placement import Place

CHOLESKY = Place("cpu", "float64", 0, 0)


def test_a_larger_solve_takes_its_products_at_least_and_a_cube_at_most():
    assert extrapolated(10.0, Span(1.0, 1.5), 400.0) == Span(400.0, 1500.0)
    # A disturbed measurement of the products.
    assert extrapolated(10.0, Span(1.0, 1.5), 1200.0) == Span(1000.0, 1500.0)


@pytest.mark.parametrize(("dtype", "size"), [("float64", 8), ("float32", 4)])
def test_the_pace_is_that_of_products_in_the_precision_of_the_factor(monkeypatch, dtype, size):
    """On a clock where 10^9 operations take a second, but in the beginning twice as long."""
    now, device = [0.0], cholesky.Device.named("cpu")

    def to_host(result):
        assert result.itemsize == size
        now[0] += 2 * 8 * cholesky.BLOCK * cholesky.BLOCK * forecast.WIDE / 1e9 * (2 if now[0] < 60 else 1)
        return result

    monkeypatch.setattr(forecast.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(cholesky.Device, "named", lambda name: replace(device, to_host=to_host))
    assert forecast._pace(Place("cpu", dtype, 0, 0)) == pytest.approx(1e9)


class Clock:
    """A solve takes 4e-9 n^3 + 1e-6 n^2 seconds; every third solve takes half as long again."""

    def __init__(self, monkeypatch):
        self.now, self.sizes = 0.0, []
        monkeypatch.setattr(forecast.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(forecast, "_solve", lambda n, *rest: lambda: self.solve(n))

    @staticmethod
    def seconds(n):
        return 4e-9 * n**3 + 1e-6 * n**2

    def solve(self, n):
        self.sizes.append(n)
        self.now += self.seconds(n) * (1.5 if len(self.sizes) % 3 == 0 else 1)


@pytest.mark.parametrize(("leave_one_out", "factors"), [(True, 2), (False, 1)])
def test_a_solve_is_foretold_from_one_of_a_second(monkeypatch, leave_one_out, factors):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(forecast, "_pace", lambda place: 1e9)
    found = forecast.fitting(50_000, CHOLESKY, 10, leave_one_out)
    # 512 takes 0.8 s; 1024 takes 5.3 s, or 8 s
    assert clock.sizes == [512, 512, 1024] + [1024] * forecast.RUNS
    assert found.low == pytest.approx(factors * 50_000**3 / 3 / 1e9)
    assert found.high == pytest.approx((50_000 / 1024) ** 3 * 1.5 * clock.seconds(1024))


@pytest.mark.parametrize("n", [5, 300, 512, 700])
def test_a_small_one_is_done_as_it_will_be(monkeypatch, n):
    clock = Clock(monkeypatch)
    found = forecast.fitting(n, CHOLESKY, 10, True)
    assert set(clock.sizes[-forecast.RUNS :]) == {n}
    assert found == Span(pytest.approx(clock.seconds(n)), pytest.approx(1.5 * clock.seconds(n)))


def test_what_is_timed_is_the_solve_that_was_chosen(monkeypatch):
    seen = []

    def note(name):
        return lambda gram, labels, **options: seen.append((name, gram.dtype, len(gram), options))

    monkeypatch.setattr(ridge, "solve", note("cholesky"))
    monkeypatch.setattr(iterative, "refined", note("refined"))
    usual = {"classes": 3, "device": "cpu", "overwrite": True, "leave_one_out": False}
    for method, dtype in (("cholesky", "float64"), ("cholesky", "float32"), ("refined", "float32")):
        forecast._solve(7, Place("cpu", dtype, 0, 0, method), 3, False)()
        more = {"dtype": dtype} if method == "cholesky" else {}
        assert seen.pop() == (method, np.dtype(dtype), 7, usual | more)
    forecast._solve(7, Place("cuda", "float64", 0, 0), 3, True)()
    (_, dtype, _, options) = seen.pop()
    # float32, as kernels are stored.
    assert dtype == np.float32 and (options["device"], options["dtype"]) == ("cuda", "float64")


@pytest.mark.parametrize(
    ("method", "dtype"), [("cholesky", "float64"), ("cholesky", "float32"), ("refined", "float32")]
)
def test_the_made_up_matrix_is_solved_without_a_jitter(method, dtype):
    found = forecast._solve(100, Place("cpu", dtype, 0, 0, method), 3, True)()
    assert (found.chosen.jitter, found.chosen.doubt) == (0.0, None)


@pytest.fixture
def counted(monkeypatch):
    """A solve takes 1 to 2 seconds, reading an entry 1e-3, predicting a test entry 1e-5 to 2e-5."""
    asked = []
    monkeypatch.setattr(forecast, "fitting", lambda *arguments: asked.append(arguments) or Span(1.0, 2.0))
    monkeypatch.setattr(forecast, "_reading", lambda store: Span(1e-3, 1e-3))
    monkeypatch.setattr(forecast, "_predicting", lambda store, classes: Span(1e-5, 2e-5))
    monkeypatch.setattr(forecast, "_pass", lambda store, classes: Span(2e-3, 3e-3))
    return asked


@pytest.mark.parametrize(
    ("value", "alone", "few", "most", "left_out"),
    [
        (0.0, True, 1, 1, True),
        (0.0, False, 1, 1, False),
        ((0.1, 1.0, 0.1), False, 2, 2, True),
        ("loo", True, 8, 12, True),
    ],
)
def test_ridges_tiles_and_test_images_are_counted(counted, value, alone, few, most, left_out):
    plan = Plan(80, 30, 8, 5, 2)  # two draws of 40 images, each with a lower triangle of 15 tiles
    found = forecast.forecast(plan, CHOLESKY, Solve(ridge=value, leave_one_out=alone), 10, 3)
    assert counted == [(40, CHOLESKY, 3, left_out)]
    entries, test = 15 * 64, 40 * 30
    assert found.matrices == 10 and found.one_pass is None
    assert found.each.low == pytest.approx(few + 1e-3 * entries + 1e-5 * test)
    assert found.each.high == pytest.approx(2 * most + 1e-3 * entries + 2e-5 * test)
    assert found.whole == found.each * 10


def test_the_ridges_of_loo_are_those_it_may_try(monkeypatch):
    """The forecast counts as many ridges as a path that goes on to its limit has."""
    labels = np.arange(12) % 2
    monkeypatch.setattr(ridge, "rank", lambda one: -one.ridge)  # makes every larger ridge the better one
    found = ridge.solve(np.eye(12) + 1, labels, classes=2, ridge="loo")
    assert len(found.path) == len(ridge.LOO_RIDGES) + forecast.BEYOND_LOO


def test_iterations_are_not_foretold(counted):
    plan = Plan(40, 30, 8, 1)
    found = forecast.forecast(plan, Place("cpu", "float64", 0, 0, "cg", 5), Solve(), 4, 3)
    assert counted == [] and found.each is None is found.whole
    assert found.one_pass == Span(pytest.approx(2e-3 * 15 * 64), pytest.approx(3e-3 * 15 * 64))
    assert forecast.forecast(plan, Place("cpu", "float64", 0, 0, "other"), Solve(), 4, 3) == Forecast(4, None)


def test_tiles_are_read_as_in_a_run_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    read, shapes = [], []
    predict = prediction.predict

    def noted(alpha, blocks):
        found = [shapes.append(block.shape) or block for block in blocks]
        return predict(alpha, found)

    monkeypatch.setattr(prediction, "predict", noted)
    with forecast._scratch(16) as store:
        inner = store.read
        monkeypatch.setattr(
            store,
            "read",
            lambda tile, *a, checked=True: (
                read.append((str(tile), checked)) or inner(tile, *a, checked=checked)
            ),
        )
        for measure in (
            forecast._reading,
            lambda one: forecast._predicting(one, 3),
            lambda one: forecast._pass(one, 3),
        ):
            span = measure(store)
            assert 0 < span.low <= span.high
    train = {"train-0-0", "train-1-0", "train-1-1"}
    calls = 1 + forecast.RUNS
    assert (
        sum(checked for tile, checked in read if tile in train) == 3 * calls + 3
    )  # when streaming, the first pass checks
    assert sum(not checked for tile, checked in read if tile in train) == 3 * forecast.RUNS
    assert shapes == [(16, 32)] * calls
    assert list(tmp_path.iterdir()) == []


def test_placement_and_forecast_agree_on_what_is_larger_than_memory():
    """50,000 images: the matrix takes 20 GB in float64, plus panels, and half of that in float32."""
    for limit, method, dtype in (
        (24, "cholesky", "float64"),
        (18, "refined", "float32"),
        (8, "cg", "float64"),
    ):
        place = placement.choose(
            50_000, classes=10, device="cpu", limit=limit, solver="auto", streaming=2**28
        )
        assert (place.method, place.dtype) == (method, dtype)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.1, 0.9, "less than 1 s"),
        (0.5, 1.5, "0.5 to 1.5 s"),
        (14.2, 110.0, "14 to 110 s"),
        (100.0, 130.0, "1.7 to 2.2 min"),
        (3000.0, 3010.0, "50 min"),
        (2.6 * 3600, 3.4 * 3600, "2.6 to 3.4 h"),
        (31.2 * 3600, 48.0 * 3600, "31 to 48 h"),
        (47 * 3600, 48.1 * 3600, "2.0 days"),
        (3.2 * 86400, 4.1 * 86400, "3.2 to 4.1 days"),
        (9.96 * 86400, 40 * 86400, "10 to 40 days"),
    ],
)
def test_a_range_is_told_in_the_unit_of_its_end(low, high, words):
    assert units.span(Span(low, high)) == words


def test_more_than_two_days_are_days():
    assert [units.duration(hours * 3600) for hours in (1.5, 47.9, 48, 49, 240)] == [
        "90 min", "47.9 h", "48.0 h", "2.0 days", "10.0 days",
    ]  # fmt: skip
