"""Extrapolate a learning curve to more training images by a power law (`regression.powerlaw`)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression import powerlaw
from cntk_bench.regression.powerlaw import Law

LEAST = 4  # sizes to fit: one more than the law with a floor has parameters
WINDOW = 32  # sizes below 1 / WINDOW of the largest are not fitted
RESAMPLES, SEED = 1000, 0
UNPOSED = 0.05  # largest share of the resamples that may have no law
DOUBTED = 3.0  # standard errors by which the law may miss the largest size
STEPS = 24  # points of the law kept for figures
LAWS = {True: "a n^-b + c", False: "a n^-b"}  # with a floor, and without
BENT = "exp(parabola in ln n)"  # falls ever faster


def require(sizes: Sequence[int], to: int) -> None:
    """Raise UserError if a curve of these sizes cannot be extrapolated to `to` training images."""
    distinct = set(sizes)
    if len(distinct) < LEAST:
        raise UserError(
            f"--extrapolate fits a law to {LEAST} sizes or more, and there are {len(distinct)}: "
            "give more with --sizes"
        )
    if to <= max(distinct):
        raise UserError(f"--extrapolate {to:,}: give more images than the largest size, {max(distinct):,}")


def extrapolated(points: Sequence[dict], right: np.ndarray, to: int) -> dict[str, Any]:
    """Extrapolate a curve to `to` training images, with its error and how much hangs on what is fitted.

    The law is fitted to the trusted sizes from 1 / `WINDOW` of the largest up, but at least four: errors of
    small sets are closer to chance than a power law predicts (the small data region of Hestness et al. 2017).
    With five sizes or more the law has a floor, c >= 0; four are too few to tell a floor from a smaller
    exponent, so c = 0. Weights come from standard errors: the binomial one and, with several draws, that of
    the mean over draws. They ignore that errors at different n are correlated; the standard error of the
    result does not, since whole test images and whole draws are resampled.

    Parameters
    ----------
    points : sequence of dict
        From `curve.follow`, ascending.
    right : array (r, k, m), bool
        Whether each draw, at each point, classifies each test image correctly (`powerlaw.resampled`).
    to : int
        More than the largest size.

    Returns
    -------
    dict
        train (`to`), and refused: why there is no law, or None. If there is a law: law, its a (percent),
        b, c (percent) and sizes; accuracy, standard_error and 95 % interval in percent; residual, the law's
        root mean square error at these sizes, in percent; choices, the accuracy by either law and by fewer
        sizes (None where there is no law), and by a parabola on logarithmic axes if it falls faster than any
        power, with the lowest and highest of them; check, the largest size as predicted from the others and
        as measured, with the standard error of the difference; path, points of the law for figures;
        resamples, seed, and over, what was resampled; doubt, why the result cannot be trusted, or None. In
        doubt is a law that predicts less than was measured for the largest size, or that, fitted to the
        other sizes, misses the largest by more than `DOUBTED` standard errors.
    """
    sound = [place for place, point in enumerate(points) if not point["doubt"]]
    facts: dict[str, Any] = {"train": to, "refused": None, "doubt": None}
    if len(sound) < LEAST:
        return facts | {"refused": f"{len(sound)} sizes can be trusted, and a law needs {LEAST}"}
    largest = points[sound[-1]]["train"]
    near = [place for place in sound if points[place]["train"] * WINDOW >= largest]
    used = sound[-max(LEAST, len(near)) :]
    sizes = np.array([points[place]["train"] for place in used])
    errors = np.array([100 - points[place]["accuracy"] for place in used])
    sigma = np.array([_sigma(points[place], *right.shape[::2]) for place in used])
    if not (sigma > 0).all():
        return facts | {"refused": "standard errors of 0 allow no fit: use more test images"}
    floor = len(used) > LEAST
    law = powerlaw.fit(sizes, errors, sigma, floor)
    over = "test images and draws" if len(right) > 1 else "test images"
    facts |= {"sizes": sizes.tolist(), "law": LAWS[floor], "over": over}
    if not law.posed:
        ends = f"{sizes[0]:,} to {largest:,}"
        return facts | {"refused": f"the error does not fall as a power of n from n = {ends}"}
    others = 100 * (1 - powerlaw.resampled(right[:, used], RESAMPLES, SEED))
    laws = powerlaw.fit(sizes, others, sigma, floor)
    unposed = 1 - float(laws.posed.mean())
    if unposed > UNPOSED:
        return facts | {
            "refused": f"in {100 * unposed:.0f} % of the resamples of {over} the error does not fall as a "
            "power of n: use more test images, or sizes further apart"
        }
    found = 100 - laws.error(to)
    choices = [
        {"from": int(sizes[start]), "law": LAWS[kind]}
        | _of(sizes[start:], errors[start:], sigma[start:], kind, to)
        for kind in (floor, not floor)
        for start in range(len(sizes) - LEAST + 1)
    ]
    choices += _bent(sizes, errors, sigma, to)
    known = [choice["accuracy"] for choice in choices if choice["accuracy"] is not None]
    facts |= {
        "a": float(law.a * law.unit**law.b),
        "b": float(law.b),
        "c": float(law.c),
        "accuracy": float(100 - law.error(to)),
        "standard_error": float(found.std(ddof=1)),
        "interval": np.percentile(found, [2.5, 97.5]).tolist(),
        "residual": float(
            np.sqrt(np.mean([(law.error(n) - e) ** 2 for n, e in zip(sizes, errors, strict=True)]))
        ),
        "choices": choices,
        "lowest": min(known),
        "highest": max(known),
        "check": _check(sizes, errors, sigma, floor, others),
        "path": _path(law, laws, largest, to),
        "resamples": RESAMPLES,
        "seed": SEED,
    }
    facts["doubt"] = _doubt(facts, 100 / right.shape[2])
    return facts


def _doubt(facts: dict, step: float) -> str | None:
    """Return why the law cannot be trusted, or None; `step` is one test image in percent."""
    check, found = facts["check"], facts["accuracy"]
    there = f"{check['measured']:.2f} measured for n = {check['train']:,}"
    if found < check["measured"]:
        return f"the law predicts {found:.2f} for n = {facts['train']:,}, less than the {there}"
    missed = abs(check["predicted"] - check["measured"])
    if missed > max(DOUBTED * check["standard_error"], step):
        return f"from the smaller sizes the law predicts {check['predicted']:.2f} instead of the {there}"
    return None


def _sigma(point: dict, draws: int, images: int) -> float:
    """Return a point's standard error in percent, at least that of one wrong image among all."""
    least = 100 * ((images - 1) / images**3) ** 0.5
    between = (point.get("spread") or 0.0) / draws**0.5
    return float(np.hypot(max(point["standard_error"], least), between))


def _of(sizes: np.ndarray, errors: np.ndarray, sigma: np.ndarray, floor: bool, to: int) -> dict:
    """Return the accuracy by one choice of law and sizes; None if it has no law."""
    law = powerlaw.fit(sizes, errors, sigma, floor)
    return {"accuracy": float(100 - law.error(to)) if law.posed else None}


def _bent(sizes: np.ndarray, errors: np.ndarray, sigma: np.ndarray, to: int) -> list[dict]:
    """Extrapolate by a parabola if the error falls ever faster, which neither law can describe."""
    if errors.min() <= 0:
        return []
    curvature, slope, level = powerlaw.parabola(sizes, errors, sigma)
    if curvature >= 0:
        return []
    far = np.log(to / sizes[-1])
    accuracy = 100 - float(np.exp(curvature * far**2 + slope * far + level))
    return [{"from": int(sizes[0]), "law": BENT, "accuracy": accuracy}]


def _check(sizes: np.ndarray, errors: np.ndarray, sigma: np.ndarray, floor: bool, others: np.ndarray) -> dict:
    """Predict the largest size from the others; `others` (count, k) are the errors of resamples."""
    rest, largest = sizes[:-1], int(sizes[-1])
    law, laws = (powerlaw.fit(rest, some[..., :-1], sigma[:-1], floor) for some in (errors, others))
    missed = laws.error(largest) - others[:, -1]
    return {
        "train": largest,
        "from": rest.tolist(),
        "predicted": float(100 - law.error(largest)),
        "measured": float(100 - errors[-1]),
        "standard_error": float(missed.std(ddof=1)),
    }


def _path(law: Law, laws: Law, first: int, last: int) -> list[dict]:
    """The law's accuracies between two sizes, and their standard errors, for figures."""
    return [
        {
            "train": float(n),
            "accuracy": float(100 - law.error(n)),
            "standard_error": float(laws.error(n).std(ddof=1)),
        }
        for n in np.geomspace(first, last, STEPS)
    ]
