"""Write what tests/test_numerics.py expects of the backends; to be run after raising a numerics version.

    python scripts/make_golden.py

Needs a CPU with fused multiply-adds, and the NVRTC of the extra [test].
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(folder) for folder in (Path(__file__).parents[1], Path(__file__).parents[1] / "tests")]

import golden  # noqa: E402
import test_fully_connected_backends as fully_connected  # noqa: E402


def main():
    from cupy.cuda import nvrtc

    bits = {f"{c}x{p}": golden.entries(c, p) for c, p in golden.SHAPES}
    np.savez_compressed(golden.FIXTURES / "golden-cpu.npz", **bits)
    version, ptx = fully_connected.instructions()
    np.savez_compressed(
        golden.FIXTURES / "golden-fully-connected.npz", K=fully_connected.golden()[1], nvrtc=version, ptx=ptx
    )
    digests = {key: value for name in golden.SETS for key, value in golden.instructions(name).items()}
    kept = {"nvrtc": list(nvrtc.getVersion()), "ptx": digests}
    (golden.FIXTURES / "golden-cuda.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
