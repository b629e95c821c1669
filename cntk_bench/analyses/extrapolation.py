"""A learning curve beyond its largest number of training images, by a power law (`regression.powerlaw`)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression import powerlaw
from cntk_bench.regression.powerlaw import Law

LEAST = 4  # sizes: one more than the law with a floor has parameters
WINDOW = 32  # smaller sizes than one in so many of the largest are not fitted
RESAMPLES, SEED = 1000, 0
UNPOSED = 0.05  # of the resamples may be without a law
DOUBTED = 3.0  # standard errors by which the law may miss the largest size
STEPS = 24  # at which the law is kept for figures
LAWS = {True: "a n^-b + c", False: "a n^-b"}  # with a floor, and without
BENT = "exp(parabola in ln n)"  # steeper and steeper


def require(sizes: Sequence[int], to: int) -> None:
    """UserError if a curve of these sizes cannot be extrapolated to so many training images."""
    distinct = set(sizes)
    if len(distinct) < LEAST:
        raise UserError(
            f"--extrapolate fits a law to {LEAST} sizes or more, and there are {len(distinct)}: "
            "give more with --sizes"
        )
    if to <= max(distinct):
        raise UserError(f"--extrapolate {to:,}: give more images than the largest size, {max(distinct):,}")


def extrapolated(points: Sequence[dict], right: np.ndarray, to: int) -> dict[str, Any]:
    """What the law says of `to` training images, how sure it is, and how much hangs on what is fitted.

    Fitted are the trusted sizes from one in `WINDOW` of the largest up, but four at least: the errors of
    small sets are nearer to chance than a power law has them (the small data region of Hestness et al. 2017).
    With five sizes or more the law has a floor, c >= 0; with four too little is left to tell it from a
    smaller exponent, so c = 0. Weights are of the standard errors: the binomial one and, of several draws,
    that of a mean over draws. They ignore that the errors of different n are correlated; the standard error
    of the result does not: whole test images are resampled, and whole draws.

    Parameters
    ----------
    points : sequence of dict
        Of `curve.follow`, ascending.
    right : array (r, k, m), bool
        As for `powerlaw.resampled`: of each draw, point and test image.
    to : int
        More than the largest size.

    Returns
    -------
    dict
        train (`to`), refused: why there is no law, or None, and where there is one: law, its a (percent),
        b, c (percent) and sizes; accuracy, standard_error, interval (of 95 %) in percent; residual, the root
        mean square of what the law misses, in percent; choices, the accuracy of both laws and of fewer sizes,
        None where these have no law, and of a parabola on logarithmic axes where that falls faster than any
        power, with the lowest and highest of them; check: what the law predicts of the
        largest size from the others, beside what was measured, with the standard error of the difference;
        path: the law on its way, for figures; resamples, seed, over: what was resampled; doubt: why it is not
        to be trusted, or None, where it predicts less than was measured for the largest size, or misses that
        size, predicted from the others, by `DOUBTED` standard errors.
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
    """Why the law cannot be trusted, by the curve's own largest size; `step`: one test image, in percent."""
    check, found = facts["check"], facts["accuracy"]
    there = f"{check['measured']:.2f} measured for n = {check['train']:,}"
    if found < check["measured"]:
        return f"the law predicts {found:.2f} for n = {facts['train']:,}, less than the {there}"
    missed = abs(check["predicted"] - check["measured"])
    if missed > max(DOUBTED * check["standard_error"], step):
        return f"from the smaller sizes the law predicts {check['predicted']:.2f} instead of the {there}"
    return None


def _sigma(point: dict, draws: int, images: int) -> float:
    """The standard error of a point, in percent; that of one image in all where it would be 0."""
    least = 100 * ((images - 1) / images**3) ** 0.5
    between = (point.get("spread") or 0.0) / draws**0.5
    return float(np.hypot(max(point["standard_error"], least), between))


def _of(sizes: np.ndarray, errors: np.ndarray, sigma: np.ndarray, floor: bool, to: int) -> dict:
    """The accuracy of one choice of what is fitted; None where that has no law."""
    law = powerlaw.fit(sizes, errors, sigma, floor)
    return {"accuracy": float(100 - law.error(to)) if law.posed else None}


def _bent(sizes: np.ndarray, errors: np.ndarray, sigma: np.ndarray, to: int) -> list[dict]:
    """The accuracy of an error that falls ever faster, if it does: no floor says that."""
    if errors.min() <= 0:
        return []
    curvature, slope, level = powerlaw.parabola(sizes, errors, sigma)
    if curvature >= 0:
        return []
    far = np.log(to / sizes[-1])
    accuracy = 100 - float(np.exp(curvature * far**2 + slope * far + level))
    return [{"from": int(sizes[0]), "law": BENT, "accuracy": accuracy}]


def _check(sizes: np.ndarray, errors: np.ndarray, sigma: np.ndarray, floor: bool, others: np.ndarray) -> dict:
    """The largest size, predicted from the others; `others` (count, k) are errors of resamples."""
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
