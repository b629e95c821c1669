"""A run's material for training columns (`columns.Material`), and the training jobs of its cells."""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from cntk_bench import columns
from cntk_bench.columns import Job
from cntk_bench.columns.column import Done, Effort
from cntk_bench.config.config import Config
from cntk_bench.data import Dataset
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.runs import images


class Material:
    """The images, settings and folders of a run, for columns, which see one draw at a time.

    An instance is for the first draw; `each_draw` returns one for each.

    Parameters
    ----------
    run : Run
    settings : Config
    facts : dict
        The record's facts about the images (`images.record_facts`).
    loaded : Dataset, optional
        The images, if they are already loaded; by default loaded when first needed.
    """

    def __init__(self, run: Run, settings: Config, facts: dict, loaded: Dataset | None = None):
        self._run, self._settings, self.facts = run, settings, facts
        self.draws, self._draw = record.draws(facts), 0
        self._loaded: Callable[[], Dataset] = cache(self._load_images) if loaded is None else lambda: loaded

    def each_draw(self) -> Sequence[Self]:
        """Return the material of each draw; they share the loaded images."""
        found = [copy(self) for _ in range(self.draws)]
        for draw, one in enumerate(found):
            one._draw = draw
        return found

    @property
    def loaded(self) -> Dataset:
        """The images of all draws."""
        return self._loaded()

    def _load_images(self) -> Dataset:
        return images.load(self._settings)

    @property
    def _part(self) -> slice:
        """The slice of all training images that belongs to this draw."""
        return images.of_draw(self._draw, self.facts["n_train"])

    @property
    def classes(self) -> int:
        """See `columns.Material`."""
        return self.facts["classes"]

    @property
    def y_train(self) -> np.ndarray:
        """See `columns.Material`."""
        return self.loaded.y_train[self._part]

    def section(self, name: str) -> Any:
        """See `columns.Material`."""
        return self._settings.section(name)

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """See `columns.Material`."""
        return self.loaded.x_train[self._part], self.loaded.x_test

    def fingerprint(self) -> str:
        """See `columns.Material`."""
        if self.draws == 1:
            return self.facts.get("images") or str(images.image_facts(self.loaded).fingerprint)
        known = self.facts.get("images_of_draws")
        return (known or images.of_draws(self.loaded, images.image_facts(self.loaded)))[self._draw]

    def folder(self, name: str, depth: int) -> Path:
        """See `columns.Material`."""
        draw = f"-draw-{self._draw + 1}" if self._draw else ""  # the first draw equals a run without draws
        return self._run.networks / f"{name}-{depth}{draw}"


@dataclass(frozen=True)
class _OfDraw:
    """A training job (`columns.Job`) of one of several draws d = 1, 2, ..., which its label names."""

    job: Job
    draw: int

    @property
    def label(self) -> str:
        return f"{self.job.label}, draw {self.draw}"

    @property
    def folder(self) -> Path:
        return self.job.folder

    def done(self) -> Done:
        return self.job.done()

    def do(self, report: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        self.job.do(report, stopped)

    @property
    def effort(self) -> Callable[[], Effort]:
        return self.job.effort  # type: ignore[attr-defined]  # AttributeError if it has none


def jobs(settings: Config, material: Material) -> Iterator[tuple[str, int, list[Job]]]:
    """Yield (column, depth, jobs of all draws) for every cell that needs training."""
    draws = material.each_draw()
    for name, depth in settings.kernel.cells:
        column = columns.trained(name)
        if column is not None and depth is not None:
            yield (
                name,
                depth,
                [
                    job if len(draws) == 1 else _OfDraw(job, number)
                    for number, draw in enumerate(draws, 1)
                    for job in column.jobs(depth, draw)
                ],
            )
