"""The limit set by instruction issue, computed by hand; that the counts are right is tested elsewhere."""

import pytest
from backend_suite import readouts

from cntk_bench.backends.cuda import Backend
from cntk_bench.backends.cuda import limit as cuda_limit
from cntk_bench.backends.cuda.limit import INSTRUCTIONS, pairs_per_second, warps
from cntk_bench.backends.cuda.zones import zones
from cntk_bench.kernels.spec import Spec

H200 = (90, 132, 1.98e9)
ISSUED = 132 * 4 * 1.98e9  # warp instructions issued per second
V, GAP = readouts(("ntk", "v")), readouts(("ntk", "gap"), ("nngp", "gap"))


def test_v_at_cifars_size():
    """One warp for each pair; in each of 20 layers, a lane has 32 rows."""
    issued, _ = INSTRUCTIONS["diagonal", 1]
    assert pairs_per_second(zones(Spec(V, 3, 32)), *H200) == pytest.approx(ISSUED / (20 * 32 * issued))


def test_gap_at_cifars_size():
    """1,024 planes of 16 lanes each fill 512 warps; the plane (0, 0) has a kernel of its own."""
    (issued, _), (other, _) = INSTRUCTIONS["displacements", 1], INSTRUCTIONS["diagonal", 1]
    clocks = 20 * (512 * 2 * 32 * issued + 32 * other)
    assert pairs_per_second(zones(Spec(GAP, 3, 32)), *H200) == pytest.approx(ISSUED / clocks)


def test_idle_lanes_and_warps_cost_what_busy_ones_do():
    """5 x 5 pixels: each of 5 launches is one block of 4 warps, though its 4 or 5 planes fill at most 3."""
    outer = zones(Spec(GAP, 1, 5))[1]
    assert warps(outer) == 5 * 4


def test_chips_whose_fma_units_take_every_other_clock():
    _, fma = INSTRUCTIONS["diagonal", 1]
    of_v = zones(Spec(V, 3, 32))
    for capability in (75, 80):
        rate = pairs_per_second(of_v, capability, 132, 1.98e9)
        assert rate == pytest.approx(ISSUED / (20 * 32 * 2 * fma))
    assert pairs_per_second(of_v, 86, 132, 1.98e9) == pairs_per_second(of_v, *H200)


def test_a_backends_limit_is_that_of_its_gpu():
    class Sized:
        def issue(self):
            return 90, 10, 1e9

    backend = Backend.__new__(Backend)  # creates it without compiling kernels
    backend.spec, backend.gpu = Spec(V, 3, 32), Sized()
    assert backend.limit() == cuda_limit.pairs_per_second(zones(backend.spec), 90, 10, 1e9)
