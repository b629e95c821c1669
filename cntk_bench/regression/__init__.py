"""Solving: kernel regression on matrices, whatever kernel they come from.

`eigen` decomposes a Gram matrix for gradient flow (`flow`) and Gaussian processes (`posterior`, whose
uncertainties `calibration` judges); `nested` solves every beginning of the training images at once, and
`powerlaw` fits the learning curve that they make.

A matrix in memory is solved by `ridge`, by a Cholesky factor, or with one in float32 by `iterative`, which
also solves one that is larger than memory and is streamed (`stream`); `placement` chooses.

To add a solver, write a function with the parameters of `ridge.solve` that returns a `ridge.Solution`, and
put it into `SOLVERS`, or register it from another package under the entry point group
`cntk_bench.solvers`. (`iterative`'s have others, which `columns.kernel` knows.)
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from cntk_bench.system import plugins

SOLVERS = {  # name -> module of this room, function
    "cholesky": ("ridge", "solve"),
    "refined": ("iterative", "refined"),
    "cg": ("iterative", "cg"),
}
AUTO = "auto"  # the first of them that fits into memory
ITERATIVE = ("refined", "cg")  # those of a tolerance: the relative residual to which they go on
TOLERANCE, ITERATIONS = 1e-8, 1000
GROUP = "cntk_bench.solvers"
LARGEST_RIDGE = 1e15  # one beside which a kernel is nothing


def solvers() -> tuple[str, ...]:
    """The solvers known."""
    return (AUTO, *SOLVERS, *plugins.names(GROUP))


def require_known(name: str) -> None:
    """UserError if there is no solver of this name, and it is not "auto"."""
    plugins.require_known("solver", name, solvers())


def require(name: str) -> None:
    """UserError if a solver, or "auto", is unknown, or another package's is broken."""
    if name != AUTO:
        solver(name)


def solver(name: str) -> Callable[..., Any]:
    """The function of a solver; UserError if it is unknown."""
    if name in SOLVERS:
        module, function = SOLVERS[name]
        return getattr(import_module(f"{__name__}.{module}"), function)
    require_known(name)
    return plugins.load(GROUP, name)
