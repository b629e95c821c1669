"""The script that counts a CPU's cycles finds the loops in the code that LLVM made."""

import platform
import re
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import cpu_roofline

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="it reads the instructions of x86")
BITS = {"x": 128, "y": 256, "z": 512}


@pytest.fixture(scope="module", params=["float32", "float64"])
def plane(request):
    (each,) = (one for name, _, one in cpu_roofline.passes() if name.startswith(request.param))
    return request.param, cpu_roofline.loops(cpu_roofline.assembly(each))


def test_each_loop_is_found_once_with_all_its_work(plane):
    """Products in float32: 4 of a polynomial and 6 others up to the root, then 8 and 6; and n_x n_z."""
    precision, loops = plane
    expected = (11, 14) if precision == "float32" else (10, 14)
    for body, products in zip(loops, expected, strict=True):
        seen = [re.search(r"v(?:mul|fn?m(?:add|sub)\d+)ps.*%([xyz])mm", one) for one in body]
        bits = sum(BITS[one[1]] for one in seen if one)
        assert bits / (32 * cpu_roofline.lanes.LANES) == products * cpu_roofline.entries(body)


@pytest.mark.skipif(shutil.which("llvm-mca") is None, reason="needs LLVM's tools")
def test_cycles_are_those_of_one_entry(plane):
    for body in plane[1]:
        one, twice = (cpu_roofline.cycles(text, "skylake-avx512") for text in (body, body * 2))
        assert twice == pytest.approx(one, rel=0.1)
        assert one["all, in order"] >= max(one[unit] for unit in cpu_roofline.UNITS["skylake-avx512"])
