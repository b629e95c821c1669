"""The CPU backend: the backend suite, and the sizes of the real data sets."""

import itertools
import threading

import numpy as np
import pytest
from backend_suite import TABLE, BackendSuite, ordinary, readouts, relative_errors

from cntk_bench.backends.cpu import AT_ONCE, Backend, passes
from cntk_bench.backends.cpu.lanes import LANES
from cntk_bench.backends.cpu.layers import ALL, HIDDEN
from cntk_bench.backends.cpu.slabs import SHORTEST, slabs, width_of
from cntk_bench.kernels.spec import Readout, Spec
from cntk_bench.system.cores import limited


class TestCpu(BackendSuite):
    def create(self, spec):
        return Backend(spec)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_real_sizes(channels, size):
    x = ordinary(2, channels, size)
    x[1, :, :, 16:] = x[0, :, :, 16:]
    assert relative_errors(Backend(Spec(TABLE, channels, size)), x[:1], x[1:]).max() < 1e-6


def test_larger_than_a_warp():
    """40 x 40 pixels: no size is built in."""
    x = ordinary(2, 1, 40)
    backend = Backend(Spec(readouts(("ntk", "v"), ("ntk", "gap"), depths=(3,)), 1, 40))
    assert relative_errors(backend, x[:1], x[1:]).max() < 1e-6


def test_v_costs_one_displacement_and_lap_its_own():
    def places(*kinds):
        return sum(len(each.places) for each in passes(Spec(readouts(*kinds), 3, 32)))

    assert places(("ntk", "v")) == 1
    assert places(("ntk", "v"), ("nngp", "lap:2")) == 9**2
    assert places(("ntk", "v"), ("ntk", "lap:2"), ("ntk", "gap")) == 63**2


def test_every_displacement_is_in_one_pass():
    spec = Spec(readouts(("ntk", "lap:1"), ("nngp", "lap:2"), ("ntk", "gap"), ("ntk", "v")), 1, 11)
    seen = [place for each in passes(spec) for place in each.places]
    assert sorted(seen) == [(a, b) for a in range(-10, 11) for b in range(-10, 11)]
    assert passes(spec)[0].wide is np.float64 and passes(spec)[0].places == [(0, 0)]


def test_a_pass_runs_the_trainings_that_are_read():
    spec = Spec((*readouts(("ntk", "gap"), ("nngp", "gap")), Readout("ntk", "gap", 3, "all")), 1, 5)
    assert [each.states.tolist() for each in passes(spec)] == [[HIDDEN, ALL]] * 2
    assert passes(Spec(readouts(("nngp", "gap")), 1, 5))[0].states.tolist() == []


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_same_bits_whatever_stands_beside(symmetric):
    """An entry depends only on its two images, not on lanes, groups of lanes, or the threads' jobs."""
    x = ordinary(LANES + 5, 1, 6)
    backend = Backend(Spec(TABLE, 1, 6))
    whole = backend.tile(backend.prepare(x), backend.prepare(x), symmetric)
    for i, j in ((0, 0), (LANES, 3), (LANES + 4, LANES + 4), (LANES + 1, LANES - 1)):
        one = backend.tile(backend.prepare(x[i : i + 1]), backend.prepare(x[j : j + 1]))
        assert (one[:, 0, 0] == whole[:, i, j]).all()


def test_tiles_take_turns_in_the_same_threads(monkeypatch):
    """A tile that is started while another one is computed waits for it: both would share its caches."""
    jobs = []

    class Noting(Backend):
        def _add(self, each, x, some, z, block, out):
            jobs.append((threading.get_ident(), len(z.exponents)))
            super()._add(each, x, some, z, block, out)

    backend = Noting(Spec(readouts(("ntk", "v"), depths=(3,)), 1, 6))
    x, z = (backend.prepare(ordinary(n, 1, 6)) for n in (48, 16))
    with limited(1):
        first, second = backend.start(x, x), backend.start(x, z)
        assert (first() == backend.tile(x, x)).all()
        assert (second() == backend.tile(x, z)).all()
    assert len({thread for thread, _ in jobs}) == 1
    assert [size for size, _ in itertools.groupby(size for _, size in jobs)] == [48, 16, 48, 16]


def test_images_are_prepared_alike_in_any_company():
    """A few at a time, so that their planes stay in the cache."""
    x = ordinary(AT_ONCE + 2, 2, 5)
    backend = Backend(Spec(TABLE, 2, 5))
    whole = backend.prepare(x)
    for i in (0, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1):
        one = backend.prepare(x[i : i + 1])
        assert one.exponents == whole.exponents[i]
        for wide, arrays in one.arrays.items():
            for mine, all_of_them in zip(arrays, whole.arrays[wide], strict=True):
                assert (mine[0] == all_of_them[i]).all()


@pytest.mark.parametrize("size", [1, 5, 8, 32, 40])
def test_slabs_hold_every_entry_once(size):
    places = [(a, b) for a in range(1 - size, size) for b in range(1 - size, size) if (a + b) % 3 or not a]
    found, columns, ends = slabs(size, places)
    assert found[0, 1] == 0 and found[-1, 2] == len(columns) and (found[1:, 1] == found[:-1, 2]).all()
    assert found[0, 3] == 0 and found[-1, 4] == len(ends) and (found[1:, 3] == found[:-1, 4]).all()
    seen = []
    for a, begin, end, first, last in found.tolist():
        row, bounds = columns[begin:end].tolist(), ends[first:last].tolist()
        assert bounds[0] == 0 and bounds[-1] == end - begin <= width_of(found)
        assert sum(x >= 0 for x, _ in row) <= max(size, SHORTEST)
        for before, stop in itertools.pairwise(bounds):  # the bounds of a rectangle
            assert row[before] == [-1, -1]
            b = row[before + 1][1] - row[before + 1][0]
            seen.append((a, b))
            assert row[before + 1 : stop] == [[max(0, -b) + j, max(0, b) + j] for j in range(size - abs(b))]
    assert sorted(seen) == sorted(places)
