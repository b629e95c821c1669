"""Gradient flow of a cell of a computed run: accuracy and loss against time, and when to stop."""

import time as clock
from collections.abc import Sequence
from functools import partial

import numpy as np

from cntk_bench.analyses import analysis
from cntk_bench.errors import UserError
from cntk_bench.regression import eigen, flow, placement, prediction, sensitivity, stream
from cntk_bench.regression.eigen import Spectrum
from cntk_bench.regression.targets import shifted_one_hot
from cntk_bench.runs import scoring
from cntk_bench.runs.access import OpenRun

STOPS = ("loo", "validation", "none")
ENDED = 5.0  # l t for the smallest eigenvalue l: exp(-5) = 0.7 % of its direction is left
LONGEST = 1e30  # relative time; 1 / LONGEST is the shortest: beyond them only rounding changes
REMEDY = "stop earlier, or raise --ridge"
HELD_OUT = 5  # one in so many training images is held out for validation


def follow(
    opened: OpenRun,
    column: str,
    depth: int,
    *,
    times: Sequence[float] | None = None,
    stop: str = "loo",
    ridge: float = 0.0,
) -> dict:
    """Train the linearised network of a cell by gradient flow, and test it at every time.

    Losses are squared errors averaged over images and classes; the flow descends half their sum over the
    training images (`regression.flow`). The stopping time is the listed one of least error on images that
    were not trained on: "loo" leaves out each training image in turn, exactly; "validation" holds out the
    last fifth of them, and takes the same absolute time of a flow on the others. The test images choose
    nothing.

    Parameters
    ----------
    opened : OpenRun
    column, depth : str, int
    times : sequence of float, optional
        Relative: t trace(K) / n. By default `flow.times`.
    stop : {"loo", "validation", "none"}
    ridge : float
        Relative to trace(K) / n.

    Returns
    -------
    dict
        Plain numbers, by these names: unit (absolute time of relative time 1, n / trace(K)), ridge, zeros
        and noise (`eigen.Spectrum`), largest and smallest eigenvalue, curve, a list of points, and limit, the
        point at infinite time. A point: time, relative_time, train_loss, train_accuracy, test_loss,
        test_accuracy, standard_error, undecided (accuracies in percent), stop_error and doubt. stopped:
        the point chosen, or None, with edge: whether it is the "first", "last" or "only" one of those listed.
        ended: whether the slowest direction is all but fitted at the last time listed, so that later ones
        are like infinite time.

    Raises
    ------
    UserError
        If the matrix does not fit into memory or is not computed, or an argument is invalid.
    """
    started = clock.perf_counter()
    if stop not in STOPS:
        raise UserError(f"stopping rule {stop!r} is unknown: use one of {', '.join(STOPS)}")
    n = opened.sizes[0]
    y, y_test, classes = analysis.truth(opened)
    limit = opened.run.config().solve.memory
    held = n // HELD_OUT
    if stop == "validation" and min(held, n - held) < 2:
        raise UserError(f"{n} training images are too few to hold some out: use --stop loo")
    needed = eigen.memory(n) + (8 * held * n if stop == "validation" else 0)
    placement.require(needed, n, "an eigendecomposition", limit)
    facts = analysis.begun(opened, "flow", {"stop": stop, "ridge": ridge})
    gram = analysis.lower(opened, column, depth)
    outside = gram[n - held :, : n - held].copy() if stop == "validation" else None
    spectrum = eigen.decompose(gram, overwrite=True)
    del gram  # its memory may now hold the eigenvectors
    absolute = ridge * spectrum.mean_diagonal
    if times is None:
        relative = flow.times(spectrum, absolute)
    else:
        relative = np.unique(np.array(times, np.float64))
        if not len(relative) or not ((relative >= 1 / LONGEST) & (relative <= LONGEST)).all():
            raise UserError(
                f"a time is not within {1 / LONGEST:g} to {LONGEST:g}: give some such as 0.1,1,10"
            )
    listed = relative / spectrum.mean_diagonal
    errors: list[float | None] = [None] * len(listed)
    if stop == "loo":
        errors = [float((flow.left_out(spectrum, y, t, absolute) ** 2).mean()) for t in listed]
    elif outside is not None:
        part = opened.first(n - held)
        inner = eigen.decompose(analysis.lower(part, column, depth), overwrite=True)
        inside, left = y[: n - held], y[n - held :]
        errors = [
            float(((outside @ flow.coefficients(inner, inside, t, absolute) - left) ** 2).mean())
            for t in listed
        ]
        del inner
    smallest = spectrum.values[spectrum.zeros]  # of those that are not zero
    points = _points(opened, column, depth, spectrum, [*listed, np.inf], absolute)
    for point, error in zip(points, [*errors, None], strict=True):
        point["stop_error"] = error
    facts |= {
        "column": column,
        "depth": depth,
        "classes": classes,
        "unit": 1 / spectrum.mean_diagonal,
        "ridge": ridge,
        "zeros": spectrum.zeros,
        "noise": spectrum.noise,
        "largest": spectrum.values[-1],
        "smallest": spectrum.values[0],
        "stop": stop,
        "held_out": held if stop == "validation" else None,
        "curve": points[:-1],
        "limit": points[-1],
        "stopped": _stopped(points[:-1], errors),
        "ended": bool((smallest + absolute) * listed[-1] >= ENDED),
        "published": analysis.compared(opened, column, depth),
    }
    facts["doubt"] = (facts["stopped"] or facts["limit"])["doubt"]
    facts["made"]["seconds"] = clock.perf_counter() - started
    return facts


def _points(
    opened: OpenRun, column: str, depth: int, spectrum: Spectrum, listed: Sequence[float], ridge: float
) -> list[dict]:
    """Losses and accuracies on training and test images at absolute times; one pass over the test images."""
    y, y_test, classes = analysis.truth(opened)
    labels, goal = y.argmax(axis=1), shifted_one_hot(y_test, classes)
    alpha = np.concatenate([flow.coefficients(spectrum, y, t, ridge) for t in listed], axis=1)
    times = partial(stream.times, analysis.streamed(opened, column, depth))
    moved = sensitivity.moved_each(times, alpha, len(listed))
    squares, undecided = np.zeros(len(listed)), np.zeros(len(listed), np.int64)
    right = np.zeros((len(listed), len(y_test)), bool)
    first = black = 0
    for block in analysis.blocks(opened, column, depth):
        rows = slice(first, first := first + len(block))
        scores, together = (
            values.reshape(len(values), len(listed), classes) for values in prediction.scored(alpha, block)
        )
        black += prediction.black(block)
        squares += ((scores - goal[rows, None]) ** 2).sum(axis=(0, 2))
        right[:, rows] = (scores.argmax(axis=2) == y_test[rows, None]).T
        undecided += [
            int(prediction.unsure(scores[:, i], together[:, i], block).sum()) for i in range(len(listed))
        ]
    points = []
    for i, t in enumerate(listed):
        trained = flow.trained(spectrum, y, t, ridge)
        accuracy, error = scoring.accuracy(right[i])
        points.append(
            {
                "time": t,
                "relative_time": t * spectrum.mean_diagonal,
                "train_loss": float(((trained - y) ** 2).mean()),
                "train_accuracy": 100 * float((trained.argmax(axis=1) == labels).mean()),
                "test_loss": squares[i] / goal.size,
                "test_accuracy": accuracy,
                "standard_error": error,
                "undecided": 100 * undecided[i] / len(y_test),
                "doubt": sensitivity.doubt(moved[i], REMEDY)
                or scoring.doubt(undecided[i], error, len(y_test), REMEDY, black),
            }
        )
    return points


def _stopped(points: list[dict], errors: list[float | None]) -> dict | None:
    """Return the point of least error, the earliest if several tie; None if there are no errors."""
    known = [float("inf") if error is None else error for error in errors]
    best = int(np.argmin(known))
    if not np.isfinite(known[best]):
        return None
    edge = "only" if len(points) == 1 else {0: "first", len(points) - 1: "last"}.get(best)
    return points[best] | {"edge": edge}
