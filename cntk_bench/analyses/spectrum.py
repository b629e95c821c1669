"""Eigenvalues of a solve's training matrices: read if they were stored, else computed if that is cheap.

They cost 4/3 n^3 operations per kernel, as much as four Cholesky factors, and are not needed to solve. So a
page computes them only up to `WORK`, and beyond that uses those that `page --spectrum` kept in RUN/spectrum.
"""

import math
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
from cntk_bench.report import networks
from cntk_bench.report.findings import Eigenvalues
from cntk_bench.report.rows import number
from cntk_bench.system.bucket import Bucket
from cntk_bench.system.files import remove_partial, require_no_link, writing

WORK = 1e10  # sum of n^3 over kernels: ten of 1,000 images, some seconds on a core
FOLDER, FORMAT = "spectrum", 1


def of_solve(run: Run, data: dict, solutions: list[dict]) -> tuple[list[Eigenvalues], str | None]:
    """Return stored or cheap eigenvalues of a solve's kernels, and why others are missing, if any.

    With several draws, they are those of the first.

    Parameters
    ----------
    run : Run
    data : dict
        The facts of the images that were solved.
    solutions : list of dict

    Raises
    ------
    UserError
        If a matrix cannot be read.
    """
    wanted = _kernels(solutions)
    found = [_kept(run, data, one) for one, _ in wanted]
    missing = [pair for pair, kept in zip(wanted, found, strict=True) if kept is None]
    n = data["n_train"]
    if not missing:
        return [one for one in found if one is not None], None
    kept = [one for one in found if one is not None]
    if isinstance(run.gram, Bucket):  # each matrix would be downloaded once more
        return kept, f"Eigenvalues of {len(missing)} kernels are not computed: they are in an object store"
    if len(missing) * n**3 <= WORK:
        grams = store.open(run.gram)
        fresh = iter([_eigenvalues(grams, data, *pair) for pair in missing])
        return [one if one is not None else next(fresh) for one in found], None
    most = math.floor((WORK / len(missing)) ** (1 / 3))
    return kept, (
        f"Eigenvalues of {len(missing)} kernels of {n:,} training images are not computed: they cost "
        f"4/3 n^3 operations each, and are computed without being asked for up to {most:,} images of so many "
        "kernels"
    )


def compute(run: Run, data: dict, solutions: list[dict]) -> None:
    """Compute and store the missing eigenvalues of a solve's kernels, one by one, whatever they cost.

    Raises
    ------
    UserError
        If a matrix cannot be read, is too large for LAPACK, or the folder cannot be written.
    """
    grams = store.open(run.gram)
    for solution, readout in _kernels(solutions):
        if _kept(run, data, solution) is None:
            found = _eigenvalues(grams, data, solution, readout)
            folder = run.path / FOLDER
            require_no_link(folder)
            with writing(folder):
                folder.mkdir(exist_ok=True)
            remove_partial(folder)
            told = {"format": FORMAT, **_identity(data, solution), "made": record.stage(FOLDER, {})}
            told |= {"values": found.values, "mean_diagonal": found.mean_diagonal}
            told |= {"zeros": found.zeros, "noise": found.noise}
            sealed.write(folder / f"{stem(found.column, found.depth)}.json", told)


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
    ridge = number(solution.get("ridge"))
    draws = len(networks.draws_of(solution))
    return Eigenvalues(solution["column"], solution["depth"], values, mean, zeros, noise, ridge, draws)
