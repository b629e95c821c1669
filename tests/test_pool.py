"""Pools: their names, and their exact weights against brute force over pixels."""

import numpy as np
import pytest

from cntk_bench.backends.rings import rings
from cntk_bench.errors import UserError
from cntk_bench.kernels.pool import Pool
from cntk_bench.kernels.spec import Readout, Spec

NAMES = ["v", "gap", *(f"lap:{c}" for c in range(5))]


def near(name, size, o, i):
    """Whether, along an axis, output o sums over pixel i."""
    return name == "gap" or abs(o - i) <= (int(name[4:]) if ":" in name else 0)


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_pixels_pooled_together(name, size):
    pool = Pool.parse(name)
    outputs = range(1 if name == "gap" else size)
    together = np.array(
        [
            [sum(near(name, size, o, i) and near(name, size, o, k) for o in outputs) for k in range(size)]
            for i in range(size)
        ]
    )
    np.testing.assert_array_equal(pool.counts(size), together)
    # Pixels that an output averages, along an axis.
    pooled = {"v": 1, "gap": size}.get(name) or 2 * int(name[4:]) + 1
    assert pool.divisor(size) == pooled**2
    np.testing.assert_array_equal(pool.weights(size), together / pooled**2)
    needed = {(k - i) % size for i in range(size) for k in range(size) if together[i, k]}
    assert pool.reach(size) == tuple(sorted(needed))


def test_plain_sums():
    assert Pool("v").plain(8) and Pool("gap").plain(8) and not Pool("lap", 2).plain(8)


@pytest.mark.parametrize("name", NAMES)
def test_a_pool_parses_its_own_name(name):
    assert str(Pool.parse(name)) == name


@pytest.mark.parametrize(
    "name", ["lap", "lap:", "lap:01", "lap:10000", "lap:-1", "v:1", "gap:0", "V", "", None, "mid"]
)
def test_any_other_name_is_refused_with_those_that_are_known(name):
    with pytest.raises(UserError, match=r"use 'v', 'gap', 'lap:C', such as 'lap:4'") as error:
        Pool.parse(name)
    assert f"pool {name!r} " in str(error.value)


def test_every_displacement_is_in_one_ring_with_the_pools_that_need_it():
    chosen = [Readout("nngp", pool, 3) for pool in ("lap:1", "gap", "v", "lap:2")]
    spec = Spec(tuple(chosen), 1, 8)
    found = {d: ring.pools for ring in rings(spec) for d in ring.displacements}
    assert sum(len(ring.displacements) for ring in rings(spec)) == len(found) == 64
    for (a, b), pools in found.items():
        assert set(pools) == {p for p in spec.pools if a in p.reach(8) and b in p.reach(8)}
    assert rings(spec)[0].displacements == ((0, 0),)
