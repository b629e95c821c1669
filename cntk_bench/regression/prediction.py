"""Classes of test images from dual coefficients, and how many of them rounding could change."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression.sensitivity import KERNEL_ERROR


@dataclass(frozen=True)
class Prediction:
    """What is predicted for m test images.

    classes : (m,) int64.
    undecided : how many of them the errors of stored kernels alone could change.
    outputs : (m, k) float64, of which the largest decides the class.
    others : (r, m) int64, the classes by other dual coefficients, where some were given.
    black : how many have no kernel but 0 (`black`).
    """

    classes: np.ndarray
    undecided: int
    outputs: np.ndarray
    others: np.ndarray
    black: int = 0


def predict(
    alpha: np.ndarray,
    blocks: Iterable,
    residual: float = 0.0,
    error: float = KERNEL_ERROR,
    others: Sequence[np.ndarray] = (),
) -> Prediction:
    """Classes of m test images whose Gram rows (h, n) come in blocks, in order.

    `residual` is the largest entry of the solution's residual; scores err by about as much.

    `error` is a kernel's relative error; stored kernels have float32's precision. Large coefficients of
    opposite signs, as two almost equal images of different classes get, make the kernels' errors as large as
    the scores: an image is undecided (`unsure`) if these errors or the residual could swap its best two.

    `others` are r further arrays (n, k) like alpha, such as those of other ridges; each block is read once.
    """
    outputs, undecided, also, dark = [], 0, [], 0
    n, k = alpha.shape
    stacked = np.stack([*others], axis=1).reshape(n, -1) if others else np.empty((n, 0))
    for given in blocks:
        block = np.asarray(given, np.float64)
        scores, together = scored(alpha, block)
        undecided += int(unsure(scores, together, block, residual, error).sum())
        dark += black(block)
        outputs.append(scores)
        if others:
            found = (block @ _together(stacked, block)).reshape(len(block), len(others), k)
            also.append(found.argmax(axis=2).T)
    whole = np.concatenate(outputs)
    classes = whole.argmax(axis=1)  # of equal scores, the first
    by_others = np.concatenate(also, axis=1) if also else np.empty((0, len(whole)), np.int64)
    return Prediction(classes, undecided, whole, by_others, dark)


def scored(alpha: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores block @ alpha (h, q) for alpha (n, q), and alpha with equal training images counted as one.

    Raises
    ------
    UserError
        If the block holds NaN or infinity, or scores are beyond float64.
    """
    block = np.asarray(block, np.float64)
    together = _together(alpha, block)
    with np.errstate(over="ignore", invalid="ignore"):  # reported in our words below
        scores = block @ together
    if not np.isfinite(scores).all():
        if np.isfinite(block).all():
            raise UserError(
                "scores leave float64's range, as of kernels near its ends: multiply the kernel by a constant"
            )
        raise UserError("the test Gram matrix holds NaN or infinity: verify and repair what it came from")
    return scores, together


def black(block: np.ndarray) -> int:
    """How many test images have rows (h, n) that are exactly 0, as black ones: nothing can classify them."""
    return int((~np.asarray(block).any(axis=1)).sum())


def unsure(
    scores: np.ndarray,
    alpha: np.ndarray,
    block: np.ndarray,
    residual: float = 0.0,
    error: float = KERNEL_ERROR,
) -> np.ndarray:
    """Which of h test images are undecided: their best two scores are closer than their errors.

    These are the standard deviation that the kernels' errors give the difference of the two scores
    (`margins`), and the residual of both.

    scores : (h, k), as `scored` gives them, of alpha (n, k), with equal images counted as one, and of the
        block (h, n).
    residual, error : as for `predict`.
    """
    margin, deviation = margins(scores, alpha, block, error)
    return margin < deviation + 2 * residual


def margins(
    scores: np.ndarray, alpha: np.ndarray, block: np.ndarray, error: float = KERNEL_ERROR
) -> tuple[np.ndarray, np.ndarray]:
    """By how much the best score leads the second, (h,), and its deviation due to kernels' errors, (h,).

    The errors of a test image's kernels K_i are those of all its scores. So the lead of class b over class s
    has the deviation error sqrt(sum_i (K_i (alpha_ib - alpha_is))^2). Compared with that of independent
    errors, it is smaller where the coefficients of both are alike, and up to sqrt(2) times as large where
    they are opposite, as those of two classes nearly are. Parameters are as for `unsure`.
    """
    order = np.argsort(scores, axis=1)
    second, best = order[:, -2], order[:, -1]
    every, squares = np.arange(len(scores)), np.empty(len(scores))
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite or unknown error is a doubt
        for b, s in np.unique(np.stack([best, second], axis=1), axis=0):
            rows = np.flatnonzero((best == b) & (second == s))
            squares[rows] = np.square(block[rows], dtype=np.float64) @ np.square(alpha[:, b] - alpha[:, s])
    squares[np.isnan(squares)] = np.inf
    return scores[every, best] - scores[every, second], error * np.sqrt(squares)


def _together(alpha: np.ndarray, block: np.ndarray) -> np.ndarray:
    """alpha, with training images that have equal columns of `block` counted as one: the first has their sum.

    The coefficients of equal images of different classes are huge, of opposite signs, and cancel; their
    kernels have the same errors. Summed first, neither rounding nor those errors count.
    """
    _, first, which = np.unique(block[:4].T, axis=0, return_index=True, return_inverse=True)
    leader = first[which.ravel()]
    (others,) = np.nonzero(leader != np.arange(len(alpha)))
    apart = others[(block[:, others] != block[:, leader[others]]).any(axis=0)]
    leader[apart] = apart
    out = np.zeros(alpha.shape)
    np.add.at(out, leader, alpha)
    return out
