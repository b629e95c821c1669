"""Solving: kernel regression on matrices, whatever kernel they come from.

`eigen` decomposes a Gram matrix for gradient flow (`flow`) and Gaussian processes (`posterior`, whose
uncertainties `calibration` judges); `nested` solves every beginning of the training images at once.

To add a solver, write a function with the parameters of `ridge.solve` that returns a `ridge.Solution`, and
put it into `SOLVERS`, or register it from another package under the entry point group
`cntk_bench.solvers`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.system import plugins
from cntk_bench.text import short

SOLVERS = {"cholesky": ("ridge", "solve")}  # name -> module of this room, function
GROUP = "cntk_bench.solvers"
LARGEST_RIDGE = 1e15  # one beside which a kernel is nothing


def solvers() -> tuple[str, ...]:
    """The solvers known."""
    return (*SOLVERS, *plugins.names(GROUP))


def solver(name: str) -> Callable[..., Any]:
    """The function of a solver; UserError if it is unknown."""
    if name in SOLVERS:
        module, function = SOLVERS[name]
        return getattr(import_module(f"{__name__}.{module}"), function)
    if name not in plugins.names(GROUP):
        raise UserError(f"solve.solver is {short(name)}: use one of {', '.join(solvers())}")
    return plugins.load(GROUP, name)
