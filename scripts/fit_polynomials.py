"""Minimax polynomials of the kernels' two functions, printed with their errors.

With u = 1 - c in [0, 1]:

    arccos(1 - u) = sqrt(u) p(u)
    k1(1 - u) = 1 - w,   w = u (1 - sqrt(u) q(u))

p and q are smooth, so short polynomials serve. Each is the minimax fit of what is used:
sqrt(u) p(u) and u sqrt(u) q(u) have the least largest error on [0, 1] (Remez exchange).

    python scripts/fit_polynomials.py --degree-p 6 --degree-q 5
"""

import argparse
import math

import numpy as np


def angle(u):
    """arccos(1 - u), without cancellation at small u; any shape."""
    return 2 * np.arcsin(np.sqrt(u / 2))


def p(u):
    """arccos(1 - u) / sqrt(u) for u in (0, 1]."""
    return angle(u) / np.sqrt(u)


def q(u):
    """(k1(1 - u) - 1 + u) / u^(3/2) = (sin t - t cos t) / (pi u^(3/2)), t = arccos(1 - u), as a series."""
    t = angle(u)
    series = sum((-1) ** k * (2 * k + 2) / math.factorial(2 * k + 3) * t ** (2 * k) for k in range(14))
    return t**3 * series / (np.pi * u**1.5)


def minimax(f, weight, degree):
    """Coefficients (degree + 1,), constant first: least largest |weight (f - polynomial)| on [0, 1]."""
    grid = (np.sin(np.linspace(0, np.pi / 2, 20001)) ** 2)[1:]  # dense at both ends, without 0
    values, weights = f(grid), weight(grid)
    nodes = np.linspace(0, len(grid) - 1, degree + 3).round().astype(int)[1:]  # the weight is 0 at u = 0
    signs = (-1.0) ** np.arange(degree + 2)
    for _ in range(30):
        # polynomial + sign * level / weight = f on the nodes
        matrix = np.column_stack(
            [np.vander(grid[nodes], degree + 1, increasing=True), signs / weights[nodes]]
        )
        coefficients = np.linalg.solve(matrix, values[nodes])[:-1]
        error = weights * (values - np.polynomial.polynomial.polyval(grid, coefficients))
        ends = np.flatnonzero(np.diff(np.sign(error))) + 1
        nodes = np.array([part[np.argmax(abs(error[part]))] for part in np.split(np.arange(len(grid)), ends)])
        if len(nodes) != degree + 2:
            raise ArithmeticError(f"degree {degree}: {len(nodes)} extrema instead of {degree + 2}")
    return coefficients


def horner32(coefficients, u):
    """The polynomial in float32, as the kernels evaluate it (without fused multiply-adds)."""
    value = np.full_like(u, np.float32(coefficients[-1]))
    for coefficient in coefficients[-2::-1]:
        value = value * u + np.float32(coefficient)
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--degree-p", type=int, default=6)
    parser.add_argument("--degree-q", type=int, default=5)
    arguments = parser.parse_args()
    u = np.linspace(0, 1, 100001)[1:]
    for name, f, weight, degree in (
        ("p", p, np.sqrt, arguments.degree_p),
        ("q", q, lambda u: u**1.5, arguments.degree_q),
    ):
        coefficients = minimax(f, weight, degree)
        exact = weight(u) * (f(u) - np.polynomial.polynomial.polyval(u, coefficients))
        single = weight(u) * (f(u) - horner32(coefficients, u.astype(np.float32)))
        print(f"{name}: degree {degree}, error {abs(exact).max():.1e}, in float32 {abs(single).max():.1e}")
        for power, coefficient in enumerate(coefficients):
            print(f"    u^{power}  {coefficient:+.9e}")


if __name__ == "__main__":
    main()
