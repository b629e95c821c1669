"""What columns are trained from, as a run has it (`columns.Material`), and what of it is trained."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench import columns
from cntk_bench.columns import Job
from cntk_bench.data import Dataset
from cntk_bench.runs import images
from cntk_bench.runs.config import Config
from cntk_bench.runs.directory import Run


class Material:
    """The images of a run, its settings, and its folders.

    Parameters
    ----------
    run : Run
    settings : Config
    facts : dict
        What a record says of the images (`images.facts`).
    loaded : Dataset, optional
        The images, where they are loaded already; else they are when they are first needed.
    """

    def __init__(self, run: Run, settings: Config, facts: dict, loaded: Dataset | None = None):
        self._run, self._settings, self.facts = run, settings, facts
        if loaded is not None:
            self.loaded = loaded

    @cached_property
    def loaded(self) -> Dataset:
        """The images."""
        return images.load(self._settings)

    @property
    def classes(self) -> int:
        """As `columns.Material`."""
        return self.facts["classes"]

    @property
    def y_train(self) -> np.ndarray:
        """As `columns.Material`."""
        return self.loaded.y_train

    def section(self, name: str) -> Any:
        """As `columns.Material`."""
        return self._settings.section(name)

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """As `columns.Material`."""
        return self.loaded.x_train, self.loaded.x_test

    def fingerprint(self) -> str:
        """As `columns.Material`."""
        return self.facts.get("images") or str(images.kept(self.loaded).fingerprint)

    def folder(self, name: str, depth: int) -> Path:
        """As `columns.Material`."""
        return self._run.networks / f"{name}-{depth}"


def jobs(settings: Config, material: columns.Material) -> Iterator[tuple[str, int, list[Job]]]:
    """(column, depth, jobs) of every cell that has to be trained."""
    for name, depth in settings.kernel.cells:
        column = columns.trained(name)
        if column is not None and depth is not None:
            yield name, depth, list(column.jobs(depth, material))
