"""Folders that ship with the package: the CUDA sources and the configs."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def folder(name: str) -> Traversable:
    """Find "kernels_cuda" or "configs": inside the package in a wheel, next to it in a checkout."""
    inside = files("cntk_bench") / name
    return inside if inside.is_dir() else Path(__file__).parents[2] / name


def configs() -> list[str]:
    """Names of the configs that ship, sorted."""
    return sorted(Path(entry.name).stem for entry in folder("configs").iterdir())
