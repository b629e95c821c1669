"""Folders that ship with the package: the CUDA sources and the configs."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def folder(name: str) -> Traversable:
    """A folder that a wheel has inside the package, and a checkout beside it: "kernels_cuda", "configs"."""
    inside = files("cntk_bench") / name
    return inside if inside.is_dir() else Path(__file__).parents[2] / name
