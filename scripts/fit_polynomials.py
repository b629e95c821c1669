"""Minimax coefficients of the activation, printed with their errors.

With y = (1 - c) / (1 + B c), c the correlation in [0, 1], t = arccos c:

    z = sin t / (1 + B c),    t = z (1 + B + y f(y))       see kernels_cuda/activation.cuh

f is smooth, so a short polynomial serves. What an error of t does to a kernel grows with c, which
nears 1 from layer to layer; so the weighted error (FLOOR + c^4) t, not t's own, is made least
(a linear programme).

For the CPU, which takes s = sqrt(y) from an estimate of 1 / sqrt(gap D) and has no sine:

    t = s p(y),    pi n k1 = pi S + gap s q(y),    1 / sqrt(1 - e)    see backends/cpu/activation.py

    python scripts/fit_polynomials.py --of cuda --degree 3 --b 0.475
    python scripts/fit_polynomials.py --of cpu --degree 4 --b 0.32
"""

import argparse

import numpy as np
from scipy.optimize import linprog

FLOOR = 0.02
ROOT = 0x5F370000  # as in cntk_bench/backends/cpu/lanes.py


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
    """Coefficients (degree + 1,), constant first, of least largest |weight (f - polynomial)| on [0, 1]."""
    grid = np.sin(np.linspace(0.01, np.pi / 2, 4000)) ** 2  # dense at both ends; f cancels at 0
    rows = np.vander(2 * grid - 1, degree + 1, increasing=True) * weight(grid)[:, None]
    values = f(grid) * weight(grid)
    # In units of the largest error of least squares, which is close: minimise e with |values - rows x| <= e.
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


def ratio(y, b):
    """p = t / s, with s = sqrt(y); any shape, y > 0."""
    return angle(y, b) / np.sqrt(y)


def gain(y, b):
    """q = (sin t - t cos t) / ((1 - c) s), by a series where that cancels; any shape, y > 0."""
    t = angle(y, b)
    series = t**3 * (1 / 3 - t**2 * (1 / 30 - t**2 * (1 / 840 - t**2 / 45360)))
    numerator = np.where(t < 0.1, series, np.sin(t) - t * np.cos(t))
    return numerator / (2 * np.sin(t / 2) ** 2 * np.sqrt(y))


def estimates(root):
    """Least and largest e = 1 - a r^2, with r the float whose bits are `root` minus half of a's bits."""
    a = np.exp2(np.linspace(0, 2, 400_001)[:-1]).astype(np.float32)
    r = (np.uint32(root) - (a.view(np.uint32) >> np.uint32(1))).view(np.float32)
    e = 1 - a.astype(float) * r.astype(float) ** 2
    return e.min(), e.max()


def cuda(b, degree):
    """f, of kernels_cuda/activation.cuh."""

    def of_t(y):  # what an error of f does to t
        return tilted_sine(y, b) * y

    coefficients = minimax(lambda y: f(y, b), lambda y: of_t(y) * (FLOOR + correlation(y, b) ** 4), degree)
    show("f", coefficients)
    y = np.linspace(0, 1, 100001)[1:]
    tell("t", y, b, of_t(y) * (f(y, b) - np.polynomial.polynomial.polyval(y, coefficients)))


def cpu(b, degree):
    """p, q and the inverse root, of cntk_bench/backends/cpu/activation.py."""
    y = np.linspace(0, 1, 100001)[1:]
    p = minimax(lambda y: ratio(y, b), lambda y: np.sqrt(y) * (FLOOR + correlation(y, b) ** 4), degree)
    show("p", p)
    tell("t", y, b, np.sqrt(y) * (ratio(y, b) - np.polynomial.polynomial.polyval(y, p)))

    def of_k1(y):  # what an error of q does to pi k1; the constant keeps q's own error finite at 0
        return y**1.5 * (1 + b * correlation(y, b)) * (0.05 + correlation(y, b) ** 2) + 1e-4

    q = minimax(lambda y: gain(y, b), of_k1, degree)
    show("q", q)
    error = gain(y, b) - np.polynomial.polynomial.polyval(y, q)
    tell("pi k1", y, b, (1 - correlation(y, b)) * np.sqrt(y) * error)

    low, high = estimates(ROOT)
    print(f"1 / sqrt(a) by bits: e from {low:.4f} to {high:.4f}")

    def e(y):
        return low + (high - low) * y

    r = minimax(lambda y: (1 - e(y)) ** -0.5, lambda y: (1 - e(y)) ** 0.5, degree)
    of_e = np.polynomial.Polynomial(r)(np.polynomial.Polynomial([-low, 1]) / (high - low)).coef
    show("r", of_e)
    error = np.polynomial.polynomial.polyval(e(y), of_e) * (1 - e(y)) ** 0.5 - 1
    print(f"largest relative error: {abs(error).max():.1e}")


def show(name, coefficients):
    for power, coefficient in enumerate(coefficients):
        print(f"    {name}{power}  {coefficient:+.9e}")


def tell(what, y, b, error):
    for least in (0.0, 0.2, 0.4, 0.6, 0.8):
        largest = abs(error)[correlation(y, b) >= least].max()
        print(f"largest error of {what} where c >= {least}: {largest:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--degree", type=int, help="3 for CUDA, 4 for the CPU")
    parser.add_argument("--b", type=float, help="0.475 for CUDA, 0.32 for the CPU")
    arguments = parser.parse_args()
    if arguments.of == "cuda":
        cuda(arguments.b or 0.475, arguments.degree or 3)
    else:
        cpu(arguments.b or 0.32, arguments.degree or 4)


if __name__ == "__main__":
    main()
