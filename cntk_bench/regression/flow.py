"""Gradient flow: kernel regression stopped at a time t, for every t from one eigendecomposition.

Loss: half the sum of squares over training images and classes; zero output at the beginning; rate 1.
Coefficients alpha(t) of f_t(x) = K(x, train) alpha(t) follow alpha' = Y - (K + r I) alpha, so

    alpha(t) = U diag(w) U^T Y,   w = (1 - exp(-(l + r) t)) / (l + r),   w = t where l + r = 0

with K = U diag(l) U^T and r a ridge (weight decay; absolute), 0 by default. A loss that is a mean over n
images, or over images and classes, is the same flow with t divided by that number. As t grows, f_t becomes
the solution of kernel regression with ridge r; as t goes to 0, t K Y (Arora et al. 2019, section 3; Lee et
al., "Wide Neural Networks of Any Depth Evolve as Linear Models Under Gradient Descent", 2019).

Where K is singular, what lies in its null space changes no prediction, of training or test images, and
is left out: as t grows f_t goes to the solution of least norm.

**Leave-one-out, exactly.** Let f^-i be the flow trained without image i. If image i were put back with the
target g(s) = f^-i_s(x_i) at every time s, it would never have a residual and change nothing. So alpha_i(s) is
0 in the flow with all images whose i-th target is g(s). Under the Laplace transform, with p for t, that is
0 = [(p + r + K)^-1 (Y / p - e_i (y_i / p - G(p)))]_i, hence for the residual R(p) of y_i - g(t)

    p R(p) = [(p + r + K)^-1 Y]_i / [(p + r + K)^-1]_ii

which is the leave-one-out residual of kernel regression with ridge r + p (`ridge`). All its singularities lie
on the negative real axis, so the inverse transform converges geometrically on a parabola around it
(Weideman and Trefethen, "Parabolic and hyperbolic contours for computing the Bromwich integral", Math. Comp.
76, 2007, section 3): `NODES` complex ridges per time, and no refits. The usual shortcut for linear smoothers,
(y_i - f_i) / (1 - S_ii), is not valid for gradient flow: it needs residuals that do not change in
time.
"""

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression.eigen import Spectrum

NODES = 16  # of the upper half of the parabola: errors of about 8.12^-16 = 3e-15, and 66 times rounding
ROWS = 1024  # of U at a time


def times(spectrum: Spectrum, ridge: float = 0.0) -> np.ndarray:
    """Relative times t trace(K) / n that span a flow: quarters of decades, from first changes to the end.

    They begin a decade before the reciprocal of the largest eigenvalue, and end a decade after that of the
    smallest nonzero one; the absolute ridge is added to the eigenvalues.
    """
    positive = spectrum.values[spectrum.values > 0] + ridge
    first, last = (np.log10(spectrum.mean_diagonal / value) for value in (positive[-1], positive[0]))
    return 10 ** (np.arange(np.floor(4 * (first - 1)), np.ceil(4 * (last + 1)) + 1) / 4)


def weights(spectrum: Spectrum, time: float, ridge: float = 0.0) -> np.ndarray:
    """Weights w (n,) for an absolute time, which may be infinite, and an absolute ridge.

    They are 0 in the null space of K.
    """
    _require(time, ridge)
    values = spectrum.values + ridge
    known = spectrum.values > 0
    w = np.zeros(len(values))
    w[known] = -np.expm1(-values[known] * time) / values[known]
    return w


def coefficients(spectrum: Spectrum, y: np.ndarray, time: float, ridge: float = 0.0) -> np.ndarray:
    """alpha (n, k) at a time, for targets y (n, k); time and ridge as for `weights`."""
    return spectrum.vectors @ (weights(spectrum, time, ridge)[:, None] * spectrum.project(y))


def trained(spectrum: Spectrum, y: np.ndarray, time: float, ridge: float = 0.0) -> np.ndarray:
    """f_t of the training images, (n, k); time and ridge as for `weights`."""
    shrunk = spectrum.values * weights(spectrum, time, ridge)
    return spectrum.vectors @ (shrunk[:, None] * spectrum.project(y))


def left_out(spectrum: Spectrum, y: np.ndarray, time: float, ridge: float = 0.0) -> np.ndarray:
    """y_i - f^-i_t(x_i) for each image i, (n, k): residuals of flows each trained without one image.

    Exact up to rounding (see above), which where K is singular is multiplied by t trace(K) / n. Costs
    2 NODES (k + 1) products of U with a vector.

    Parameters
    ----------
    spectrum : Spectrum
    y : array (n, k)
        Targets.
    time : float
        Absolute, positive and finite.
    ridge : float
        Absolute.

    Raises
    ------
    UserError
        If time or ridge is not possible.
    """
    _require(time, ridge)
    if not 0 < time < np.inf:
        raise UserError(f"time {time:g}: leaving one out needs one that is positive and finite")
    n, k = y.shape
    step = 3 / NODES
    u = (np.arange(NODES) + 0.5) * step
    mu = np.pi * NODES / (12 * time)
    p, dp = mu * (1j * u + 1) ** 2, 2j * mu * (1j * u + 1)
    inverse = 1 / (spectrum.values[:, None] + ridge + p)  # (n, NODES)
    projected = spectrum.project(y)
    upper = (inverse[:, :, None] * projected[:, None, :]).reshape(n, NODES * k)
    out = np.empty((n, k))
    for first in range(0, n, ROWS):
        rows = spectrum.vectors[first : first + ROWS]
        above = (rows @ upper.real + 1j * (rows @ upper.imag)).reshape(len(rows), NODES, k)
        squared = rows**2
        below = squared @ inverse.real + 1j * (squared @ inverse.imag)
        terms = np.exp(p * time) * dp / p / below  # (h, NODES)
        out[first : first + ROWS] = step / np.pi * (terms[:, :, None] * above).imag.sum(axis=1)
    return out


def _require(time: float, ridge: float) -> None:
    if not time >= 0:
        raise UserError(f"time {time:g} is not possible: use one of at least 0")
    if not 0 <= ridge < np.inf:
        raise UserError(f"ridge {ridge:g} is not possible: use a finite one of at least 0")
