"""Errors of a backend against float64, on CIFAR-10's images and on images that provoke rounding.

    python scripts/precision.py cifar10.npz                       # the CUDA kernels, on the CPU emulator
    python scripts/precision.py cifar10.npz --backend cpu         # or cuda

Prints the largest relative error over depths 3, 4, 6, 11, 21 as a Markdown table.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "emulator")]

from cntk_bench import backends  # noqa: E402
from cntk_bench.kernels import convolutional as reference  # noqa: E402
from cntk_bench.kernels.spec import Readout, Spec  # noqa: E402

COLUMNS = {"CNTK-V": ("ntk", "v"), "CNTK-GAP": ("ntk", "gap"), "NNGP-GAP": ("nngp", "gap")}
# Those of CIFAR-10, per channel, for made-up images.
MEAN, DEVIATION = (125.307, 122.950, 113.865), (62.993, 62.089, 66.705)
DEPTHS = (3, 4, 6, 11, 21)
READOUTS = tuple(Readout(*kind, depth) for kind in COLUMNS.values() for depth in DEPTHS)
FLAT = ("photographs, two fifths flat to 2 grey levels", "an object before white")
NEARLY_FLAT = ("the same, some pixels a grey level darker", "one grey level and the next")


def families(images) -> dict[str, list]:
    """Pairs of images (C, P, P), by what is special about them, made from images (n, C, P, P), 0 .. 255.

    Photographs with flat parts are left out if there are none among the images.
    """
    x = ((images - images.mean((0, 2, 3), keepdims=True)) / images.std((0, 2, 3), keepdims=True)).astype("f4")
    size = x.shape[-1]
    torn = x[0].copy()
    torn[:, size // 3 : size // 3 + 2] = x[1, :, size // 3 : size // 3 + 2]
    white = [image for image, raw in zip(x, images, strict=True) if (raw >= 250).mean() > 0.4]

    medians = np.median(images, (2, 3))
    flat_part = (abs(images - medians[..., None, None]) <= 2).all(1).mean((1, 2))
    flattest = [i for i in np.lexsort(medians.T) if flat_part[i] > 0.4]
    flattest = [(i, j) for i, j in pairwise(flattest) if abs(medians[i] - medians[j]).max() <= 2]

    mean, deviation = (np.array(values[: images.shape[1]]) for values in (MEAN, DEVIATION))
    rng = np.random.default_rng(0)

    def nearly_white(level, count):
        """An object before a uniform grey level, with up to `count` channels of pixels one level darker."""
        raw = np.full_like(images[0], level)
        for channel, i, j in rng.integers((len(raw), size, size), size=(count, 3)):
            raw[channel, i, j] -= 1
        thing = np.s_[:, size // 8 : size // 3, size // 8 : size // 3]
        raw[thing] = rng.integers(0, 256, raw[thing].shape)
        return standardized(raw)

    def standardized(raw):
        return ((raw - mean[:, None, None]) / deviation[:, None, None]).astype(np.float32)

    def uniform(level):
        return standardized(np.full_like(images[0], level))

    def flat(image, level):
        image = image.copy()
        image[:, :, size // 2 :] = level
        return image

    def dot(level, row, column):
        image = np.full_like(x[0], level)
        image[:, row : row + 2, column : column + 2] = 1
        return image

    pairs = {
        "ordinary": list(zip(x[:12:2], x[1:12:2], strict=True)),
        "itself, its negative, 2.3 times it, all but two rows of it": [
            (x[0], z) for z in (x[0], -x[0], np.float32(2.3) * x[0], torn)
        ],
        "photographs, white to 5 grey levels": list(zip(white[:6:2], white[1:6:2], strict=True)),
        FLAT[0]: [(x[i], x[j]) for i, j in flattest[:5]],
        "half flat, of one level": [
            (flat(x[0], level), flat(x[1], level)) for level in (0.3, 0.77, 0.9, 1.234, 1.7, 1.9, 2.0, 2.5)
        ],
        "half flat, of two levels": [(flat(x[0], 2), flat(x[1], 0.7)), (flat(x[0], 1.1), flat(x[1], -1.9))],
        FLAT[1]: [(nearly_white(255, 0), nearly_white(255, 0))],
        NEARLY_FLAT[0]: [
            (nearly_white(level, count), nearly_white(level, count))
            for level, count in ((255, 3), (255, 30), (200, 30), (255, 200))
        ],
        NEARLY_FLAT[1]: [
            *((nearly_white(level, 0), nearly_white(level + 1, 0)) for level in (18, 196, 254)),
            (uniform(196), uniform(197)),  # of all levels the worst
        ],
        "a dot on a dim background": [(dot(v, 5, 7), dot(w, 20, 9)) for v, w in ((0.1, 0.1), (0.003, 0.01))],
    }
    return {name: of_them for name, of_them in pairs.items() if of_them}


def bounds(family: str) -> tuple[float, ...]:
    """The largest error allowed for each of COLUMNS.

    Nearly flat backgrounds make angles below some 6e-4, which float32 cannot tell from zero. V, which is more
    precise, and NNGP, which depends on the square of the angle, are not affected.
    """
    gap = 4e-4 if family in NEARLY_FLAT else 1e-5 if family in FLAT else 3e-6
    return 1e-6, gap, 1e-6


def largest_errors(backend, pairs) -> np.ndarray:
    """Largest relative error of some pairs against float64: (columns,), for a backend of READOUTS."""
    errors = []
    for x, z in pairs:
        tile = backend.tile(backend.prepare(x[None]), backend.prepare(z[None]))
        exact = reference.gram(x[None], z[None], readouts=READOUTS)
        errors.append(abs(tile / exact - 1).reshape(len(COLUMNS), len(DEPTHS)))
    return np.max(errors, axis=(0, 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="an .npz file with x_train (n, P, P, C), 0 .. 255")
    parser.add_argument("--backend", choices=("emulated", "cpu", "cuda"), default="emulated")
    parser.add_argument(
        "--ulps", type=int, default=0, help="of the emulator: how far its fast operations err"
    )
    arguments = parser.parse_args()
    images = np.moveaxis(np.load(arguments.data)["x_train"][:3000].astype(np.float64), -1, 1)
    spec = Spec(READOUTS, *images.shape[1:3])
    if arguments.backend == "emulated":
        from emulated import Emulator

        from cntk_bench.backends.cuda import Backend

        backend = Backend(spec, Emulator(ulps=arguments.ulps))
    else:
        backend = backends.create(arguments.backend, spec)
    print(f"| images | pairs | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    for name, pairs in families(images).items():
        errors = (f"{error:.1e}" for error in largest_errors(backend, pairs))
        print(f"| {name} | {len(pairs)} | {' | '.join(errors)} |", flush=True)


if __name__ == "__main__":
    main()
