"""Our backend compared with another library: the definition, a toy neural-tangents, or the real one."""

import json
import os
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import toy_tangents
from test_cli import call, fail, succeed

from cntk_bench import backends
from cntk_bench import columns as table
from cntk_bench.cli import ratios
from cntk_bench.costs import comparison, measure, neural_tangents
from cntk_bench.costs.comparison import Library, Program
from cntk_bench.errors import UserError
from cntk_bench.kernels import definition
from cntk_bench.kernels.spec import Readout, Spec

SPEC = Spec((Readout("ntk", "v", 3), Readout("ntk", "gap", 4)), 1, 4)
IMAGES = np.random.default_rng(0).standard_normal((64, 1, 4, 4)).astype("f4")
COLUMNS = "CNTK-V CNTK-GAP CNTK-LAP1 CNN-GP-V CNN-GP-GAP CNN-GP-LAP2 FC-NTK FC-NNGP FC-NTK-B0.5 FC-NNGP-B0.5"
QUICK = ("bench", "--size=4", "--channels=1", "--depths=3,4", "--seconds=0.001")


def library(spoil=lambda values: values, **more):
    """The definition, in the role of another library."""

    def compiled(spec, x, z):
        return Program(lambda: spoil(definition.gram(x, z, readouts=spec.readouts)), 0)

    return Library("another", compiled, **more)


def off_by(error):
    """Adds an error to one number, relative to the largest number of its readout."""

    def spoil(values):
        values[-1, 0, 0] += error * abs(values[-1]).max()
        return values

    return spoil


class Clock:
    """A clock that only moves when a library or our backend computes; tests say how long they take."""

    def __init__(self, monkeypatch):
        self.now, self.worked, self.calls = 0.0, 0.0, []
        monkeypatch.setattr(comparison.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(comparison.time, "process_time", lambda: self.worked)

    def call(self, who, side, seconds, cores):
        self.now, self.worked = self.now + seconds, self.worked + cores * seconds
        self.calls.append((who, side))
        return np.ones((len(SPEC.readouts), side, side), "f4")

    def library(self, seconds, memory=lambda side: 0):
        def compiled(spec, x, z):
            side = len(x)
            return Program(lambda: self.call("theirs", side, seconds(side), 1.0), memory(side))

        return Library("another", compiled)

    def backend(self, seconds):
        def tile(x, z):
            return self.call("ours", len(x), seconds(len(x)), 1.5)

        return SimpleNamespace(spec=SPEC, prepare=lambda images: images, tile=tile)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_each_is_timed_by_turns_in_the_tile_that_suits_it(clock):
    # Fastest per pair at 4 x 4.
    theirs = clock.library(lambda side: 0.05 * side**2 + 0.2 * side + 0.01 * side**3)
    found = comparison.compare(theirs, clock.backend(lambda side: 0.001 * side**2), IMAGES, 16, 1.0)
    assert (found.theirs.tile, found.ours.tile) == (4, 16)
    expected = (0.05 * 16 + 0.2 * 4 + 0.64) / 16
    assert found.theirs.seconds_per_pair == pytest.approx(expected)
    assert found.ours.seconds_per_pair == pytest.approx(0.001)
    assert found.ratios == pytest.approx([expected / 0.001] * comparison.ROUNDS)
    assert (found.theirs.cores_busy, found.ours.cores_busy) == (pytest.approx(1.0), pytest.approx(1.5))
    rounds = clock.calls[-comparison.ROUNDS * (4 + 1) :]
    once = {"theirs": [("theirs", 4)], "ours": [("ours", 16)] * 4}  # one call of 2.24 s, or four of 0.256 s
    assert rounds == [
        call for who in ("ours", "theirs", "theirs", "ours", "ours", "theirs") for call in once[who]
    ]


def test_each_round_has_a_ratio_of_its_own(clock):
    slower = iter((1.0, 1.0, 3.0, 1.0))  # factors of the warm-up and of three rounds
    theirs, ours = clock.library(lambda side: 60.0), clock.backend(lambda side: next(slower) * side**2)
    warm = {(1, 1): 1.0}
    backend = SimpleNamespace(
        spec=SPEC,
        prepare=lambda images: images,
        tile=lambda x, z: ours.tile(x, z) if len(x) > 1 else np.full((2, 1, 1), warm[1, 1]),
    )
    found = comparison.compare(theirs, backend, IMAGES, 2, 1.0)
    assert found.ratios == pytest.approx((60.0, 20.0, 60.0)) and found.theirs.tile == 1
    assert found.ours.seconds_per_pair == pytest.approx(1.0)  # the median of the rounds


def test_no_larger_tile_than_memory_allows(clock, monkeypatch):
    monkeypatch.setattr(comparison.memory, "available", lambda: 1000)
    backend = clock.backend(lambda side: 0.001 * side**2)
    found = comparison.compare(
        clock.library(lambda side: 0.1, lambda side: 100 * side), backend, IMAGES, 8, 1.0
    )
    assert found.theirs.tile == 4
    clock.calls.clear()
    found = comparison.compare(clock.library(lambda side: 0.1, lambda side: 501), backend, IMAGES, 8, 1.0)
    assert "too much of what is free" in found.reason and not found.wrong and clock.calls == []


def test_an_independent_definition_agrees_and_is_compared():
    found = comparison.compare(library(), backends.create("cpu", SPEC), IMAGES[:4], 2, 0.001)
    assert found.difference < 1e-6 and len(found.ratios) == comparison.ROUNDS and min(found.ratios) > 0


@pytest.mark.parametrize("error", [3e-4, -3e-4, np.nan, np.inf])
def test_numbers_that_differ_are_not_timed(error, clock):
    calls = []

    def spoil(values):
        calls.append(values.shape)
        return off_by(error)(values)

    backend = backends.create("cpu", SPEC)
    found = comparison.compare(library(spoil), backend, IMAGES[:8], 2, 1.0)
    assert isinstance(found, comparison.Refusal) and found.wrong and "differ" in found.reason
    assert calls == [(2, 1, 1)]
    fewer = comparison.compare(library(lambda values: values[:1]), backend, IMAGES[:8], 2, 1.0)
    assert isinstance(fewer, comparison.Refusal) and fewer.wrong


def test_a_small_difference_is_told():
    found = comparison.compare(library(off_by(5e-5)), backends.create("cpu", SPEC), IMAGES[:2], 1, 0.001)
    assert found.difference == pytest.approx(5e-5, rel=0.05)


def test_the_command_tells_ratios_of_columns_that_agree(monkeypatch):
    monkeypatch.setattr(neural_tangents, "library", lambda: library())
    (entry,) = json.loads(succeed(*QUICK, "--columns=CNTK-V", "--json", "--baseline"))["columns"]
    found = entry["baseline"]
    assert found["library"] == "another" and len(found["ratios"]) == comparison.ROUNDS
    assert min(found["ratios"]) <= found["ratio"] <= max(found["ratios"]) and found["difference"] < 1e-6
    text = succeed(*QUICK, "--columns=CNTK-V", "--baseline=neural-tangents")
    ours, theirs = text.splitlines()
    assert ours.startswith("CNTK-V ") and theirs.split()[0] == "another:" and "times the" in theirs
    assert "baseline" not in json.loads(succeed(*QUICK, "--columns=CNTK-V", "--json"))["columns"][0]


def test_the_command_fails_without_a_ratio_where_numbers_differ(monkeypatch):
    wrong = library(off_by(1e-3))
    monkeypatch.setattr(neural_tangents, "library", lambda: wrong)
    done = call(*QUICK, "--columns=CNTK-V", "--baseline")
    assert done.returncode == 1 and "not compared: its numbers differ from ours by 1.0e-03" in done.stdout
    assert "times" not in done.stdout
    done = call(*QUICK, "--columns=CNTK-V", "--baseline", "--json")
    assert done.returncode == 1 and set(json.loads(done.stdout)["columns"][0]["baseline"]) == {
        "library",
        "not_compared",
    }


def test_the_command_says_what_is_not_expressible(monkeypatch):
    some = library(lacks=lambda spec: "not expressible: it has no such pooling")
    monkeypatch.setattr(neural_tangents, "library", lambda: some)
    assert "another: not compared: not expressible" in succeed(*QUICK, "--columns=CNTK-V", "--baseline")


def test_large_ratios_are_told_as_whole_numbers():
    ours, theirs = comparison.Timing(16, 0.05, 1.9), comparison.Timing(1, 64.5, 1.0)
    text = ratios.line(comparison.Comparison("another", 1.2e-6, ours, theirs, (1234.5, 99.97, 1290.0), 2))
    assert "another: 64.5 s per pair, 1,234 times the 50 ms of cntk-bench (100 to 1,290 in 3 rounds" in text
    assert text.endswith("tiles of 1 x 1 and 16 x 16 pairs; cores kept busy, of 2: 1.0 and 1.9")


def test_only_its_poolings_are_expressible(monkeypatch):
    assert neural_tangents.lacking(SPEC) is None
    monkeypatch.setattr(neural_tangents, "POOLS", ("v",))
    assert neural_tangents.lacking(SPEC) == "not expressible: it has no pooling 'gap'"


@pytest.fixture
def untimed(monkeypatch):
    monkeypatch.setattr(measure, "benchmark", lambda *_: pytest.fail("it was timed"))


def test_what_is_missing_is_told_before_anything_is_timed(untimed, monkeypatch):
    for name in ("jax", "neural_tangents", "neural_tangents.stax"):
        monkeypatch.setitem(sys.modules, name, None)
    message = fail("bench", "--baseline")
    assert "needs neural-tangents" in message and "pip install --no-deps neural-tangents" in message
    broken = ModuleType("jax")  # a version that lacks the functions we call
    monkeypatch.setitem(sys.modules, "jax", broken)
    message = fail("bench", "--baseline")
    assert "does not load" in message and "pip install jax==" in message


def test_a_gpu_is_not_compared_with_a_cpu(untimed):
    assert "add --backend cpu" in fail("bench", "--baseline", "--backend", "cuda")
    assert "'neural-tangents'" in fail("bench", "--baseline=torch")


@pytest.fixture
def toy(monkeypatch):
    modules, seen = toy_tangents.modules()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return seen


@pytest.mark.parametrize("flip", ["", "-FLIP"])
def test_the_kernels_asked_of_neural_tangents_are_ours(flip, toy):
    """With a toy in its place, this checks how layers, scales, training and depths are put together."""
    found, images = neural_tangents.library(), IMAGES[:10].reshape(5, 2, 4, 4)
    for column in COLUMNS.split():
        spec = Spec(table.readouts((column + flip, depth) for depth in (3, 4, 6)), 2, 4)
        toy.diagonal.clear()
        values = found.compiled(spec, images[:2], images[2:]).run()
        expected = definition.gram(images[:2], images[2:], readouts=spec.readouts)
        np.testing.assert_allclose(values, expected, rtol=1e-6, err_msg=column)
        assert any(toy.diagonal) == column.endswith("-V")  # V needs fewer covariances
    mixed = Spec((Readout("ntk", "gap", 3), Readout("ntk", "v", 3), Readout("fc-ntk", "", 3, fixed=2)), 2, 4)
    expected = definition.gram(images[:2], images[2:], readouts=mixed.readouts)
    np.testing.assert_allclose(found.compiled(mixed, images[:2], images[2:]).run(), expected, rtol=1e-6)


def test_jax_computes_as_we_do_and_nothing_else_is_changed(toy, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("NPROC", raising=False)
    assert neural_tangents.library().name == "neural-tangents 0.6.5 (jax 0.4.30)"
    assert toy.settings == {"jax_platforms": "cpu", "jax_enable_x64": False} and toy.threads == ["1"]
    assert "NPROC" not in os.environ and "neural_tangents.experimental" not in sys.modules
    monkeypatch.setenv("NPROC", "7")
    neural_tangents.library()
    assert os.environ["NPROC"] == "7" and toy.threads == ["1", "1"]


def test_what_fails_in_it_is_told_with_the_remedy(toy, monkeypatch):
    found = neural_tangents.library()
    monkeypatch.setattr(sys.modules["neural_tangents.stax"], "Conv", None)
    with pytest.raises(UserError, match="neural-tangents fails .* pip install jax"):
        found.compiled(SPEC, IMAGES, IMAGES)


def test_the_real_one_agrees():
    """Runs only where neural-tangents is installed."""
    try:
        found = neural_tangents.library()
    except UserError as missing:
        pytest.skip(str(missing))
    names = (*COLUMNS.split(), "CNTK-GAP-FLIP", "FC-NTK-FLIP")
    readouts = table.readouts((column, depth) for column in names for depth in (3, 4))
    spec = Spec(readouts, 1, 4)
    values = found.compiled(spec, IMAGES[:2], IMAGES[2:5]).run()
    expected = definition.gram(IMAGES[:2], IMAGES[2:5], readouts=readouts)
    np.testing.assert_allclose(values, expected, rtol=1e-4)
