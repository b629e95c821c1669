"""Summarise networks of several widths: means over the networks of a width, slopes against width."""

import math
from collections.abc import Sequence

import numpy as np

from cntk_bench.analyses import finite

TRAINED = ("drift", "movement", "layer")  # measures that need training


def gathered(items: list[dict]) -> dict:
    """Return the items, means over the networks of each width, and slopes against width.

    Parameters
    ----------
    items : list of dict
        With kind, depth, width, seed and `finite.MEASURES`, None for those not measured, or failed.

    Returns
    -------
    dict
        networks: the items. means: for each kind, depth and width the number of networks, the number that
        failed ("diverged", see `failed`), and each measure's mean, deviation and standard error. slopes:
        for each kind, depth and measure the slope, its standard_error (null if unknown), the slope expected
        at large widths, and a doubt in a sentence, or null. If fewer than two widths have the measure, it is
        there only with a doubt, and slope is null.
    """
    means: list[dict] = []
    slopes: list[dict] = []
    for kind, depth in dict.fromkeys((item["kind"], item["depth"]) for item in items):
        mine = [item for item in items if (item["kind"], item["depth"]) == (kind, depth)]
        place = {"kind": kind, "depth": depth}
        widths = sorted({item["width"] for item in mine})
        rows = [_row([item for item in mine if item["width"] == width]) for width in widths]
        means += [place | {"width": width} | row for width, row in zip(widths, rows, strict=True)]
        for measure in finite.MEASURES:
            found = [(width, row) for width, row in zip(widths, rows, strict=True) if row[measure]]
            doubt = _doubt(measure, mine)
            line: float | None = None
            error: float | None = None
            if len(found) > 1:
                line, error = slope(
                    [width for width, _ in found],
                    [row[measure] for _, row in found],
                    [row[f"{measure}_error"] for _, row in found],
                )
            elif doubt is None:
                continue
            said = {"slope": line, "standard_error": error, "expected": finite.expected(measure, kind, depth)}
            slopes.append(place | {"measure": measure} | said | {"doubt": doubt})
    return {"networks": items, "means": means, "slopes": slopes}


def _doubt(measure: str, items: list[dict]) -> str | None:
    """Why a measure's slope over these networks is not to be trusted, or is missing; None if it is sound."""
    if measure in TRAINED and any("loss_after" in item for item in items):
        lost = sum(map(failed, items))
        return f"training of {lost} network{'s' * (lost != 1)} failed" if lost else None
    if measure == "kappa" and (without := sum(map(constant, items))):
        return f"no output of {without} network{'s' * (without != 1)} depended on a weight"
    return None


def _row(items: list[dict]) -> dict:
    """Summarise the networks of one width.

    A row has their number, how many failed, and each measure's mean, deviation between networks, and
    standard error of the mean (None for one network).
    """
    row: dict = {"networks": len(items), "diverged": sum(map(failed, items))}
    for measure in finite.MEASURES:
        valid = [item for item in items if measure not in TRAINED or not failed(item)]
        values = [item[measure] for item in valid if item[measure] is not None]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        row[measure] = float(np.mean(values)) if values else None
        row[f"{measure}_deviation"] = deviation
        row[f"{measure}_error"] = None if deviation is None else deviation / len(values) ** 0.5
    return row


def constant(item: dict) -> bool:
    """Whether kappa was asked for but is undefined, as no output of the network depended on a weight."""
    return item.get("distance") is not None and item["kappa"] is None


def failed(item: dict) -> bool:
    """Whether a network's training failed.

    It ended in numbers that are not finite or with a loss that is not lower, or no output depended on a
    weight, before or after it.
    """
    if "loss_after" not in item:
        return constant(item)
    if any(item[key] is None for key in ("loss_after", *TRAINED)):
        return True
    return item.get("loss_before") is not None and not item["loss_after"] < item["loss_before"]


def slope(
    x: Sequence[float], y: Sequence[float], errors: Sequence[float | None]
) -> tuple[float, float | None]:
    """The slope of log(y) against log(x) by least squares, and its standard error.

    Parameters
    ----------
    x, y : sequence of float (w,)
        Positive; at least two different x.
    errors : sequence of float or None (w,)
        Standard errors of y, independent of each other. log(y) then has the error e / y, to first order, and
        the slope sum_i c_i log(y_i), with c = (log x - mean) / |log x - mean|^2, has the square root of
        sum_i (c_i e_i / y_i)^2. Where one is None (of a single network), the standard error is that of the
        residuals, with w - 2 degrees of freedom; None for two points.
    """
    u, v = np.log(x), np.log(y)
    u = u - u.mean()
    c = u / (u @ u)
    found = float(c @ v)
    known = [error for error in errors if error is not None]
    if len(known) == len(x):
        return found, float(np.linalg.norm(c * np.divide(known, y)))
    if len(x) < 3:
        return found, None
    residuals = v - v.mean() - found * u
    return found, math.sqrt(float(residuals @ residuals) / (len(x) - 2)) * float(np.linalg.norm(c))
