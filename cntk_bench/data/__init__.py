"""Data sets: images (n, C, P, P) float32 and labels (n,) int64, checked, ordered and prepared.

`dataset` is the way in; `digits`, `npz`, `official` and `idx` each read one kind of source;
`checks`, `order` and `scaling` are the steps that all of them share.
"""

from cntk_bench.data.dataset import Dataset, load, require_known
from cntk_bench.data.official import FETCHABLE, fetch

__all__ = ["FETCHABLE", "Dataset", "fetch", "load", "require_known"]
