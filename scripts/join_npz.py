"""Join parts of an .npz that was cut along the first axis of its arrays.

    python scripts/join_npz.py TARGET.npz N M PART.npz...

Unless the parts, in the order of their names, make N training images and M test images, nothing is written. A
target that is there is left as it is.
"""

import sys
from pathlib import Path

import numpy as np


def join(target: Path, n: int, m: int, parts: list[Path]) -> None:
    """Write the joined file; ValueError if parts are missing."""
    loaded = [np.load(part) for part in sorted(parts)]
    arrays = (
        {name: np.concatenate([part[name] for part in loaded]) for name in loaded[0].files} if loaded else {}
    )
    found = tuple(len(arrays.get(name, ())) for name in ("x_train", "x_test"))
    if found != (n, m):
        raise ValueError(f"{len(parts)} parts have {found} training and test images, not {n, m}")
    partial = target.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.replace(target)


if __name__ == "__main__":
    path, *counts = sys.argv[1:4]
    if not Path(path).exists():
        join(Path(path), *map(int, counts), [Path(part) for part in sys.argv[4:]])
    print(path, Path(path).stat().st_size)
