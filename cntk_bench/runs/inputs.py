"""What a run's columns can use when they are filled: matrices, images, labels, settings."""

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.columns import Request
from cntk_bench.config.config import Config, Solve
from cntk_bench.data import Dataset
from cntk_bench.errors import UserError
from cntk_bench.grams import growth, matrix, store, stream
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.stream import Stored
from cntk_bench.grams.tiles import Plan
from cntk_bench.kernels.spec import Readout
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.regression import placement
from cntk_bench.regression.placement import Place
from cntk_bench.runs import images
from cntk_bench.runs.access import require_images_of_record
from cntk_bench.runs.material import Material, jobs
from cntk_bench.runs.train import require_trained
from cntk_bench.system.files import require_no_link
from cntk_bench.text import short

log = logging.getLogger(__name__)


def chosen_place(how: Solve, n: int, classes: int, plan: Plan | None) -> Place:
    """Choose where and how to solve for n training images, whose matrices are in the tiles of a plan.

    Raises
    ------
    UserError
        If that is not possible as the section `solve` asks, in the memory available.
    """
    return placement.choose(
        n,
        classes=classes,
        device=how.device,
        dtype=how.precision,
        limit=how.memory,
        solver=how.solver,
        several=how.several,
        streaming=stream.memory(plan) if plan else 0,
    )


class RunInputs(Material):
    """What a run's columns can use (`columns.Inputs`), for one draw of its training images.

    Use it as a context manager, in which matrices are read ahead.

    Raises
    ------
    UserError
        If something that the config's cells need was not computed or trained yet, is for other images, or
        needs more memory than there is.
    """

    def __init__(self, run: Run, settings: Config, tell: Callable[[str], None] = log.info):
        past = record.load(run.record)
        super().__init__(run, settings, record.computed(past))
        self.how, self._tell = settings.solve, tell
        self._needed = settings.kernel.readouts
        self._grams: Any = store.open(run.gram) if self._needed else None
        sections = "dataset", "preprocess"
        asked = record.plain(images.with_path(settings).sections(*sections))
        # The config may have been edited since; the record says what was computed.
        self._same = record.asked(past, run.config().sections(*sections)) == asked
        if not self._same:
            self.facts = images.record_facts(settings, self.loaded, self._kept)
        images.require_several(self.facts["n_train"])
        self.sizes, self.draws = record.sizes(self.facts), record.draws(self.facts)
        if self._grams is not None:
            if not self._same:
                growth.require_images(self._grams, images.asked(settings, self.loaded), self._kept)
                self._require_labels(
                    record.asked(past, run.config().sections(*sections))["dataset"], asked["dataset"]
                )
            else:
                require_images_of_record(self._grams, self.facts, self.sizes)
            for readout in self._needed:  # if one is missing, fail now, not after hours
                matrix.require_done(self._grams, readout, self.sizes, self.draws)
        # The store's labels are those of the record; other data may label the same images differently.
        known = self._kept if self._grams is None or not self._same else self._grams.images(self.sizes)
        self._labels = known.labels
        for name, depth, some in jobs(settings, self):  # fail now, too
            require_trained(name, depth, some)
        self._ahead: dict[Readout, Future] = {}
        if self._needed:  # if memory does not suffice, fail now, not after hours
            _ = self.place

    def _require_labels(self, past: dict, asked: dict) -> None:
        """Refuse labels if those in the same files have changed since the matrices were computed."""
        moved = any(past.get(key) != asked.get(key) for key in ("path", "labels"))
        if not moved and not growth.labels_fit(self._grams, self._kept):
            raise UserError(
                f"the labels of {short(self._settings.dataset.name)} are not those that "
                f"{short(str(self._grams.path))} was computed with: give the same data, or `compute` again"
            )

    @property
    def y_train(self) -> np.ndarray:
        """See `columns.Inputs`."""
        return self._labels[0][self._part]

    @property
    def y_test(self) -> np.ndarray:
        """Test labels, (m,) int64; not for columns to see."""
        return self._labels[1]

    @cached_property
    def place(self) -> Place:
        """Where and how matrices are solved; used only for columns that have matrices."""
        plan = matrix.view(self._grams, self.sizes, self.draws) if self._needed else None
        place = chosen_place(self.how, len(self.y_train), self.classes, plan)
        (log.info if place.method == "cholesky" else self._tell)(f"solving by {place}")
        return place

    @cached_property
    def _held(self) -> Place:
        """Where and how matrices are solved for columns that hold them in memory."""
        if self.place.method != "cg":
            return self.place
        return placement.choose(
            len(self.y_train), classes=self.classes, device=self.how.device, limit=self.how.memory
        )

    @property
    def device(self) -> str:
        """See `columns.Inputs`."""
        return self._held.device

    @property
    def dtype(self) -> str:
        """See `columns.Inputs`."""
        return self._held.dtype

    def fingerprints(self) -> dict[str, str]:
        """Map the name of each readout needed to the fingerprint of its matrices (`matrix.fingerprint`)."""
        return {
            str(readout): matrix.fingerprint(self._grams, readout, self.sizes, self.draws)
            for readout in self._needed
        }

    def __enter__(self) -> "RunInputs":
        self._reader = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.shutdown(cancel_futures=True)

    def request(self) -> Request:
        """The facts that columns get before anything is solved."""
        return images.request(self._settings, self.loaded)

    def train(self, readout: Readout) -> np.ndarray:
        """See `columns.Inputs`. For a GPU, the next matrix is read while one is solved, if memory allows."""
        found = self._ahead.pop(readout, None)
        loaded = found.result() if found else self._load(readout)
        following = self._needed[self._needed.index(readout) + 1 :]
        room = placement.room_ahead(self.place, len(self.y_train), self.how.memory)
        if following and self.draws == 1 and room:
            self._ahead[following[0]] = self._reader.submit(self._load, following[0])
        return loaded

    def stream(self, readout: Readout) -> Stored:
        """See `columns.Inputs`."""
        return Stored(self._grams, readout, sizes=self.sizes, draw=(self._draw, self.draws))

    def kept(self, readout: Readout) -> Path:
        """See `columns.Inputs`."""
        require_no_link(self._run.iterations)
        of_draw = f"-draw-{self._draw + 1}" if self.draws > 1 else ""
        return self._run.iterations / f"{str(readout).replace(':', '-')}{of_draw}.npz"

    def tell(self, words: str) -> None:
        """See `columns.Inputs`."""
        self._tell(words)

    def _load(self, readout: Readout) -> np.ndarray:
        dtype = np.float32 if self.device == "cuda" else self.dtype
        draw = self._draw, self.draws
        return matrix.matrix(
            self._grams, "train", readout, dtype, triangle="lower", sizes=self.sizes, draw=draw
        )

    def test(self, readout: Readout) -> Iterable[np.ndarray]:
        """See `columns.Inputs`."""
        draw = self._draw, self.draws
        if self.place.method == "cg":
            return stream.test_blocks(self._grams, readout, sizes=self.sizes, draw=draw)
        return (block for _, block in matrix.row_blocks(self._grams, readout, sizes=self.sizes, draw=draw))

    def _load_images(self) -> Dataset:
        """Load the run's images, and refuse others, since a file may have changed."""
        loaded = images.load(self._settings)
        if self._same and loaded.fingerprint != self.facts["fingerprint"]:
            raise UserError(
                f"the images of {short(self._settings.dataset.name)} are not those that the run's "
                "record.json tells of: give the same data, or compute again into another output directory"
            )
        return loaded

    @cached_property
    def _kept(self) -> ImageFacts:
        return images.image_facts(self.loaded)
