"""Eigenvalues of a solve's training matrices: read if they were stored, else computed if that is cheap.

They cost 4/3 n^3 operations per kernel, as much as four Cholesky factors, and are not needed to solve. So a
page computes them only up to `WORK`, and beyond that uses those that `page --spectrum` kept in RUN/spectrum.

A store may have been computed again since, for other images: then a solve's matrices are no longer there, and
nothing is computed for it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from cntk_bench import columns
from cntk_bench.errors import UserError
from cntk_bench.grams import matrix, store
from cntk_bench.grams.store import Store
from cntk_bench.kernels.spec import Readout
from cntk_bench.records import record, sealed
from cntk_bench.records.cells import stem
from cntk_bench.records.directory import Run
from cntk_bench.regression import eigen, normalize
from cntk_bench.report.findings import AGAIN, Eigenvalues
from cntk_bench.report.rows import draws_of, number
from cntk_bench.runs.access import has_images
from cntk_bench.system.bucket import Bucket
from cntk_bench.system.files import remove_partial, require_no_link, writing
from cntk_bench.text import short

WORK = 1e10  # sum of n^3 over kernels: ten of 1,000 images, some seconds on a core
FOLDER, FORMAT = "spectrum", 2  # format 1 was kept without a look at the images of the store
NONE: Mapping[str, str] = {}


def of_solve(
    run: Run, data: dict, solutions: list[dict], made: Mapping[str, str] = NONE
) -> tuple[list[Eigenvalues], str | None]:
    """Return stored or cheap eigenvalues of a solve's kernels, and why others are missing, if any.

    With several draws, they are those of the first.

    Parameters
    ----------
    run : Run
    data : dict
        The facts of the images that were solved.
    solutions : list of dict
    made : mapping
        Names of readouts -> fingerprints of the matrices that were solved, as the stage's `grams`; where it
        has none, they are not compared.

    Raises
    ------
    UserError
        If a matrix cannot be read.
    """
    wanted = _kernels(solutions)
    found = [_kept(run, data, one) for one, _ in wanted]
    missing = [pair for pair, kept in zip(wanted, found, strict=True) if kept is None]
    kept, n = [one for one in found if one is not None], data["n_train"]
    if not missing:
        return kept, None
    if isinstance(run.gram, Bucket):  # each matrix would be downloaded once more
        return kept, f"Eigenvalues of {len(missing)} kernels are not computed: they are in an object store"
    if len(missing) * n**3 <= WORK:
        try:
            grams = _store(run, data, made, [readout for _, readout in missing])
        except UserError as error:
            return kept, str(error)
        fresh = iter([_eigenvalues(grams, data, *pair) for pair in missing])
        return [one if one is not None else next(fresh) for one in found], None
    most = math.floor((WORK / len(missing)) ** (1 / 3))
    return kept, (
        f"Eigenvalues of {len(missing)} kernels of {n:,} training images are not computed: they cost "
        f"4/3 n^3 operations each, and are computed without being asked for up to {most:,} images of so many "
        "kernels"
    )


def compute(run: Run, data: dict, solutions: list[dict], made: Mapping[str, str] = NONE) -> None:
    """Compute and store the missing eigenvalues of a solve's kernels, one by one, whatever they cost.

    Parameters are as for `of_solve`.

    Raises
    ------
    UserError
        If the store no longer holds the solve's matrices, a matrix cannot be read or is too large for LAPACK,
        or the folder cannot be written.
    """
    missing = [pair for pair in _kernels(solutions) if _kept(run, data, pair[0]) is None]
    if missing:
        grams = _store(run, data, made, [readout for _, readout in missing])
        for solution, readout in missing:
            found = _eigenvalues(grams, data, solution, readout)
            folder = run.path / FOLDER
            require_no_link(folder)
            with writing(folder):
                folder.mkdir(exist_ok=True)
            remove_partial(folder)
            told = {**_identity(data, solution), "made": record.stage(FOLDER, {})}
            told |= {"values": found.values, "mean_diagonal": found.mean_diagonal}
            told |= {"zeros": found.zeros, "noise": found.noise}
            sealed.write(folder / f"{stem(found.column, found.depth)}.json", told)


def _store(run: Run, data: dict, made: Mapping[str, str], readouts: Iterable[Readout]) -> Store:
    """Open a run's store; UserError unless it holds the matrices of a solve."""
    grams, sizes, draws = store.open(run.gram), record.sizes(data), record.draws(data)
    matrix.view(grams, sizes, draws)  # says if there are too few images
    changed = [] if has_images(grams, data, sizes) else ["its images"]
    # A store that has grown has larger tiles at its old end, and so other digests of the same numbers.
    known = [name for name in map(str, readouts) if made.get(name)] if grams.sizes == sizes else []
    changed += [
        f"the numbers of {name}"
        for name in known
        if matrix.fingerprint(grams, name, sizes, draws) != made[name]
    ]
    if changed:
        raise UserError(
            f"{short(str(grams.path))} holds another computation than this solve's: {changed[0]} are not "
            f"those that were solved: {AGAIN}"
        )
    return grams


def _kernels(solutions: list[dict]) -> list[tuple[dict, Readout]]:
    """Return the solutions that have exactly one Gram matrix, each with its readout."""
    found = []
    for solution in solutions:
        try:
            needed = columns.find(solution["column"]).needs(solution["depth"]) if solution["depth"] else ()
        except UserError:  # a column of a package that is no longer here
            continue
        if len(needed) == 1:
            found.append((solution, needed[0]))
    return found


def _identity(data: dict, solution: dict) -> dict:
    """Return what determines a cell's eigenvalues."""
    return {
        "format": FORMAT,
        "column": solution["column"],
        "depth": solution["depth"],
        "normalize": solution.get("normalize", "none"),
        "n_train": data["n_train"],
        "draws": record.draws(data),
        "images": data.get("images") or data["fingerprint"],
    }


def _kept(run: Run, data: dict, solution: dict) -> Eigenvalues | None:
    """Return a cell's eigenvalues from RUN/spectrum; None unless they are intact and of the same images."""
    file = run.path / FOLDER / f"{stem(solution['column'], solution['depth'])}.json"
    try:
        told = sealed.read(file) or {}
    except UserError:
        return None
    if {**told, **_identity(data, solution)} != told:
        return None
    try:
        values = np.asarray(told["values"], np.float64)
        mean, noise, zeros = float(told["mean_diagonal"]), float(told["noise"]), int(told["zeros"])
    except (KeyError, TypeError, ValueError):
        return None
    sound = values.shape == (data["n_train"],) and np.isfinite(values).all() and mean > 0
    return replace(_of(solution, values, mean, zeros, noise), kept=True) if sound else None


def _eigenvalues(grams: Store, data: dict, solution: dict, readout: Readout) -> Eigenvalues:
    draws = record.draws(data)
    gram = matrix.matrix(grams, "train", readout, triangle="lower", sizes=record.sizes(data), draw=(0, draws))
    if solution.get("normalize", "none") != "none":
        normalize.unit_diagonal(gram)
    found = eigen.eigenvalues(gram, overwrite=True)
    return _of(solution, found.values[::-1].copy(), found.mean_diagonal, found.zeros, found.noise)


def _of(solution: dict, values: np.ndarray, mean: float, zeros: int, noise: float) -> Eigenvalues:
    draws = draws_of(solution)
    return Eigenvalues(
        solution["column"],
        solution["depth"],
        values,
        mean,
        zeros,
        noise,
        number(solution.get("ridge")),
        len(draws),
        jitter=number((draws or [solution])[0].get("jitter")) or 0.0,
    )
