"""Data sets: images (n, C, P, P) float32 and labels (n,) int64, checked, ordered and prepared.

`dataset` is the way in; `digits`, `npz`, `official` and `idx` each read one kind of source;
`checks` and `order` are what all of them share; `preparation` lists the steps that images are prepared by,
of which `scaling` and `whitening` are two.
"""

from cntk_bench.data.dataset import Dataset, load, require_known
from cntk_bench.data.official import FETCHABLE, fetch
from cntk_bench.data.preparation import SCALES, STEPS, Recipe, steps

__all__ = ["FETCHABLE", "SCALES", "STEPS", "Dataset", "Recipe", "fetch", "load", "require_known", "steps"]
