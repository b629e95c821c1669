"""Minimax coefficients of the activation, printed with their errors.

With y = (1 - c) / (1 + B c), c the correlation in [0, 1], t = arccos c:

    z = sin t / (1 + B c),    t = z (1 + B + y f(y))       see kernels_cuda/activation.cuh

f is smooth, so a short polynomial serves. What an error of t does to a kernel grows with c, which
nears 1 from layer to layer; so the weighted error (FLOOR + c^4) t, not t's own, is made least
(a linear programme).

    python scripts/fit_polynomials.py --degree 3 --b 0.475
"""

import argparse

import numpy as np
from scipy.optimize import linprog

FLOOR = 0.02


def correlation(y, b):
    """c, from y = (1 - c) / (1 + b c); any shape."""
    return (1 - y) / (1 + b * y)


def tilted_sine(y, b):
    """z = sin t / (1 + b c), without cancellation at small y; any shape."""
    return np.sqrt(y * (2 - (1 - b) * y) / (1 + b))


def angle(y, b):
    """t = arccos c, without cancellation at small y; any shape."""
    return 2 * np.arcsin(np.sqrt((1 + b) * y / (1 + b * y) / 2))


def f(y, b):
    """(t / z - 1 - b) / y for y in (0, 1]."""
    return (angle(y, b) / tilted_sine(y, b) - 1 - b) / y


def minimax(f, weight, degree):
    """Coefficients (degree + 1,), constant first: least largest |weight (f - polynomial)| on [0, 1]."""
    grid = np.sin(np.linspace(0.01, np.pi / 2, 4000)) ** 2  # dense at both ends; f cancels at 0
    rows = np.vander(2 * grid - 1, degree + 1, increasing=True) * weight(grid)[:, None]
    values = f(grid) * weight(grid)
    # In units of the least squares' largest error, which is near: minimise e with |values - rows x| <= e.
    start = np.linalg.lstsq(rows, values)[0]
    unit = abs(values - rows @ start).max()
    left = (values - rows @ start) / unit
    one = np.ones((len(grid), 1))
    fit = linprog(
        [0] * (degree + 1) + [1],
        A_ub=np.block([[rows, -one], [-rows, -one]]),
        b_ub=np.concatenate([left, -left]),
        bounds=(None, None),
    )
    if not fit.success:
        raise ArithmeticError(fit.message)
    centred = np.polynomial.Polynomial(start + unit * fit.x[:-1], domain=[0, 1])  # in 2 y - 1
    return centred.convert().coef


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--degree", type=int, default=3)
    parser.add_argument("--b", type=float, default=0.475)
    arguments = parser.parse_args()
    b = arguments.b

    def of_t(y):  # what an error of f does to t
        return tilted_sine(y, b) * y

    coefficients = minimax(
        lambda y: f(y, b), lambda y: of_t(y) * (FLOOR + correlation(y, b) ** 4), arguments.degree
    )
    for power, coefficient in enumerate(coefficients):
        print(f"    y^{power}  {coefficient:+.9e}")
    y = np.linspace(0, 1, 100001)[1:]
    error = abs(of_t(y) * (f(y, b) - np.polynomial.polynomial.polyval(y, coefficients)))
    for least in (0.0, 0.2, 0.4, 0.6, 0.8):
        print(f"largest error of t where c >= {least}: {error[correlation(y, b) >= least].max():.1e}")


if __name__ == "__main__":
    main()
