"""Finite networks against the kernels that are their limits."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cntk_bench.errors import UserError  # noqa: E402
from cntk_bench.kernels import convolutional  # noqa: E402
from cntk_bench.kernels.spec import Readout  # noqa: E402
from cntk_bench.networks.architecture import Architecture  # noqa: E402

SEEDS, WIDTH = 24, 96


def images():
    x = np.random.default_rng(3).normal(size=(3, 2, 5, 5))
    x[1] = 0.8 * x[0] + 0.6 * x[1]
    return x


def empirical(net, x, seed):
    """(ntk, nngp) of one network, each (n, n) float64; the NTK from gradients of the first output."""
    weights = {name: w.requires_grad_() for name, w in net.weights(seed, torch.float64).items()}
    rows = []
    for one in net.forward(weights, torch.tensor(x))[:, 0]:
        grads = torch.autograd.grad(one, [weights[name] for name in net.trained], retain_graph=True)
        rows.append(torch.cat([grad.flatten() for grad in grads]))
    outputs = net.forward(weights, torch.tensor(x)).detach().numpy()
    rows = torch.stack(rows)
    return (rows @ rows.T).numpy(), outputs @ outputs.T / net.outputs


@pytest.mark.parametrize("kind, depth", [("v", 2), ("v", 4), ("gap", 3), ("gap", 4)])
def test_the_kernels_of_networks_are_the_exact_ones_on_average(kind, depth):
    x = images()
    net = Architecture(kind, depth, WIDTH, 2, 5, outputs=16, kappa=0.5)
    found = np.array([empirical(net, x, seed) for seed in range(SEEDS)]) / net.kappa**2
    readouts = [Readout("ntk", kind, depth), Readout("nngp", kind, depth)]
    for index, exact in enumerate(convolutional.gram(x, readouts=readouts)):
        mean, deviation = found[:, index].mean(0), found[:, index].std(0, ddof=1) / SEEDS**0.5
        # Five standard errors of the mean, plus the bias of finite width, which is of order depth / width.
        assert (abs(mean - exact) < 5 * deviation + depth / WIDTH * abs(exact)).all()
        assert (deviation < 0.15 * np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))).all()


def test_weights_are_the_same_for_a_seed():
    net = Architecture("gap", 3, 8, 3, 6, outputs=2)
    first, again, other = net.weights(1), net.weights(1, torch.float64), net.weights(2)
    assert list(first) == ["w1", "w2", "w3"] and net.trained == ("w2",)
    assert first["w3"].shape == (2, 8) and net.shapes["w1"] == (8, 3, 3, 3)
    for name in first:
        assert torch.equal(first[name].double(), again[name]) and not torch.equal(first[name], other[name])


def test_a_fully_connected_network_by_hand():
    net = Architecture("fc", 3, 4, 1, 2, outputs=2, kappa=3.0, beta=0.1)
    w = {name: value.numpy() for name, value in net.weights(0, torch.float64).items()}
    x = np.arange(8.0).reshape(2, 1, 2, 2)
    s = x.reshape(2, 4) / 2 @ w["w1"].T + 0.1 * w["b1"]
    s = np.maximum(s, 0) * 0.5**0.5 @ w["w2"].T + 0.1 * w["b2"]
    s = np.maximum(s, 0) * 0.5**0.5 @ w["w3"].T + 0.1 * w["b3"]
    found = net.forward(net.weights(0, torch.float64), torch.tensor(x))
    np.testing.assert_allclose(found.numpy(), 3 * s, rtol=1e-12)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("w", 3), "use 'v', 'gap', 'fc'"),
        (("gap", 2), "use at least 3"),
        (("v", 1), "use at least 2"),
    ],
)
def test_impossible_architectures(arguments, words):
    with pytest.raises(UserError, match=words):
        Architecture(*arguments, 8, 3, 4, outputs=2)
    with pytest.raises(UserError, match="only 'fc' has biases"):
        Architecture("v", 3, 8, 3, 4, outputs=2, beta=0.1)
