"""Kernel columns: a readout of a family's recursion, and kernel regression on it."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cntk_bench import regression
from cntk_bench.columns.column import Cell, Inputs
from cntk_bench.errors import UserError
from cntk_bench.kernels import pool
from cntk_bench.kernels.spec import Readout

# A column is named KERNEL-POOL, with the paper's training for each pool (`Readout`'s default); FC-KERNEL,
# without biases; or FC-KERNEL-B<b>, with biases, beta = <b>. -FLIP at the end of any of them averages its
# kernel over mirror images.
KERNELS = {"CNTK": "ntk", "CNN-GP": "nngp"}
DENSE = {"FC-NTK": "fc-ntk", "FC-NNGP": "fc-nngp"}
FLIP = "-FLIP"
NAMES = (
    *(
        f"{kernel}-{kind.upper()}{'<c>' if pool.KINDS[kind].numbered else ''}"
        for kernel in KERNELS
        for kind in pool.KINDS
    ),
    *(name for kernel in DENSE for name in (kernel, f"{kernel}-B<b>")),
)


@dataclass(frozen=True)
class KernelColumn:
    """A kernel, and how it is read out.

    Parameters
    ----------
    name : str
        CNTK-V, CNTK-GAP, CNN-GP-V, CNN-GP-GAP, CNTK-LAP<c> or CNN-GP-LAP<c>, where <c> is the
        half-width of the pooling window, such as CNTK-LAP4; FC-NTK or FC-NNGP, without biases, or
        FC-NTK-B<b> or FC-NNGP-B<b> with beta = <b>, such as FC-NTK-B0.1; any of them followed by -FLIP.
    kernel : str
        As for `Readout`.
    pool : str
        As for `Readout`.
    more : mapping
        Further arguments of `Readout`.
    """

    name: str
    kernel: str
    pool: str
    more: dict[str, Any] = field(default_factory=dict)
    keys = ("solve.",)

    def needs(self, depth: int | None) -> tuple[Readout, ...]:
        """Return the readout of a depth; UserError if the depth is impossible.

        Depth counts layers of weights: for a CNTK its 3x3 convolutions plus one.
        """
        assert depth is not None  # a kernel column has depths
        return (Readout(self.kernel, self.pool, depth, **self.more),)

    def fill(self, depth: int | None, inputs: Inputs) -> Cell:
        """Solve the regression, and predict."""
        from cntk_bench.regression import normalize, prediction

        (readout,) = self.needs(depth)
        solution, more = _solution(inputs, readout, f"{self.name} at depth {depth}")
        test = inputs.test(readout)
        if "scale" in more:
            test = normalize.scaled_blocks(test, more["scale"])
        chosen = solution.chosen
        others = getattr(solution, "alphas", ())  # another package's solver may not give them
        found = prediction.predict(solution.alpha, test, chosen.largest_residual, others=others)
        facts = (
            asdict(chosen)
            | {**solution.facts}
            | {
                "edge": solution.edge,
                "path": [asdict(fit) for fit in solution.path],
            }
        )
        facts |= {"normalize": inputs.how.normalize} if more else {}
        arrays = {"alpha": solution.alpha, "ridge": chosen.ridge + chosen.jitter} | more
        arrays |= {"path_predicted": found.others} if others else {}
        if "scale" not in more:  # else each image's are off by a factor of its own (`normalize`)
            arrays["outputs"] = found.outputs
        return Cell(found.classes, facts, found.undecided, arrays, black=found.black)


def _solution(inputs: Inputs, readout: Readout, cell: str) -> tuple[Any, dict[str, Any]]:
    """Solve with a readout's matrix; return the solution, and "scale" if kernels get a unit diagonal."""
    from cntk_bench.regression import normalize, stream

    method, scaled = inputs.place.method, inputs.how.normalize == "unit_diagonal"
    if method not in regression.ITERATIVE:
        gram = inputs.train(readout)
        more = {"scale": normalize.unit_diagonal(gram)} if scaled else {}
        return solved(inputs, gram, inputs.how.ridge, inputs.how.leave_one_out), more
    from cntk_bench.regression.attempts import How

    streamed = method == "cg"
    train: Any = inputs.stream(readout) if streamed else inputs.train(readout)
    own = stream.diagonal(train) if streamed else train.diagonal()
    more = {"scale": normalize.of_diagonal(own)} if scaled else {}
    held = {"device": inputs.device, "overwrite": True, "leave_one_out": inputs.how.leave_one_out}
    of = {"rank": inputs.place.rank} if streamed else held
    how = How(
        inputs.how.tolerance,
        inputs.how.iterations,
        inputs.kept(readout),
        lambda words: inputs.tell(f"{cell}: {words}"),
    )
    solve = regression.solver(method)
    return solve(
        train, inputs.y_train, classes=inputs.classes, ridge=inputs.how.ridge, how=how, **of, **more
    ), more


def solved(
    inputs: Inputs, gram: np.ndarray, ridge: Any, leave_one_out: bool = True, error: float | None = None
) -> Any:
    """Solve with a train Gram matrix (n, n), which may be overwritten; ours always by a Cholesky factor.

    `error` is the relative error of the matrix's entries, if they are not stored kernels.
    """
    name = inputs.how.solver
    ours = name in (regression.AUTO, *regression.ITERATIVE)
    more: dict[str, Any] = {} if leave_one_out else {"leave_one_out": False}  # another package's may not know
    if ours and error is not None:
        more["error"] = error
    return regression.solver("cholesky" if ours else name)(
        gram,
        inputs.y_train,
        classes=inputs.classes,
        ridge=ridge,
        device=inputs.device,
        dtype=inputs.dtype,
        overwrite=True,
        **more,
    )


def column(name: str) -> KernelColumn | None:
    """Return the kernel column of a name; None if there is none."""
    plain = name.removesuffix(FLIP)
    more = {"flip": True} if plain != name else {}
    return _dense(name, plain, more) or _convolutional(name, plain, more)


def _convolutional(name: str, plain: str, more: dict[str, Any]) -> KernelColumn | None:
    kernel, _, rest = plain.rpartition("-")
    found = re.fullmatch(r"([A-Z]{1,20})(0|[1-9]\d{0,3})?", rest)
    if kernel not in KERNELS or not found:
        return None
    kind, number = found[1].lower(), found[2]
    try:
        chosen = pool.Pool.parse(kind if number is None else f"{kind}:{number}")
    except UserError:
        return None
    return KernelColumn(name, KERNELS[kernel], str(chosen), more)


def _dense(name: str, plain: str, more: dict[str, Any]) -> KernelColumn | None:
    found = re.fullmatch(r"(FC-NTK|FC-NNGP)(?:-B(\d{1,9}(?:\.\d{1,9})?))?", plain)
    if not found:
        return None
    kernel, bias = DENSE[found[1]], found[2]
    if bias is not None:
        # Readout refuses impossible biases. Each number has one name; 0 has none, for it is FC-NTK's.
        beta = Readout(kernel, "", 1, bias=float(bias)).bias
        if f"{beta:g}" != bias or beta == 0:
            short = f"{found[1]}-B{beta:g}" if beta else found[1]
            raise UserError(f"column {name[:40]!r} is unknown: did you mean {short}{FLIP * bool(more)}?")
        more = more | {"bias": beta}
    return KernelColumn(name, kernel, "", more)
