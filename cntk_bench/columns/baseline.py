"""Baselines: standard methods, from libraries, on the same flattened images.

    RBF           kernel ridge regression, exp(-gamma |x - z|^2), gamma = 1 / (2 s^2)
    LAPLACE       the same, exp(-|x - z| / s); the norm is the Euclidean one, as where this kernel is
                  compared with neural tangent kernels, not the sum of absolute values of scikit-learn's
    SKLEARN-GP    Gaussian process regression by scikit-learn, RBF and white noise (`gaussian`)
    GPYTORCH-GP   the same model by GPyTorch, its hyperparameters found by Adam (`gaussian`)
    LINEAR        ridge regression with an intercept, by scikit-learn

Targets are those of the kernel columns, one-hot minus 0.1, and all minimise the same squared error; so what
differs between the columns is the kernel. (A logistic regression would differ in its loss, too, and has no
leave-one-out in closed form: LINEAR is a ridge regression.) Bandwidth s, in units of the median distance
between training images, and ridge are those of least leave-one-out squared error. No column here has a
depth, and none sees a test label.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from typing import Annotated

import numpy as np
from pydantic import Field, StrictFloat, StrictInt

from cntk_bench.columns import distances
from cntk_bench.columns import kernel as kernels
from cntk_bench.columns.column import Cell, Inputs, Request
from cntk_bench.columns.section import RIDGES, Ridges, Section
from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import Readout
from cntk_bench.system import memory
from cntk_bench.system.memory import GIB
from cntk_bench.text import one_line

Above = Annotated[StrictFloat, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]


class Baseline(Section):
    """Settings of the baselines."""

    bandwidths: tuple[Above, ...] = Field(
        (0.25, 0.35, 0.5, 0.7, 1.0, 2.0, 4.0, 8.0),
        min_length=1,
        description="numbers of at least 1e-6, in units of the median distance, such as [0.5, 1, 2]",
    )
    ridge: Ridges = Field("loo", description=RIDGES)
    gp_images: Annotated[StrictInt, Field(ge=2, le=10**6)] = Field(
        3000, description="the most training images for a Gaussian process, an integer of at least 2"
    )
    adam_steps: Annotated[StrictInt, Field(ge=1, le=10**6)] = Field(
        200, description="the number of optimiser steps of GPYTORCH-GP, an integer of at least 1"
    )
    adam_rate: Above = Field(0.1, description="the learning rate of GPYTORCH-GP, a number of at least 1e-6")


# Name -> the module of this package and its function that fill the cell, and the config's keys that decide
# the result.
OF_KERNELS = ("baseline.bandwidths", "baseline.ridge", "solve.precision")
FILLED = {
    "RBF": ("baseline", "rbf", OF_KERNELS),
    "LAPLACE": ("baseline", "laplace", OF_KERNELS),
    "SKLEARN-GP": ("gaussian", "sklearn", ()),
    "GPYTORCH-GP": ("gaussian", "gpytorch", ("baseline.adam_steps", "baseline.adam_rate")),
    "LINEAR": ("baseline", "linear", ("baseline.ridge",)),
}
NAMES = tuple(FILLED)
# n x n float64 matrices that a Gaussian process holds at once; scikit-learn's has two more per class.
GP_MATRICES = 12


@dataclass(frozen=True)
class BaselineColumn:
    """One of `NAMES`."""

    name: str
    has_depth = False

    @property
    def keys(self) -> tuple[str, ...]:
        """As `columns.Column`."""
        return FILLED[self.name][2]

    def needs(self, depth: int | None) -> tuple[Readout, ...]:
        """No readouts."""
        return ()

    def require(self, request: Request) -> None:
        """Raise UserError if its library is missing, there are too many images, or LINEAR has no ridge."""
        from cntk_bench.regression import placement

        n, free = request.n_train, request.memory * GIB if request.memory is not None else memory.available()
        if self.name == "GPYTORCH-GP":
            require_gpytorch()
        if self.name.endswith("-GP"):
            most = request.section("baseline").gp_images
            if n > most:
                raise UserError(
                    f"column {self.name} with {n:,} training images: each of its many steps takes n^3 "
                    f"operations, so baseline.gp_images is {most:,}: use fewer training images, leave the "
                    "column out, or raise baseline.gp_images"
                )
            needed = 8 * n**2 * (GP_MATRICES + 2 * request.classes * (self.name == "SKLEARN-GP"))
        elif self.name == "LINEAR":
            _ridges_of_linear(request.section("baseline"))
            needed = 8 * (4 * n * request.features + 3 * min(n, request.features) ** 2)
        else:
            # One matrix at a time, as for kernel columns, but always whole; `inputs.dtype` may be float32.
            needed = placement.predict(n, classes=request.classes, device="cpu", dtype="float32").host
        if needed > free:
            raise UserError(
                f"column {self.name} with {n:,} training images needs {needed / GIB:.1f} GiB and "
                f"{free / GIB:.1f} GiB are free: use fewer training images, or leave the column out"
            )

    def fill(self, depth: int | None, inputs: Inputs) -> Cell:
        """Fit, and predict."""
        started = time.perf_counter()
        module, function, _ = FILLED[self.name]
        found = getattr(import_module(f"cntk_bench.columns.{module}"), function)(inputs)
        return replace(
            found,
            facts={**found.facts, "seconds": time.perf_counter() - started},
            remedy="raise baseline.ridge",
        )


def column(name: str) -> BaselineColumn | None:
    """Return the baseline of a name; None if there is none."""
    return BaselineColumn(name) if name in FILLED else None


def require_gpytorch() -> None:
    """Raise UserError if GPyTorch cannot be imported."""
    try:
        import gpytorch  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"column GPYTORCH-GP needs GPyTorch ({one_line(error, 60)}): pip install 'cntk-bench[gpytorch]'"
        ) from None


def rbf(inputs: Inputs) -> Cell:
    """Kernel ridge regression with exp(-gamma |x - z|^2)."""
    return _kernel_ridge(inputs, lambda d, s: np.exp(-d / (2 * s**2)), lambda s: {"gamma": 1 / (2 * s**2)})


def laplace(inputs: Inputs) -> Cell:
    """Kernel ridge regression with exp(-|x - z| / s)."""
    return _kernel_ridge(inputs, lambda d, s: np.exp(-np.sqrt(d) / s))


def _kernel_ridge(
    inputs: Inputs,
    kernel: Callable[..., np.ndarray],
    more: Callable[[float], dict] = lambda s: {},
) -> Cell:
    """Fit kernel(squared distances, s) with the bandwidth and ridge of least leave-one-out error."""
    from cntk_bench.regression import prediction, sensitivity
    from cntk_bench.regression.ridge import rank

    how, (x, z) = inputs.section("baseline"), inputs.images()
    vectors = distances.flattened(x)
    centre = vectors.mean(0)  # changes no distance, and makes their rounding errors smaller
    vectors -= centre
    unit = distances.median(vectors)
    error = distances.ERROR if inputs.dtype == "float64" else sensitivity.KERNEL_ERROR
    best, tried, refused = None, [], None
    for bandwidth in how.bandwidths:
        matrix = distances.train(vectors, partial(kernel, s=bandwidth * unit), inputs.dtype)
        try:
            solution = kernels.solved(inputs, matrix, how.ridge, error=error)
        except UserError as problem:  # other bandwidths may work
            refused = refused or UserError(_of_baseline(problem))
            continue
        del matrix
        figures = ("ridge", "loo_error", "loo_accuracy")
        tried += [
            {"bandwidth": bandwidth} | {key: getattr(fit, key) for key in figures} for fit in solution.path
        ]
        if best is None or rank(solution.chosen)[:2] < rank(best[1].chosen)[:2]:
            best = bandwidth, solution
    if best is None:
        assert refused is not None  # there is one bandwidth at least
        raise refused
    bandwidth, solution = best
    length, chosen = bandwidth * unit, solution.chosen
    blocks = distances.test(z, vectors, partial(kernel, s=length), centre)
    predicted = prediction.predict(solution.alpha, blocks, chosen.largest_residual, error)
    facts = (
        asdict(chosen) | {"bandwidth": bandwidth, "median_distance": unit, "length": length} | more(length)
    )
    doubt = _of_baseline(chosen.doubt) if chosen.doubt else _far(predicted.black, len(z), bandwidth)
    facts |= {"tried": tried, "doubt": doubt}
    facts["note"] = notes(_edge(bandwidth, how.bandwidths, "bandwidth"), ridge_edge(solution.edge))
    arrays = {"alpha": solution.alpha, "ridge": chosen.ridge + chosen.jitter, "length": length}
    return Cell(predicted.classes, facts, predicted.undecided, arrays)


def _far(count: int, n: int, bandwidth: float) -> str | None:
    """Say why the accuracy means nothing if `count` of n test images have kernels of 0; None if it does.

    They get the first class. As the column does not know its accuracy, it takes the largest standard error
    that one can have.
    """
    from cntk_bench.regression.accuracy import standard_error

    if 100 * count / n <= max(2 * standard_error(0.5, n), 100 / n):
        return None
    return (
        f"{count} of {n} test images are so far from all training images that with bandwidth {bandwidth:g} "
        "their kernels are 0 and nothing can classify them; add larger ones to baseline.bandwidths"
    )


def _of_baseline(problem: object) -> str:
    """Reword a message of the solver with the key that sets the ridge here."""
    return str(problem).replace("solve.ridge", "baseline.ridge")


def linear(inputs: Inputs) -> Cell:
    """Ridge regression with an intercept; its ridge relative to the mean diagonal of the centred X X^T."""
    from sklearn.linear_model import RidgeCV

    from cntk_bench.regression.targets import shifted_one_hot

    values, (x, z) = _ridges_of_linear(inputs.section("baseline")), inputs.images()
    vectors = distances.flattened(x)
    unit = float(vectors.var(0).sum())  # the mean of |x - mean|^2
    if not unit > 0:
        raise UserError("column LINEAR: all training images are equal: use others")
    model = RidgeCV([value * unit for value in values], store_cv_results=True)
    model.fit(vectors, shifted_one_hot(inputs.y_train, inputs.classes))
    errors = model.cv_results_.mean((0, 1))
    chosen = int(errors.argmin())
    scores = np.concatenate([model.predict(block) for block in distances.blocks(z)])
    edge = None
    if len(values) > 1 and values[chosen] in (min(values), max(values)):
        edge = "smallest" if values[chosen] == min(values) else "largest"
    facts = {
        "ridge": values[chosen],
        "loo_error": float(errors[chosen]),
        "tried": [{"ridge": r, "loo_error": float(e)} for r, e in zip(values, errors, strict=True)],
        "note": notes(ridge_edge(edge)),
    }
    return Cell(scores.argmax(1), facts, 0, {"weights": model.coef_, "intercept": model.intercept_})


def _ridges_of_linear(how: Baseline) -> list[float]:
    """Return the ridges that LINEAR tries; UserError if there are none."""
    from cntk_bench.regression import ridge

    values = [value for value in ridge.ridges(how.ridge) if value > 0]
    if isinstance(how.ridge, str):
        values += [10.0**power for power in range(1, int(np.log10(ridge.LARGEST)) + 1)]
    if not values:
        raise UserError(
            f"column LINEAR needs a ridge above 0, and baseline.ridge is {ridge.shown(how.ridge)}: add one, "
            "such as 0.001, or use loo"
        )
    return values


def notes(*sentences: str | None) -> str | None:
    """Join the sentences that are not None or empty; None if there are none."""
    return "; ".join(sentence for sentence in sentences if sentence) or None


def ridge_edge(edge: str | None) -> str | None:
    """Return a note for a ridge at the end of those tried; None for any other."""
    remedy = {"largest": "larger", "smallest": "smaller"}
    return edge and f"the {edge} ridge tried is the best: add {remedy[edge]} ones to baseline.ridge"


def _edge(chosen: float, values: tuple[float, ...], what: str) -> str | None:
    ends = {max(values): ("largest", "larger"), min(values): ("smallest", "smaller")}
    if chosen not in ends or len(ends) < 2:
        return None
    end, remedy = ends[chosen]
    return f"the {end} {what} tried is the best: add {remedy} ones to baseline.{what}s"
