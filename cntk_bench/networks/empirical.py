"""The empirical kernels of a network at given weights, without its whole Jacobian in memory.

    Theta(x, z) = sum over trained weights w of df_o/dw(x) df_o/dw(z)     for one output o, or their mean
    Sigma(x, z) = the same sum over the last layer's weights and biases alone

Theta is the empirical NTK (Jacot et al. 2018, section 4). Sigma is the empirical NNGP kernel: the second
moments of the features that the last layer multiplies, whose limit is the NNGP kernel; it is the same for
every output. Both contain the square of the network's kappa.

The gradients of a block of images with respect to a group of tensors are taken by `torch.func`, as
vmap(grad(f_o)); the block's entries of a kernel are the sum of the tensors' products. Block and group are as
large as the memory allows. For n images in one block, that is n gradients and n^2 inner products of |w|
numbers; in blocks of b images it takes n / (2 b) times as many gradients (n / b for a rectangle). A layer's
share could also be summed over pairs of pixels without gradients (activations times backpropagated ones):
20 C P^4 operations per pair of images where gradients take 18 C^2 P^2 per image, so there is little to gain
for 16 images of 8 x 8, and 32 x 32 would cost more.
"""

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor
from torch.func import grad, vmap

from cntk_bench.errors import UserError
from cntk_bench.networks.architecture import Architecture, Weights

MEMORY = 2**30  # bytes
# Numbers that a layer's outputs take per image while a gradient is computed, as a multiple of those outputs.
ACTIVATIONS = 6
# Copies of a tensor that its gradient needs beside itself, into which a convolution's operands are reordered.
# Both numbers were found by measuring memory peaks, which the tests repeat.
COPIES = 4


def ntk(
    net: Architecture,
    weights: Weights,
    x: Tensor,
    z: Tensor | None = None,
    *,
    outputs: Sequence[int] | None = None,
    memory: int = MEMORY,
) -> Tensor:
    """The empirical NTK of the trained weights, of one output or the mean over several.

    Parameters
    ----------
    net : Architecture
    weights : mapping of str to Tensor
        All weights, in float32 or float64, which is then the precision of the computation.
    x : Tensor (n, C, P, P)
        Images.
    z : Tensor (m, C, P, P), optional
        The other images; x itself by default (half is then computed, and mirrored).
    outputs : sequence of int, optional
        The outputs whose kernels are averaged, all by default. At initialisation every one of them is an
        estimate of the same kernel.
    memory : int
        Bytes that gradients and activations may take, beside weights and images.

    Returns
    -------
    Tensor (n, m), float64

    Raises
    ------
    UserError
        If the memory does not suffice for one image and one tensor.

    References
    ----------
    Jacot, Gabriel, Hongler, "Neural Tangent Kernel", NeurIPS 2018.
    """
    chosen = range(net.outputs) if outputs is None else outputs
    return _kernel(net, weights, net.trained, x, z, chosen, memory)


def nngp(
    net: Architecture, weights: Weights, x: Tensor, z: Tensor | None = None, *, memory: int = MEMORY
) -> Tensor:
    """The empirical NNGP kernel, (n, m) float64: as `ntk`, but of the last layer alone."""
    last = tuple(name for name in net.shapes if name[1:] == str(net.depth))
    return _kernel(net, weights, last, x, z, (0,), memory)


def _kernel(
    net: Architecture,
    weights: Weights,
    names: Sequence[str],
    x: Tensor,
    z: Tensor | None,
    outputs: Sequence[int],
    memory: int,
) -> Tensor:
    dtype = weights[names[0]].dtype
    x = x.to(dtype)
    symmetric = z is None
    other = x if z is None else z.to(dtype)
    groups, block = plan(net, names, max(len(x), len(other)), dtype.itemsize, memory)
    total = torch.zeros(len(x), len(other), dtype=torch.float64)
    for group in groups:
        for output in outputs:
            for a in _blocks(len(x), block):
                rows = _gradients(net, weights, group, x[a], output)
                for b in _blocks(len(other), block):
                    if symmetric and b.start > a.start:
                        break
                    same = symmetric and a == b
                    cols = rows if same else _gradients(net, weights, group, other[b], output)
                    for name in group:
                        total[a, b] += rows[name].flatten(1) @ cols[name].flatten(1).T
                    del cols
                del rows
    total /= len(outputs)
    return total.tril() + total.tril(-1).T if symmetric else total


def _gradients(
    net: Architecture, weights: Weights, names: Sequence[str], x: Tensor, output: int
) -> dict[str, Tensor]:
    """Name -> the gradients (b, *shape) of one output at each image of a block."""

    def value(some: dict[str, Tensor], image: Tensor) -> Tensor:
        return net.forward({**weights, **some}, image[None])[0, output]

    return vmap(grad(value), in_dims=(None, 0))({name: weights[name] for name in names}, x)


def _blocks(n: int, block: int) -> Iterator[slice]:
    return (slice(start, min(start + block, n)) for start in range(0, n, block))


def plan(
    net: Architecture, names: Sequence[str], images: int, itemsize: int, memory: int
) -> tuple[list[tuple[str, ...]], int]:
    """Groups of tensors, and the number of images per block.

    Gradients of two blocks of images, rows and columns, are held at once, and copies of the tensor whose
    gradient is being computed.

    Raises
    ------
    UserError
        If the memory does not suffice for one image and one tensor.
    """
    sizes = {name: prod(net.shapes[name]) for name in names}
    pixels = 1 if net.kind == "fc" else net.size**2
    activations = ACTIVATIONS * (net.depth - 1) * net.width * pixels

    def need(group: Sequence[str]) -> int:  # bytes per image
        held = [sizes[name] for name in group]
        return itemsize * (2 * sum(held) + COPIES * max(held) + activations)

    least = max(need((name,)) for name in names)
    if least > memory:
        raise UserError(
            f"memory of {memory / 2**30:.3g} GiB is too little for a gradient at width {net.width}: allow"
            f" at least {least / 2**30:.3g} GiB, or use smaller widths"
        )
    block = min(images, memory // least)
    groups: list[tuple[str, ...]] = []
    for name in names:
        if groups and block * need((*groups[-1], name)) <= memory:
            groups[-1] = (*groups[-1], name)
        else:
            groups.append((name,))
    return groups, block
