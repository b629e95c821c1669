"""Kernel regression on Gram matrices, whatever kernel they come from.

`eigen` decomposes a Gram matrix for gradient flow (`flow`) and Gaussian processes (`posterior`, whose
uncertainties `calibration` judges); `nested` solves the regressions on the first m training images for
several m at once, and `powerlaw` fits the learning curve that they make.

A matrix in memory is solved by `ridge` with a Cholesky factor, or by `iterative` with one in float32;
`iterative` also solves a matrix larger than memory, which is streamed (`stream`). `placement` chooses.

To add a solver, write a function that follows the protocol `Solver`, such as `ridge.solve`, and put it into
`SOLVERS`, or register it from another package under the entry point group `cntk_bench.solvers`. (The
functions of `iterative` have other parameters, which `columns.kernel` knows.)
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from cntk_bench.system import plugins

if TYPE_CHECKING:
    import numpy as np

    from cntk_bench.regression.ridge import Solution

SOLVERS = {  # name -> module of this package, function
    "cholesky": ("ridge", "solve"),
    "refined": ("iterative", "refined"),
    "cg": ("iterative", "cg"),
}
AUTO = "auto"  # the first of them that fits into memory
ITERATIVE = ("refined", "cg")  # those that iterate until the relative residual is below a tolerance
TOLERANCE, ITERATIONS = 1e-8, 1000
GROUP = "cntk_bench.solvers"
LARGEST_RIDGE = 1e15  # beside it any kernel is negligible


class Solver(Protocol):
    """A function that solves a kernel regression; other packages register theirs under `cntk_bench.solvers`.

    The entry point's name is the value of `solve.solver`. It sees the training images only; the caller
    predicts and scores.
    """

    def __call__(
        self,
        gram: "np.ndarray",
        labels: "np.ndarray",
        *,
        classes: int,
        ridge: float | str | Sequence[float],
        device: str,
        dtype: str,
        overwrite: bool,
    ) -> "Solution":
        """Solve (K + r I) alpha = Y, for one ridge or the best of several.

        A solver may have one more parameter, leave_one_out: it is passed, as False, only with
        `solve.leave_one_out: false`.

        Parameters
        ----------
        gram : array (n, n), float32 or float64
            The training images' Gram matrix K; only its lower triangle is set.
        labels : array (n,), int64
            Classes 0 .. classes - 1. The targets Y are one-hot minus 0.1.
        classes : int
        ridge : float, sequence of float, or "loo"
            `solve.ridge`, relative to the mean diagonal of K.
        device : {"cpu", "cuda"}
            Where to solve.
        dtype : {"float64", "float32"}
            The precision of the solve.
        overwrite : bool
            Whether `gram` may be overwritten.

        Returns
        -------
        Solution
            Of `cntk_bench.regression.ridge`, with alpha of the ridge chosen.

        Raises
        ------
        UserError
            If it cannot be solved.
        """


def solvers() -> tuple[str, ...]:
    """Names of all known solvers, "auto" included."""
    return (AUTO, *SOLVERS, *plugins.names(GROUP))


def require_known(name: str) -> None:
    """Raise UserError unless `name` is "auto" or the name of a known solver."""
    plugins.require_known("solver", name, solvers())


def require(name: str) -> None:
    """Raise UserError if a solver other than "auto" is unknown, or another package's is broken."""
    if name != AUTO:
        solver(name)


def solver(name: str) -> Callable[..., Any]:
    """The function of a solver; UserError if it is unknown."""
    if name in SOLVERS:
        module, function = SOLVERS[name]
        return getattr(import_module(f"{__name__}.{module}"), function)
    require_known(name)
    return plugins.load(GROUP, name)
