"""Common parts of the analyses of a computed run: its kernel cells, their labels, and files of results.

An analysis needs only the run's Gram matrices (the posterior its images, too), changes none of its solves,
and writes its results to a folder of its own: RUN/flow, RUN/posterior, RUN/curve.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench import columns
from cntk_bench.errors import UserError
from cntk_bench.grams import matrix
from cntk_bench.grams.stream import Stored
from cntk_bench.records import record, sealed
from cntk_bench.regression import checks
from cntk_bench.regression.targets import shifted_one_hot
from cntk_bench.report.published import elsewhere, published
from cntk_bench.report.rows import run as comparable
from cntk_bench.runs.access import OpenRun
from cntk_bench.runs.export import npz
from cntk_bench.system.files import remove_partial, require_no_link, write_atomic, writing
from cntk_bench.text import short

FORMAT = 1


def cells(
    opened: OpenRun,
    command: str,
    column: str | None,
    depth: int | None,
    fits: Callable[[Any], bool] = lambda readout: True,
    kind: str = "a kernel column",
    example: str = "CNTK-V",
) -> list[tuple[str, int]]:
    """Return the cells (column, depth) to analyse: those of the run's config with one Gram matrix each.

    Parameters
    ----------
    opened : OpenRun
    command : str
        The analysis, as errors name it.
    column, depth : str, int, optional
        Only this one; it may be computed without being in the config.
    fits : callable, optional
        Whether a readout can be analysed.
    kind, example : str
        Which columns can be analysed, in words, and one of them; errors name both.

    Raises
    ------
    UserError
        If there is no such cell, or one is not computed.
    """
    kernel = opened.run.config().kernel
    names = kernel.columns if column is None else (column,)
    depths = kernel.depths if depth is None else (depth,)
    found = _fitting(names, depths, fits)
    for cell in found:
        opened.readout(*cell)  # raises now, not after hours, if it is missing
    if not found:
        others = dict.fromkeys(name for name, _ in _fitting(kernel.columns, kernel.depths, fits))
        remedy = (
            f"use --column {short(', '.join(others), 100)}" if others else f"compute {example} or another"
        )
        only = f"and {short(str(opened.run.path))} has only {short(', '.join(names), 100)}"
        why = only if column is None else f"which {short(column)} is not"
        raise UserError(f"`{command}` needs {kind}, {why}: {remedy}")
    return found


def _fitting(
    names: Sequence[str], depths: Sequence[int], fits: Callable[[Any], bool]
) -> list[tuple[str, int]]:
    found = []
    for name, depth in columns.cells(names, depths):
        needed = columns.find(name).needs(depth)
        if depth is not None and len(needed) == 1 and fits(needed[0]):
            found.append((name, depth))
    return found


def data(opened: OpenRun) -> dict:
    """Return the record's facts of the images, with the sizes that the analysis uses."""
    facts = record.computed(record.load(opened.run.record))
    kept = ("name", "classes", "classes_used", "preprocess", "statistics", "fingerprint", "images", "order")
    sizes = dict(zip(("n_train", "n_test"), opened.sizes, strict=True))
    return {key: facts[key] for key in kept if key in facts} | sizes


def truth(opened: OpenRun) -> tuple[np.ndarray, np.ndarray, int]:
    """Return targets of the training images (n, k), labels of the test images (m,), and k."""
    y_train, y_test = opened.labels
    classes = data(opened)["classes"]
    return shifted_one_hot(checks.labels(y_train, len(y_train), classes), classes), y_test, classes


def lower(
    opened: OpenRun, column: str, depth: int, dtype: Any = np.float64, draw: matrix.Draw = matrix.ONE
) -> np.ndarray:
    """The train Gram matrix (n, n) of a cell; only its lower triangle is filled."""
    readout, sizes = opened.readout(column, depth), _together(opened, draw)
    return matrix.matrix(opened.store, "train", readout, dtype, triangle="lower", sizes=sizes, draw=draw)


def streamed(opened: OpenRun, column: str, depth: int) -> Stored:
    """The matrix of `lower`, read piece by piece; of one draw."""
    return Stored(opened.store, opened.readout(column, depth), sizes=_together(opened, matrix.ONE))


def blocks(opened: OpenRun, column: str, depth: int, draw: matrix.Draw = matrix.ONE) -> Iterator[np.ndarray]:
    """The test x train matrix, float64, a block (h, n) of test images at a time."""
    readout, sizes = opened.readout(column, depth), _together(opened, draw)
    return (block for _, block in matrix.row_blocks(opened.store, readout, sizes=sizes, draw=draw))


def _together(opened: OpenRun, draw: matrix.Draw) -> tuple[int, int]:
    """Return the number of training images of all draws together, and that of test images."""
    return opened.sizes[0] * draw[1], opened.sizes[1]


def begun(opened: OpenRun, name: str, settings: dict, every: bool = False) -> dict:
    """Return the facts that every result begins with.

    Parameters
    ----------
    opened : OpenRun
    name : str
        Of the analysis.
    settings : dict
        Its own.
    every : bool
        Whether it analyses all draws of training images that `opened` has, not just the first.
    """
    return {
        "format": FORMAT,
        "analysis": name,
        "run": record.load(opened.run.record)["name"],
        "data": data(opened),
        "made": record.stage(name, settings),
        "ignored": ignored(opened, every),
    }


def ignored(opened: OpenRun, every: bool = False) -> dict:
    """Return what the run has and an analysis leaves out (`report.caveats`); empty if it leaves out nothing.

    normalize : how the run's solve scales kernels, which are analysed as they are.
    draws : how many draws of training images the run has, of which only the first is analysed.
    """
    normalize = opened.run.config().solve.normalize
    found: dict = {} if normalize == "none" else {"normalize": normalize}
    draws = record.draws(record.computed(record.load(opened.run.record)))
    if draws > 1 and not (every and opened.draws == draws):
        found["draws"] = draws
    return found


def compared(
    opened: OpenRun, column: str, depth: int, train: int | None = None, draws: int = 1
) -> dict | None:
    """Return a cell's published accuracy in percent for the same data and sizes, and its source; or None.

    With several draws there is also spread: the published deviation between draws, or None.
    """
    like = comparable(data(opened) | {"draws": draws} | ({} if train is None else {"n_train": train}))
    found = published(like, column, depth)
    if found is None:
        return None
    of_draws = {"spread": found.deviation} if draws > 1 else {}
    return {"accuracy": found.accuracy, "source": found.source} | of_draws


def compared_elsewhere(opened: OpenRun, column: str, depth: int, train: int, draws: int) -> dict | None:
    """Return what was published for as many training images but other test sizes; or None."""
    like = comparable(data(opened) | {"draws": draws, "n_train": train})
    found = elsewhere(like, column, depth, train)
    if found is None:
        return None
    return {
        "accuracy": found.accuracy,
        "spread": found.deviation,
        "source": found.source,
        "n_test": found.sizes[1],
    }


def folder(opened: OpenRun, name: str) -> Path:
    """Return RUN/name, created if it is missing."""
    path = opened.run.path / name
    require_no_link(path)
    with writing(path):
        path.mkdir(exist_ok=True)
    remove_partial(path)
    return path


def keep(opened: OpenRun, name: str, stem: str, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write arrays to RUN/name/stem.npz, atomically."""
    path = folder(opened, name) / f"{stem}.npz"
    write_atomic(path, npz(arrays))
    return path


def save(opened: OpenRun, name: str, stem: str, facts: dict) -> Path:
    """Write results as RUN/name/stem.json (`sealed.write`)."""
    path = folder(opened, name) / f"{stem}.json"
    sealed.write(path, facts)
    return path
