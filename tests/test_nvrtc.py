"""Every kernel compiles for every supported GPU without spilling registers; no GPU is needed."""

import sys
from pathlib import Path

import pytest
from backend_suite import readouts

from cntk_bench.backends.cuda import MODULES, Zone, zones
from cntk_bench.spec import Spec

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from count_sass import compile_module, resources, specs  # noqa: E402

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100")


@pytest.fixture(scope="module", autouse=True)
def nvrtc():
    """NVRTC, or a skip where it cannot be had: on a machine that NVIDIA's compiler does not run on."""
    cupy = pytest.importorskip("cupy", reason="no CuPy: install the extra [test]")
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # a library that cannot be loaded raises whatever its loader likes
        pytest.skip(f"no NVRTC: install nvidia-cuda-nvrtc ({error})")


def check(module: str, zone: Zone, architecture: str):
    registers, spills = resources(compile_module(module, zone.options(module), architecture)[1])
    print(f"{architecture} {module}: {registers} registers, {spills} bytes spilled")
    assert spills == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("module", MODULES)
def test_the_table_of_cifar(module, architecture):
    """All that is needed for CNTK-V, CNTK-GAP and their NNGPs, at all depths."""
    middle, ring = zones(specs(32)["V, GAP, NNGP"])
    check(module, ring if module == "displacements" else middle, architecture)


@pytest.mark.parametrize(
    "kinds",
    [
        [("ntk", "gap", "hidden"), ("ntk", "gap", "all")],
        [("ntk", "gap"), ("ntk", "lap:4", "all"), ("nngp", "lap:6")],
    ],
    ids=["both trainings", "GAP and windows"],
)
def test_other_sets_of_readouts(kinds):
    for number, zone in enumerate(zones(Spec(readouts(*kinds), 3, 32))):
        check("displacements" if number else "diagonal", zone, "sm_90")


@pytest.mark.parametrize(("channels", "size"), [(1, 5), (1, 8), (1, 28)])
def test_other_sizes(channels, size):
    for number, zone in enumerate(zones(Spec(readouts(("ntk", "v"), ("ntk", "gap")), channels, size))):
        check("displacements" if number else "diagonal", zone, "sm_90")
