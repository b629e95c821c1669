"""What a finite network computes, in the parametrisation of its kernel.

All weights are drawn from N(0, 1) and are never scaled themselves; each layer's factor stands in the forward
pass (Arora et al. 2019, section 4 and appendix H; `width` is the paper's C or d_h, c_sigma = 2, q = 3):

    convolutional   s_1 = W_1 * x            s_{h+1} = W_{h+1} * sqrt(c_sigma / (C q^2)) relu(s_h)
                    3x3 filters, stride 1, zero padding, no bias; depth d has d - 1 convolutions, then
        "v"         f = sum over channels and pixels of w . sqrt(c_sigma / (C q^2)) relu(s_{d-1})
        "gap"       f = w . mean over pixels of sqrt(c_sigma / (C q^2)) relu(s_{d-1})
    "fc"            s_1 = W_1 x / sqrt(n0) + beta b_1
                    s_{l+1} = W_{l+1} sqrt(c_sigma / width) relu(s_l) + beta b_{l+1};  f = s_d

so depth counts layers with weights in both. The output is multiplied by kappa. With "gap" the first and the
last layer keep their initial weights, in network and kernel alike; otherwise all are trained.

The sum over the trained weights of df/dw(x) df/dw(z) then converges, for each single output, to kappa^2 times
the exact kernel of the same pool and depth, on the scale of `cntk_bench.kernels`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from cntk_bench.errors import UserError
from cntk_bench.networks import LEAST_DEPTH

C_SIGMA, FILTER = 2.0, 3
KINDS = tuple(LEAST_DEPTH)
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """One finite network.

    Parameters
    ----------
    kind : {"v", "gap", "fc"}
    depth : int
        Layers with weights, at least 2; at least 3 for "gap", of which the first and last are not trained.
    width : int
        Channels of every hidden layer ("fc": units).
    channels, size : int
        Of the images (n, channels, size, size).
    outputs : int
        Number of outputs k.
    kappa : float
        Factor of the output.
    beta : float
        Factor of the biases; "fc" only.

    Raises
    ------
    UserError
        If a value is not possible.
    """

    kind: str
    depth: int
    width: int
    channels: int
    size: int
    outputs: int
    kappa: float = 1.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"network {self.kind!r} is unknown: use {', '.join(map(repr, KINDS))}")
        if self.depth < (least := LEAST_DEPTH[self.kind]):
            raise UserError(f"depth {self.depth} is not possible for {self.kind}: use at least {least}")
        if self.beta and self.kind != "fc":
            raise UserError(f"beta {self.beta:g} is not possible for {self.kind}: only 'fc' has biases")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor of weights, in the order of the layers."""
        if self.kind == "fc":
            sides = [self.channels * self.size**2, *[self.width] * (self.depth - 1), self.outputs]
            shapes: dict[str, tuple[int, ...]] = {}
            for layer in range(self.depth):
                shapes[f"w{layer + 1}"] = (sides[layer + 1], sides[layer])
                if self.beta:
                    shapes[f"b{layer + 1}"] = (sides[layer + 1],)
            return shapes
        inputs = [self.channels, *[self.width] * (self.depth - 2)]
        shapes = {f"w{h + 1}": (self.width, c, FILTER, FILTER) for h, c in enumerate(inputs)}
        pixels = self.size**2 if self.kind == "v" else 1
        return shapes | {f"w{self.depth}": (self.outputs, self.width * pixels)}

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the tensors that are trained."""
        names = tuple(self.shapes)
        return names[1:-1] if self.kind == "gap" else names

    def weights(self, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Initial weights, from N(0, 1); the same on every device for a seed."""
        source = torch.Generator().manual_seed(seed)
        return {
            name: torch.randn(shape, generator=source, dtype=torch.float32).to(dtype)
            for name, shape in self.shapes.items()
        }

    def forward(self, weights: Weights, x: Tensor) -> Tensor:
        """Outputs (n, k) of images (n, channels, size, size)."""
        if self.kind == "fc":
            return self.kappa * self._dense(weights, x.flatten(1))
        factor = (C_SIGMA / (self.width * FILTER**2)) ** 0.5
        for h in range(1, self.depth):
            x = factor * conv2d(x, weights[f"w{h}"], padding=FILTER // 2).relu()
        x = x.mean((2, 3)) if self.kind == "gap" else x.flatten(1)
        return self.kappa * x @ weights[f"w{self.depth}"].T

    def _dense(self, weights: Weights, x: Tensor) -> Tensor:
        x = x / x.shape[1] ** 0.5
        for layer in range(1, self.depth + 1):
            x = x @ weights[f"w{layer}"].T
            if self.beta:
                x = x + self.beta * weights[f"b{layer}"]
            if layer < self.depth:
                x = (C_SIGMA / self.width) ** 0.5 * x.relu()
        return x
