"""The Gaussian process posterior of an NNGP cell of a computed run, and how well it is calibrated.

It is separate from `solve` because it costs more (an eigendecomposition instead of a Cholesky factor, and
the kernel of each test image with itself, which no Gram store holds), and because its noise is by default
that of maximum likelihood, while the table's ridge is the paper's.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

from cntk_bench.analyses import analysis
from cntk_bench.config.config import Config
from cntk_bench.grams import direct, growth
from cntk_bench.kernels.spec import Readout
from cntk_bench.records import record
from cntk_bench.regression import calibration, eigen, placement, prediction
from cntk_bench.regression import posterior as gp
from cntk_bench.regression.targets import shifted_one_hot
from cntk_bench.report.posterior import LEVELS
from cntk_bench.runs import images, scoring, stored
from cntk_bench.runs.access import OpenRun

DRAWN = tuple(np.round(np.arange(0.05, 1, 0.05), 2))  # levels of the intervals in the figure


def is_nngp(readout: Readout) -> bool:
    """Whether a readout is the covariance of a Gaussian process."""
    return readout.kernel in ("nngp", "fc-nngp")


def own_kernels(
    opened: OpenRun, settings: Config, cells: Sequence[tuple[str, int]], progress: Callable | None = None
) -> dict[Readout, np.ndarray]:
    """Compute kernels (m,) of the test images with themselves, for every cell's readout, in one pass.

    Parameters
    ----------
    opened : OpenRun
    settings : Config
        The run's; the path of its data may have changed, and numbers of images do not count.
    cells : sequence of (column, depth)
    progress : callable, optional
        Called after each image.

    Raises
    ------
    UserError
        If the images are not the run's, or cannot be read.
    """
    # The numbers are the record's: config.yaml may have been edited since, and with fewer training images
    # (`OpenRun.first`) the statistics that prepare every image could be others.
    n, m = record.sizes(record.computed(record.load(opened.run.record)))
    loaded = images.load(settings, n, m)
    growth.require_images(opened.store, images.asked(settings, loaded), images.image_facts(loaded))
    readouts = tuple(dict.fromkeys(opened.readout(*cell) for cell in cells))
    name = stored.backend_name("auto", opened.run)
    found = direct.diagonal(loaded.x_test, readouts=readouts, backend=name, progress=progress)
    return dict(zip(readouts, found.astype(np.float64), strict=True))


def infer(
    opened: OpenRun, column: str, depth: int, own: np.ndarray, ridge: float | None = None
) -> tuple[dict, dict[str, np.ndarray]]:
    """Compute the posterior at the test images, and how well it fits them; they choose nothing.

    Parameters
    ----------
    opened : OpenRun
    column, depth : str, int
    own : array (m,)
        Of the cell's readout, from `own_kernels`.
    ridge : float, optional
        Relative to trace(K) / n: variance of the targets' noise over the prior's mean variance. By
        default the one of maximum likelihood.

    Returns
    -------
    dict
        Plain numbers, by these names: ridge, chosen ("likelihood" or "given"), edge
        (`regression.posterior.edge`), scale, noise (variance), log_likelihood (of the training targets, per
        image and class), accuracy and standard_error in percent, test_loss (mean squared error), nll
        (negative log likelihood of the test targets, per image and class), coverage, a list of level and
        observed, both shares, reliability and ece (`calibration.reliability`), log_loss of the class
        probabilities, floored (share in percent of test images whose variance is within its error),
        undecided, doubt.
    dict
        Arrays: mean (m, k), variance (m,) of f, error (m,) of the variance, probabilities (m, k).

    Raises
    ------
    UserError
        If the matrix does not fit into memory or is not computed, or is singular and there is no ridge.
    """
    started = time.perf_counter()
    n, limit = opened.sizes[0], opened.run.config().solve.memory
    y, y_test, classes = analysis.truth(opened)
    placement.require(eigen.memory(n), n, "an eigendecomposition", limit)
    facts = analysis.begun(opened, "posterior", {"ridge": "likelihood" if ridge is None else ridge})
    spectrum = eigen.decompose(analysis.lower(opened, column, depth), overwrite=True)
    assumed = gp.prior(spectrum, y, gp.likeliest(spectrum, y) if ridge is None else ridge)
    alpha = gp.coefficients(spectrum, y, assumed.ridge)
    parts, undecided, black, first = [], 0, 0, 0
    for block in analysis.blocks(opened, column, depth):
        rows = slice(first, first := first + len(block))
        parts.append(gp.posterior(spectrum, assumed, alpha, block, own[rows]))
        scores, together = prediction.scored(alpha, block)
        undecided += int(prediction.unsure(scores, together, block).sum())
        black += prediction.black(block)
    mean, variance, error = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("mean", "variance", "error")
    )
    negative = sum(part.negative for part in parts)
    facts |= {
        "column": column,
        "depth": depth,
        "ridge": assumed.ridge,
        "chosen": "likelihood" if ridge is None else "given",
        "edge": gp.edge(spectrum, assumed.ridge) if ridge is None else None,
        "scale": assumed.scale,
        "noise": assumed.noise,
        "log_likelihood": assumed.log_likelihood / y.size,
        "undecided": 100 * undecided / len(y_test),
        "floored": 100 * float((variance <= error).mean()),
    }
    shown = calibration.probabilities(mean, variance)
    facts |= _judged(mean, variance + assumed.noise, shown, y_test, classes)
    facts["doubt"] = (
        assumed.doubt
        or _negative(negative, len(y_test))
        or scoring.doubt(undecided, facts["standard_error"], len(y_test), "raise --ridge", black)
    )
    facts["made"]["seconds"] = time.perf_counter() - started
    return facts, {"mean": mean, "variance": variance, "error": error, "probabilities": shown}


def _judged(
    mean: np.ndarray, variance: np.ndarray, shown: np.ndarray, y_test: np.ndarray, classes: int
) -> dict:
    """Score predictions of the targets, with variances (m,), and class probabilities against the truth."""
    goal = shifted_one_hot(y_test, classes)
    accuracy, error = scoring.accuracy(mean.argmax(axis=1) == y_test)
    table, ece = calibration.reliability(shown, y_test)
    with np.errstate(divide="ignore"):  # infinite if the true class has probability zero
        surprise = -np.log(shown[np.arange(len(y_test)), y_test])
    levels = sorted({*LEVELS, *DRAWN})
    return {
        "accuracy": accuracy,
        "standard_error": error,
        "test_loss": float(((mean - goal) ** 2).mean()),
        "nll": calibration.negative_log_likelihood(mean, variance, goal),
        "coverage": [
            {"level": float(level), "observed": calibration.coverage(mean, variance, goal, level)}
            for level in levels
        ],
        "reliability": table,
        "ece": ece,
        "log_loss": float(surprise.mean()),
    }


def _negative(count: int, n: int) -> str | None:
    if not count:
        return None
    return f"{count} of {n} variances are negative beyond the errors of stored kernels: raise the ridge"
