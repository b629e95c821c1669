"""A toy neural-tangents, and the few parts of JAX that our calls need, in NumPy, after their documentation.

Kernels follow neural-tangents' conventions: inputs are averaged over channels, weights have the deviation
W_std / sqrt(fan in), biases have b_std, and a layer's kernel function maps a `Kernel`, or two arrays of
inputs, to a `Kernel`.
"""

import os
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType, SimpleNamespace

import numpy as np

VERSIONS = {"jax": "0.4.30", "neural_tangents": "0.6.5"}


@dataclass
class Kernel:
    """Shapes: nngp, ntk (n, m, P, P, P, P), variances (n, P, P) and (m, P, P); for vectors without P."""

    nngp: np.ndarray
    ntk: np.ndarray
    variances: tuple

    def replace(self, **changes):
        return replace(self, **changes)


def _shifted(a, axes):
    """Sum of a shifted by -1, 0 and 1 along all of some axes at once; outside there are zeros."""
    padded = np.pad(a, [(1, 1) if axis in axes else (0, 0) for axis in range(a.ndim)])
    return sum(
        padded[tuple(slice(s, s + a.shape[axis]) if axis in axes else slice(None) for axis in range(a.ndim))]
        for s in (0, 1, 2)
    )


def _inputs(x, z):
    x, z = (np.asarray(each, np.float64) for each in (x, z))
    if x.ndim == 2:
        nngp = x @ z.T / x.shape[1]
    else:
        nngp = np.einsum("nijc,mklc->nmijkl", x, z) / x.shape[3]
    return Kernel(nngp, 0 * nngp, tuple((each**2).mean(-1) for each in (x, z)))


def _layer(propagate):
    """A layer in neural-tangents' form: (init, apply, kernel)."""

    def kernel(x, z=None, **more):
        return propagate(x if z is None else _inputs(x, z), **more)

    return None, None, kernel


def conv(seen):
    def Conv(out, filter_shape, *, padding, W_std):
        assert (out, filter_shape, padding) == (1, (3, 3), "SAME")

        def propagate(kernel, diagonal_spatial=False):
            seen.append(diagonal_spatial)

            def sums(a):  # over pairs of pixels that are shifted together
                return _shifted_pairs(a) * W_std**2 / 9

            nngp = sums(kernel.nngp)
            variances = tuple(_shifted(_shifted(v, {1}), {2}) * W_std**2 / 9 for v in kernel.variances)
            return Kernel(nngp, sums(kernel.ntk) + nngp, variances)

        return _layer(propagate)

    return Conv


def _shifted_pairs(a):
    return _shifted(_shifted(a, {2, 4}), {3, 5})  # rows of both images, then columns of both


def Relu():
    def propagate(kernel):
        v, w = kernel.variances
        if v.ndim == 1:
            n = np.sqrt(np.multiply.outer(v, w))
        else:
            n = np.sqrt(np.einsum("nij,mkl->nmijkl", v, w))
        c = np.clip(kernel.nngp / n, -1, 1)
        slope = (np.pi - np.arccos(c)) / (2 * np.pi)
        nngp = n * np.sqrt(1 - c**2) / (2 * np.pi) + slope * kernel.nngp
        return Kernel(nngp, slope * kernel.ntk, (v / 2, w / 2))

    return _layer(propagate)


def Dense(out, W_std, b_std=0):
    def propagate(kernel):
        nngp = W_std**2 * kernel.nngp + b_std**2
        variances = tuple(W_std**2 * v + b_std**2 for v in kernel.variances)
        return Kernel(nngp, W_std**2 * kernel.ntk + nngp, variances)

    return _layer(propagate)


def _pooled(pool):
    return _layer(lambda kernel: Kernel(pool(kernel.nngp), pool(kernel.ntk), kernel.variances))


def Flatten():
    return _pooled(lambda a: np.einsum("nmijij->nm", a) / a.shape[2] ** 2)


def AvgPool(window, strides, padding):
    assert window[0] == window[1] and (strides, padding) == ((1, 1), "SAME")

    def pool(a):
        pixel = np.arange(a.shape[2])
        inside = (abs(pixel[:, None] - pixel) <= window[0] // 2) / window[0]
        return np.einsum("ai,bj,ck,dl,nmijkl->nmabcd", *[inside] * 4, a, optimize=True)

    return _pooled(pool)


def modules():
    """Name -> module; and what they were given: settings, XLA's threads, `diagonal_spatial`."""
    seen = SimpleNamespace(settings={}, threads=[], diagonal=[])
    jax, package, stax = map(ModuleType, ("jax", "neural_tangents", "neural_tangents.stax"))
    jax.config = SimpleNamespace(update=seen.settings.__setitem__)
    jax.devices = lambda: seen.threads.append(os.environ["NPROC"])
    jax.numpy, jax.device_put = np, lambda array: array

    def lower(function, *arguments):
        traced = function(*arguments).astype(np.float32)

        def run(*_):
            return traced

        run.memory_analysis = lambda: SimpleNamespace(temp_size_in_bytes=1000)
        return SimpleNamespace(compile=lambda: run)

    jax.jit = lambda function: SimpleNamespace(lower=partial(lower, function))
    for layer in (Relu, Dense, Flatten, AvgPool):
        setattr(stax, layer.__name__, layer)
    stax.Conv, package.stax, package.__path__ = conv(seen.diagonal), stax, []
    for module in (jax, package):
        module.__version__ = VERSIONS[module.__name__]
    return {module.__name__: module for module in (jax, package, stax)}, seen
