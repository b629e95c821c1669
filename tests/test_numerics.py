"""A numerics version stands for certain bits: they change only when the version is raised.

Bits do not depend on the width of vectors (AVX2 and AVX-512 give the same), but on fused multiply-adds,
which round once: a CPU without them gives other bits, within what `verify` allows.
"""

import json

import golden
import numpy as np
import pytest

from cntk_bench.backends import cpu, cuda
from cntk_bench.grams import verify as verification
from cntk_bench.kernels import convolutional as reference

REMEDY = (
    "raise NUMERICS in cntk_bench/backends/{}.py if bits can change by it, and run scripts/make_golden.py"
)


def has_fma() -> bool:
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    return bool(features.get("fma") or features.get("neon"))


def kept(channels, size):
    return np.load(golden.FIXTURES / "golden-cpu.npz")[f"{channels}x{size}"]


@pytest.mark.parametrize(("channels", "size"), golden.SHAPES)
def test_the_bits_of_the_cpu(channels, size):
    if not has_fma():
        pytest.skip("this CPU has no fused multiply-adds")
    assert (golden.entries(channels, size) == kept(channels, size)).all(), REMEDY.format("cpu")


@pytest.mark.parametrize(("channels", "size"), golden.SHAPES)
def test_the_bits_of_the_cpu_are_right_ones(channels, size):
    """The kept bits are close to the definition, so wrong ones cannot become golden by mistake."""
    exact = reference.gram(golden.images(channels, size), readouts=golden.READOUTS)
    own = np.sqrt(np.einsum("rii->ri", abs(exact)))
    allowed = np.array([verification.tolerance(r) for r in golden.READOUTS])[:, None, None]
    assert (abs(kept(channels, size) - exact) <= allowed * own[:, :, None] * own[:, None]).all()


@pytest.mark.parametrize("name", golden.SETS)
def test_the_instructions_of_cuda(name):
    nvrtc = pytest.importorskip("cupy", reason="no CuPy: install the extra [test]").cuda.nvrtc
    made = json.loads((golden.FIXTURES / "golden-cuda.json").read_text())
    try:
        version = list(nvrtc.getVersion())
    except Exception as error:
        pytest.skip(f"no NVRTC ({error})")
    if version != made["nvrtc"]:
        pytest.skip(f"NVRTC {version} orders instructions in another way than {made['nvrtc']}")
    found = golden.instructions(name)
    assert found == {key: made["ptx"][key] for key in found}, REMEDY.format("cuda")


def test_comments_are_no_instructions(monkeypatch):
    """A changed comment leaves the digests alone; a changed constant does not."""
    pytest.importorskip("cupy", reason="no CuPy: install the extra [test]")
    text, before = golden.cuda_sources.text, golden.instructions("V")
    monkeypatch.setattr(golden.cuda_sources, "text", lambda module: "// new\n" + text(module))
    assert golden.instructions("V") == before
    changed = {"B1 = 1.475": "B1 = 1.476"}

    def altered(module):
        found = text(module)
        for old, new in changed.items():
            found = found.replace(old, new)
        return found

    monkeypatch.setattr(golden.cuda_sources, "text", altered)
    assert golden.instructions("V") != before


def test_both_backends_say_their_version():
    assert (cpu.NUMERICS, cuda.NUMERICS) == (2, 1)
