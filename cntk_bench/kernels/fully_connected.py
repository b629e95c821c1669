"""The definition: the recursion of fully connected NTK and NNGP in float64, one pair of vectors at a time.

A network of depth L has L layers of weights, each with biases, and L - 1 ReLU layers between them:

    h^1 = W^1 x / sqrt(n_0) + beta b^1,  h^{l+1} = sqrt(2 / n_l) W^{l+1} relu(h^l) + beta b^{l+1},  f = h^L

All W and b are N(0, 1), the output has one unit, and all of W^{k+1}, b^{k+1} .. W^L, b^L are trained: the
first k layers are fixed. So c_sigma = 2, as in the convolutional kernels, and depth counts what it counts
there: the layers of weights (d - 1 convolutions and a linear layer at depth d). As the widths n_1 .. n_{L-1}
grow, in this order (Jacot et al. 2018, theorem 1; Arora et al. 2019, section 3):

    Sigma^1 = x.z / n_0 + beta^2               the outputs' covariance, of one unit of layer 1
    c       = Sigma^l(x, z) / n,  n = sqrt(Sigma^l(x, x) Sigma^l(z, z))
    k0      = (pi - arccos c) / pi             2 E[relu' relu']
    k1      = (c (pi - arccos c) + sqrt(1 - c^2)) / pi
    Sigma^{l+1} = n k1 + beta^2                2 E[relu relu] + beta^2
    Theta^1     = Sigma^1 if k = 0, else 0
    Theta^{l+1} = k0 Theta^l + (Sigma^{l+1} if l + 1 > k, else 0)

The gradient with respect to layer l's own weights and biases contributes Sigma^l times the product of k0 over
the layers above it. So fixing the first k layers leaves out the first k terms of that sum, which is what
starting Theta later does; with k = L - 1 it is the NNGP kernel Sigma^L.

neural-tangents: serial(Dense(1, W_std=1, b_std=beta), Relu(), Dense(1, W_std=2**.5, b_std=beta), Relu(), ...,
Dense(1, W_std=2**.5, b_std=beta)), with L Dense layers; its `ntk` is Theta^L, its `nngp` Sigma^L.

Precision. Products of float32 numbers are exact in float64, and `math.fsum` rounds their sum once. So a
vector with itself has c = 1 exactly, and other nearly parallel ones err by some units u = 2^-53 in c: delta =
(3 + 4 l) u at layer l at most (the sum, n, the quotient; then k1, the sum with beta^2 and n again at each
layer). An angle t = arccos c then errs by less than min(sqrt(2 delta), delta / t), k0 by 1 / pi of that, and
Theta^L, relative to itself, by less than (L - 1) / 2 times that, for Theta^l grows like l Sigma: by 4e-7 at
L = 21, and by less than 1e-8 where angles are above 1e-6.
"""

from math import fsum

import numpy as np

from cntk_bench.kernels.spec import Readout


def pair(x, z, readouts: list[Readout]) -> np.ndarray:
    """The kernels of one pair: x, z arrays of any one shape -> float64 array (len(readouts),)."""
    x, z = (np.asarray(a, np.float64).ravel() for a in (x, z))
    S, vx, vz = (fsum(a * b) / len(x) for a, b in ((x, z), (x, x), (z, z)))
    return np.array([kernel(S, vx, vz, readout) for readout in readouts])


def kernel(S: float, vx: float, vz: float, readout: Readout) -> float:
    """One kernel, from x.z / n_0, x.x / n_0 and z.z / n_0."""
    square = readout.bias**2
    S, vx, vz = S + square, vx + square, vz + square
    T = 0.0 if readout.fixed else S
    for depth in range(2, readout.depth + 1):
        n = np.sqrt(vx * vz)
        c = np.clip(S / n, -1, 1) if n > 0 else 0.0
        angle = np.arccos(c)
        k0 = (np.pi - angle) / np.pi
        k1 = (c * (np.pi - angle) + np.sqrt((1 - c) * (1 + c))) / np.pi
        S, vx, vz = n * k1 + square, vx + square, vz + square  # k1(1) = 1
        T = k0 * T + (S if depth > readout.fixed else 0.0)
    return float(S if readout.kernel == "fc-nngp" else T)
