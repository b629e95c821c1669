"""The CPU backend: the suite, and the sizes of the real data sets."""

import numpy as np
import pytest
from backend_suite import TABLE, BackendSuite, ordinary, readouts, relative_errors

from cntk_bench.backends.cpu import Backend, passes
from cntk_bench.kernels.spec import Spec


class TestCpu(BackendSuite):
    def create(self, spec):
        return Backend(spec)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_real_sizes(channels, size):
    x = ordinary(2, channels, size)
    x[1, :, :, 16:] = x[0, :, :, 16:]
    assert relative_errors(Backend(Spec(TABLE, channels, size)), x[:1], x[1:]).max() < 1e-6


def test_larger_than_a_warp():
    """No size is built in."""
    x = ordinary(2, 1, 40)
    backend = Backend(Spec(readouts(("ntk", "v"), ("ntk", "gap"), depths=(3,)), 1, 40))
    assert relative_errors(backend, x[:1], x[1:]).max() < 1e-6


def test_v_costs_one_displacement_and_lap_its_own():
    def planes(*kinds):
        return sum(len(rows) for each in passes(Spec(readouts(*kinds), 3, 32)) for rows in each.rows)

    assert planes(("ntk", "v")) == 1
    assert planes(("ntk", "v"), ("nngp", "lap:2")) == 9**2
    assert planes(("ntk", "v"), ("ntk", "lap:2"), ("ntk", "gap")) == 32**2


def test_every_displacement_is_in_one_pass():
    spec = Spec(readouts(("ntk", "lap:1"), ("nngp", "lap:2"), ("ntk", "gap"), ("ntk", "v")), 1, 11)
    seen = [
        (a, b) for each in passes(spec) for b, rows in zip(each.columns, each.rows, strict=True) for a in rows
    ]
    assert sorted(seen) == [(a, b) for a in range(11) for b in range(11)]
    assert passes(spec)[0].wide is np.float64 and passes(spec)[0].columns == [0]
