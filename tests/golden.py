"""What a numerics version fixes: for the CPU the bits of Gram entries, for CUDA the kernels' PTX.

NVRTC compiles the sources to PTX for every chip: the same instructions give the same bits.
"""

import hashlib
import re
from pathlib import Path

import numpy as np

from cntk_bench.backends import cpu
from cntk_bench.backends.cuda import sources as cuda_sources
from cntk_bench.backends.cuda.zones import zones
from cntk_bench.kernels.spec import Readout, Spec

FIXTURES = Path(__file__).with_name("fixtures")
SHAPES = ((1, 1), (3, 2), (1, 5), (3, 8))  # channels, size
READOUTS = (
    *(Readout("ntk", pool, d, "all") for pool in ("v", "gap", "lap:1") for d in (3, 21)),
    *(Readout("ntk", pool, d, "hidden") for pool in ("v", "gap", "lap:1") for d in (3, 21)),
    *(Readout("nngp", pool, d) for pool in ("v", "gap", "lap:2") for d in (2, 21)),
)
SETS = {"V": READOUTS[:2], "GAP": READOUTS[8:10], "all": READOUTS}


def images(channels: int, size: int) -> np.ndarray:
    """Images (5, C, P, P), float32: ordinary, two sharing a flat half, a negated one, a bright one."""
    x = np.random.default_rng(size).standard_normal((5, channels, size, size)).astype(np.float32)
    x[1, :, :, size // 2 :] = x[2, :, :, size // 2 :] = 1.7
    x[3] = -x[0]
    x[4] *= 100
    return x


def entries(channels: int, size: int) -> np.ndarray:
    """Gram entries (readouts, 5, 5), float32, from the CPU backend."""
    worker = cpu.Backend(Spec(READOUTS, channels, size))
    x = worker.prepare(images(channels, size))
    return worker.tile(x, x, symmetric=True)


def instructions(name: str) -> dict[str, str]:
    """Digests of the PTX of a set of readouts' kernels at 32 x 32: module and zone -> SHA-256."""
    from cupy.cuda import nvrtc

    found = {}
    for number, zone in enumerate(zones(Spec(SETS[name], 3, 32))):
        for module in (zone.kernel, "deviations", "readouts"):
            options = cuda_sources.options(module, zone.constants(228 << 10))
            program = nvrtc.createProgram(cuda_sources.text(module), f"{module}.cu", [], [])
            nvrtc.compileProgram(program, [*options, "-arch=compute_90"])
            text = nvrtc.getPTX(program).decode()
            nvrtc.destroyProgram(program)
            found[f"{name}, {module} of zone {number}"] = digest(text)
    return found


def digest(ptx: str) -> str:
    """Digest of all floating-point arithmetic and its constants, sorted as NVRTC's order varies."""
    lines = (re.sub(r"^@!?%p\d+\s+", "", line.strip()) for line in ptx.splitlines())
    kept = [line for line in lines if re.match(r"(?!ld|st|mov)[a-z.]+\.f(32|64)", line.split(" ")[0])]
    plain = sorted(f"{line.split()[0]} {re.findall('0[fd][0-9A-F]+', line)}" for line in kept)
    return hashlib.sha256("\n".join(plain).encode()).hexdigest()
