"""neural-tangents, as a library to compare our backend with (`comparison`).

neural-tangents (Novak et al. 2020) propagates kernels layer by layer. We time the cheapest correct program
that we know, which does what our pass does: one recursion to the largest depth, from which every requested
depth branches off, compiled as a whole by `jax.jit`. For V columns it propagates only the covariances of
equal pixels (`diagonal_spatial`), for GAP and LAP those of all pairs of pixels, as we do. If the first and
the last layer are not trained, as in the paper's GAP, the first layer's tangents are dropped, and the tangent
kernel is read before a last layer would add to it.

Each call also computes the covariances of each image with itself, between all pixels for GAP and LAP: up to
half of the work in a tile of one pair, little in large tiles. On CPUs, XLA runs most of it on one thread.
"""

import os
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from logging import CRITICAL
from math import sqrt
from typing import Any

import numpy as np

from cntk_bench.costs.comparison import Library, Program
from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import CONVOLUTIONAL, FULLY_CONNECTED, Readout, Spec
from cntk_bench.system import cores, libraries
from cntk_bench.text import one_line

NAME = "neural-tangents"
POOLS = ("v", "gap", "lap")  # kinds of pooling that it has
REMEDY = (
    "with Python 3.11, pip install jax==0.4.30 frozendict, then pip install --no-deps neural-tangents==0.6.5 "
    "(archived, and tried with this jax)"
)


def library() -> Library:
    """neural-tangents on the CPU, in float32, on as many threads as we use.

    Sets JAX's platform and precision for the rest of the process.

    Raises
    ------
    UserError
        If it is not installed, or does not load.
    """
    try:
        with _quietly(), _experimental_left_out():
            jax = import_module("jax")
            jax.config.update("jax_platforms", "cpu")
            jax.config.update("jax_enable_x64", False)
            with _threads_of_xla(cores.threads()):
                jax.devices()
            package = import_module("neural_tangents")
            stax = import_module("neural_tangents.stax")
    except ModuleNotFoundError as error:
        raise UserError(f"--baseline needs {NAME} ({one_line(error, 60)}): {REMEDY}") from None
    except Exception as error:  # unsupported versions of JAX may raise anything
        raise UserError(f"{NAME} does not load ({one_line(error, 60)}): {REMEDY}") from None

    def compiled(spec: Spec, x: np.ndarray, z: np.ndarray) -> Program:
        kernels = jax.jit(lambda x, z: jax.numpy.stack(_kernels(stax, spec, x, z)))
        images = [jax.device_put(np.ascontiguousarray(each.transpose(0, 2, 3, 1))) for each in (x, z)]
        try:
            with _quietly():
                program = kernels.lower(*images).compile()
                needed = program.memory_analysis().temp_size_in_bytes
        except Exception as error:
            raise UserError(f"{NAME} fails ({one_line(error, 60)}): {REMEDY}") from None
        return Program(lambda: np.asarray(program(*images)), needed)

    return Library(f"{NAME} {package.__version__} (jax {jax.__version__})", compiled, lacking)


def lacking(spec: Spec) -> str | None:
    """Return what of a spec it cannot express, or None."""
    kinds = {readout.pooling.kind for readout in spec.readouts if readout.family == CONVOLUTIONAL}
    others = sorted(kinds - {*POOLS})
    return f"not expressible: it has no pooling {others[0]!r}" if others else None


def _kernels(stax: Any, spec: Spec, x: Any, z: Any) -> list[Any]:
    """Compute the kernels (n, m) of a spec's readouts for images as JAX arrays, channels last."""
    found: dict[Readout, Any] = {}
    for flip in (False, True):
        for family, pass_ in ((CONVOLUTIONAL, _convolutional), (FULLY_CONNECTED, _fully_connected)):
            part = spec.part(family, flip)
            if part is not None:
                values = pass_(stax, part.readouts, x, z[:, :, ::-1] if flip else z)
                found |= {(flip, readout): value for readout, value in values.items()}  # type: ignore[misc]
    return [
        (found[False, r.plain] + found[True, r.plain]) / 2 if r.flip else found[False, r]  # type: ignore[index]
        for r in spec.readouts
    ]


def _convolutional(stax: Any, readouts: tuple[Readout, ...], x: Any, z: Any) -> dict[Readout, Any]:
    """Compute kernels of convolutional readouts without flips, on Arora's scale."""
    convolution = stax.Conv(1, (3, 3), padding="SAME", W_std=sqrt(2))[2]
    found = {}
    for train in {readout.train for readout in readouts}:
        read = [readout for readout in readouts if readout.train == train]
        kernel = convolution(x, z, diagonal_spatial=all(readout.pool == "v" for readout in read))
        if train == "hidden":
            kernel = kernel.replace(ntk=0 * kernel.nngp)
        for depth in range(2, max(readout.depth for readout in read) + 1):
            kernel = stax.Relu()[2](kernel if depth == 2 else convolution(kernel))
            for readout in read:
                if readout.depth == depth:
                    found[readout] = _pooled(stax, readout, kernel, *x.shape[2:])
    return found


def _pooled(stax: Any, readout: Readout, kernel: Any, size: int, channels: int) -> Any:
    pool = readout.pooling
    if pool.kind == "gap":
        if readout.kernel == "nngp":
            average = kernel.nngp
        else:  # a last layer that is trained adds the NNGP kernel
            average = kernel.ntk + kernel.nngp if readout.train == "all" else kernel.ntk
        # One axis after the other: XLA turns GlobalAvgPool into one float32 sum over a million pairs of
        # pixels, with a rounding error of 3e-4 of the result (32 x 32 pixels, depth 21).
        for _ in range(4):
            average = average.mean(-1)
        return channels * average  # the library averages over channels
    if pool.kind == "lap":
        kernel = stax.AvgPool((2 * pool.number + 1,) * 2, (1, 1), "SAME")[2](kernel)
    kernel = stax.Flatten()[2](kernel)
    if readout.train == "all":
        kernel = stax.Dense(1, W_std=1)[2](kernel)
    value = kernel.nngp if readout.kernel == "nngp" else kernel.ntk
    return channels * size**2 * value  # and over flattened pixels


def _fully_connected(stax: Any, readouts: tuple[Readout, ...], x: Any, z: Any) -> dict[Readout, Any]:
    """Compute kernels of fully connected readouts without flips, for flattened images."""
    found = {}
    for bias, fixed in {(readout.bias, readout.fixed) for readout in readouts}:
        read = [readout for readout in readouts if (readout.bias, readout.fixed) == (bias, fixed)]
        kernel = None
        for depth in range(1, max(readout.depth for readout in read) + 1):
            weights = stax.Dense(1, W_std=1 if depth == 1 else sqrt(2), b_std=bias)[2]
            if kernel is None:
                kernel = weights(x.reshape(len(x), -1), z.reshape(len(z), -1))
            else:
                kernel = weights(stax.Relu()[2](kernel))
            if depth <= fixed:
                kernel = kernel.replace(ntk=0 * kernel.nngp)
            for readout in read:
                if readout.depth == depth:
                    found[readout] = kernel.ntk if readout.kernel == "fc-ntk" else kernel.nngp
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppress warnings of libraries."""
    with warnings.catch_warnings(), libraries.hushed(("jax", "absl"), CRITICAL):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _experimental_left_out() -> Iterator[None]:
    """Let neural-tangents load without its part that needs TensorFlow, which we do not use."""
    part = types.ModuleType(f"{NAME.replace('-', '_')}.experimental")
    sys.modules[part.__name__] = part
    try:
        yield
    finally:
        del sys.modules[part.__name__]


@contextmanager
def _threads_of_xla(count: int) -> Iterator[None]:
    """Have XLA start `count` threads, instead of one for each core that it may use."""
    before = os.environ.get("NPROC")
    os.environ["NPROC"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["NPROC"]
        else:
            os.environ["NPROC"] = before
