"""Data sets: images (n, C, P, P) float32 and labels (n,) int64, checked, ordered and prepared.

Start from `dataset`; `sources` lists what can be read. `digits`, `npz`, `npy` (.npy), `folder` (with
`picture` and `table`) and `official` (with `cifar`, `binary`, `idx` and `download`) each read one kind of
source; all of them share `checks`, `classes` and `order`. `preparation` lists the preprocessing steps, two of
which are in `scaling` and `whitening`.
"""

from cntk_bench.data.dataset import Dataset, load
from cntk_bench.data.official import CIFAR, FETCHABLE, SVHN, fetch
from cntk_bench.data.preparation import SCALES, STEPS, Recipe, steps
from cntk_bench.data.sources import canonical, is_known, require_known

__all__ = [
    "CIFAR",
    "FETCHABLE",
    "SCALES",
    "STEPS",
    "SVHN",
    "Dataset",
    "Recipe",
    "canonical",
    "fetch",
    "is_known",
    "load",
    "require_known",
    "steps",
]
