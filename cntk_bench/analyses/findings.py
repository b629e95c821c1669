"""Gather what a solve's page shows beyond its record (`report.findings`): mistakes, spectra, curves.

Everything comes from what the run keeps, at little cost beside the solve; of the data set, only test images
are read again. If something cannot be found, the page is written all the same, and says why.
"""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cntk_bench import columns
from cntk_bench.analyses import spectrum
from cntk_bench.config import yaml12
from cntk_bench.config.config import Config
from cntk_bench.errors import UserError
from cntk_bench.records import sealed
from cntk_bench.records.cells import stem
from cntk_bench.records.directory import Run
from cntk_bench.regression.accuracy import standard_error
from cntk_bench.report import confusion, misclassified
from cntk_bench.report.findings import FIGURES, Findings, Mistakes, RidgePath, Tried
from cntk_bench.report.rows import is_trusted, name_of, number
from cntk_bench.runs import images, scoring
from cntk_bench.system.arrays import read_arrays
from cntk_bench.text import one_line, redacted, short

FOLDERS = re.compile(r"(?<![\w.])~?(/[^/\s:]+)+/(?=[^/\s])")  # folders of paths, which pages leave out
CURVES = 200  # most files of RUN/curve that are read

Found = TypeVar("Found")


def gather(
    run: Run, settings: Config, solved: dict, folder: Path, wanted: Collection[str] = FIGURES
) -> Findings:
    """Gather what a page shows of a solve.

    Parameters
    ----------
    run : Run
    settings : Config
        Says where the data set is.
    solved : dict
        The run's record with the solve's data, stages and solutions.
    folder : Path
        Where the solve's arrays are.
    wanted : collection of str
        Some of `FIGURES`: nothing is read or computed for the others.
    """
    absent: dict[str, str] = {}

    def attempt(name: str, find: Callable[[], Found]) -> Found | None:
        if name not in wanted:
            return None
        try:
            return find()
        except (UserError, OSError, MemoryError) as error:
            absent[name] = one_line(FOLDERS.sub("", str(error))) or type(error).__name__
            return None

    solutions, data = solved["solutions"], solved["data"]
    of_cell = "confusion" if "confusion" in wanted else "mistakes"  # both need it; an error is reported once
    cell, among, arrays = attempt(of_cell, lambda: _best(solutions, folder)) or (None, "", {})
    made = matrices(solved)
    spectra, missing = attempt("spectra", lambda: spectrum.of_solve(run, data, solutions, made)) or ([], None)
    curves, others = attempt("curves", lambda: _curves(run, data, solutions)) or ([], None)
    paths, unlike = attempt("ridges", lambda: _paths(solutions, folder, data["n_train"])) or ([], None)
    reasons = ("spectra", missing), ("curves", others), ("ridges", unlike)
    absent |= {name: why for name, why in reasons if why}
    return Findings(
        config=configuration(solved),
        cell=cell,
        among=among,
        counts=_counts(arrays, data["classes"]) if cell else None,
        repeats=len(np.atleast_2d(arrays["predicted"])) if cell else 1,
        mistakes=attempt("mistakes", lambda: _mistakes(settings, data, cell, arrays)) if cell else None,
        spectra=tuple(spectra),
        paths=tuple(paths),
        curves=tuple(curves),
        absent=absent,
    )


def matrices(solved: dict) -> dict[str, str]:
    """Map the names of a solve's readouts to the fingerprints of its matrices, as far as the record has them.

    Parameters
    ----------
    solved : dict
        As for `gather`.
    """
    of_solve = [
        s for s in solved["stages"] if s["stage"] == "solve" and s.get("solve") == solved.get("solve")
    ]
    found = of_solve[-1].get("grams") if of_solve else None
    return found if isinstance(found, dict) else {}


def _public(value: Any) -> Any:
    """Redact possible secrets in plain values, such as in the shell lines of Slurm jobs."""
    if isinstance(value, dict):
        return {key: _public(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    return redacted(value) if isinstance(value, str) else value


def configuration(solved: dict) -> str:
    """Return the config that repeats a solve, as YAML, without secrets and without folders of its paths."""
    stages = solved["stages"]
    of_solve = [s for s in stages if s["stage"] == "solve" and s.get("solve") == solved.get("solve")]
    computed = [s for s in stages if s["stage"] == "compute"]
    asked: dict = {"name": solved["name"]}
    for stage in (*computed[-1:], *of_solve[-1:]):
        asked |= {name: value for name, value in stage["settings"].items() if isinstance(value, dict)}
    for key in ("path", "labels"):
        if isinstance(path := asked.get("dataset", {}).get(key), str):
            asked["dataset"] = asked["dataset"] | {key: Path(path).name}
    asked |= {"compute": _public(asked["compute"])} if "compute" in asked else {}
    order = ("name", "dataset", "preprocess", "kernel", "compute", "solve")
    return yaml12.write(
        {name: asked[name] for name in (*order, *sorted(set(asked) - {*order})) if name in asked}
    )


def _best(solutions: list[dict], folder: Path) -> tuple[dict | None, str, dict[str, np.ndarray]]:
    """Return the cell whose mistakes are shown, among which cells it is the most accurate, and its arrays.

    Trusted kernels are preferred, since they have outputs; then all trusted cells; then all cells.
    """
    scored = [one for one in solutions if number(one["accuracy"]) is not None]
    ranked = sorted(scored, key=lambda one: (is_trusted(one), one["accuracy"]), reverse=True)
    trusted = [one for one in ranked if is_trusted(one)]
    kernels = [one for one in trusted if _is_kernel(one)]
    for among, some in (("kernels that are trusted", kernels), ("cells that are trusted", trusted),
                        ("cells, none of which is trusted", ranked)):  # fmt: skip
        if some:
            return some[0], among, _arrays(folder, some[0])
    return None, "", {}


def _is_kernel(solution: dict) -> bool:
    try:
        return bool(solution["depth"] and columns.find(solution["column"]).needs(solution["depth"]))
    except UserError:
        return False


def _arrays(folder: Path, solution: dict) -> dict[str, np.ndarray]:
    """Read what a solve keeps of a cell, except coefficients; UserError if it cannot be read."""
    file = folder / f"{stem(solution['column'], solution['depth'])}.npz"
    wanted = ("predicted", "y_test", "outputs", "path_predicted")
    try:
        return read_arrays(file, lambda name: name.partition("-")[0] in wanted)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{short(file.name)} of the solve cannot be read ({one_line(error, 100)}): solve again"
        ) from None


def _counts(arrays: dict[str, np.ndarray], classes: int) -> np.ndarray:
    """Return the confusion matrix (k, k), summed over repetitions and draws."""
    found = np.zeros((classes, classes), np.int64)
    for line in np.atleast_2d(arrays["predicted"]):
        found += confusion.counted(arrays["y_test"], line, classes)
    return found


def _mistakes(settings: Config, data: dict, solution: dict, arrays: dict[str, np.ndarray]) -> Mistakes | None:
    """Return misclassified images of the first draw; None if there are none."""
    if solution.get("normalize", "none") != "none":
        raise UserError(
            "margins of a kernel with a diagonal of one are not known, because the kernels of test images "
            "with themselves are not stored: solve with solve.normalize none to see mistakes"
        )
    if "outputs" not in arrays:
        raise UserError("no outputs are kept of the predictions shown: solve a kernel column, or solve again")
    outputs, y = arrays["outputs"], arrays["y_test"]
    outputs = outputs if outputs.ndim == 2 else outputs[0]
    which, predicted, margins = misclassified.sample(outputs, y)
    if not len(which):
        return None
    pixels, places = _pixels(settings, data, y)
    wrong = int((outputs.argmax(1) != y).sum())
    return Mistakes(pixels[which], y[which], predicted, margins, places[which], wrong, len(y))


def _pixels(settings: Config, data: dict, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Load the test images as the source has them, (m, C, P, P), and their indices there.

    Raises
    ------
    UserError
        If the data cannot be read, are not those of the solve, or are no pictures.
    """
    name, path = settings.dataset.name, settings.dataset.path
    name = "npz" if Path(path or "").suffix == ".npz" else name  # not identified again
    asked = settings.dataset.model_copy(update={"name": name, "preprocess": "none"})
    plain = settings.model_copy(update={"dataset": asked, "preprocess": type(settings.preprocess)()})
    loaded = images.load(plain, train=1, test=data["n_test"])
    same = " ".join(map(str, loaded.test_index)) == data.get("test_index")
    same &= data.get("test_images", loaded.test_images) == loaded.test_images  # older records have no digest
    if not same or not np.array_equal(loaded.y_test, y):
        raise UserError(
            "the data set has other test images than this solve: name it by --set dataset.path=FILE"
        )
    channels, side = loaded.x_test.shape[1:3]
    if channels not in (1, 3) or side < 2:
        raise UserError(f"data of shape {loaded.x_test.shape[1:]} are no pictures")
    return loaded.x_test, loaded.test_index


def _paths(solutions: list[dict], folder: Path, n_train: int) -> tuple[list[RidgePath], str | None]:
    """Return the ridge path of each cell for which several ridges were tried, and why others are not shown.

    Only ridges that all draws tried are included; each draw has `n_train` training images.
    """
    found, unlike = [], []
    for solution in solutions:
        several = solution.get("draws")
        each = several if isinstance(several, list) else [solution]
        paths = [one["path"] for one in each if isinstance(one.get("path"), list)]
        if len(paths) != len(each) or max(map(len, paths), default=0) < 2:
            continue
        places = [{fit["ridge"]: place for place, fit in enumerate(path)} for path in paths]
        ridges = sorted(set(places[0]).intersection(*places[1:]))
        if len(ridges) < 2:
            unlike.append(name_of(solution))
            continue
        arrays = _arrays(folder, solution)
        predicted, tried = _along(arrays, paths), []
        for ridge in ridges:
            at = [of_draw[ridge] for of_draw in places]
            fits = [path[i] for path, i in zip(paths, at, strict=True)]
            lines = None
            if predicted is not None:
                lines = np.stack([some[i] for some, i in zip(predicted, at, strict=True)])
            tried.append(_tried(fits, n_train, arrays["y_test"], lines))
        chosen = number(solution.get("ridge"))
        found.append(RidgePath(solution["column"], solution["depth"], tuple(tried), chosen))
    why = f"Ridges of {', '.join(unlike)} are not shown: fewer than two could be solved for every draw"
    return found, f"{why}; add larger ones to solve.ridge" if unlike else None


def _along(arrays: dict[str, np.ndarray], paths: list[list[dict]]) -> list[np.ndarray] | None:
    """Return the predictions of each draw's ridges (ridges, m), in its path's order; None if not kept.

    One array has all draws if each has as many ridges, else each draw has its own (`runs.draws.arrays`).
    """
    if "path_predicted" in arrays:
        whole = arrays["path_predicted"]
        found = [*(whole if whole.ndim == 3 else whole[None])]
    else:
        names = [f"path_predicted-{draw}" for draw in range(1, len(paths) + 1)]
        found = [arrays[name] for name in names if name in arrays]
    return found if [some.shape[:1] for some in found] == [(len(path),) for path in paths] else None


def _tried(fits: list[dict], n_train: int, y: np.ndarray, predicted: np.ndarray | None) -> Tried:
    """Summarise one ridge by means over the draws; each draw predicts a row of (draws, m)."""

    def mean(key: str) -> float | None:
        values = [number(fit.get(key)) for fit in fits]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if len(known) == len(values) else None

    accuracy = error = None
    if predicted is not None:
        accuracy, _ = scoring.accuracy(predicted == y)
        error = standard_error(accuracy / 100, len(y))
    loo, doubts = mean("loo_accuracy"), [fit["doubt"] for fit in fits if fit.get("doubt")]
    its_error = None if loo is None else standard_error(loo, n_train * len(fits))  # draws share no image
    loo = None if loo is None else 100 * loo
    doubt = doubts[0] if doubts else None
    jitter = max(number(fit.get("jitter")) or 0.0 for fit in fits)
    return Tried(fits[0]["ridge"], loo, its_error, mean("loo_error"), accuracy, error, doubt, jitter)


def _curves(run: Run, data: dict, solutions: list[dict]) -> tuple[list[dict], str | None]:
    """Return learning curves for the solve's images, and why others are not shown."""
    files = sorted((run.path / "curve").glob("*.json"))[:CURVES]
    found, broken = [], []
    for file in files:
        one = sealed.read(file) or {}
        found.append(one) if isinstance(one.get("data"), dict) else broken.append(file.name)
    if broken:
        names = ", ".join(broken)
        return [], f"Learning curves are damaged, or of another version ({names}): run `curve` again"
    key = "images" if "images" in data else "fingerprint"
    same = [one for one in found if one["data"].get(key) == data.get(key) and one.get("points")]
    shown = [one for one in same if _size(one["data"]) == _size(data)]
    order = [(one["column"], one["depth"]) for one in solutions]
    shown.sort(key=lambda one: order.index(cell) if (cell := _cell(one)) in order else len(order))
    if len(shown) == len(same) > 0 or not files:
        return shown, None
    if same:
        others = ", ".join(sorted({name_of(one) for one in same if one not in shown}))
        return shown, (
            f"Learning curves of {others} are not shown: they are of fewer images or draws than this solve"
        )
    return [], "The learning curves of this run are of other images than this solve: run `curve` again"


def _size(data: dict) -> tuple:
    return data.get("n_train"), data.get("n_test"), data.get("draws", 1)


def _cell(facts: dict) -> tuple:
    return facts.get("column"), facts.get("depth")
