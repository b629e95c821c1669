"""Empirical kernels against whole Jacobians; their memory; gradient descent; the measure of laziness."""

import subprocess
import sys
from math import prod
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cntk_bench.errors import UserError  # noqa: E402
from cntk_bench.kernels import convolutional  # noqa: E402
from cntk_bench.kernels.spec import Readout  # noqa: E402
from cntk_bench.networks import descent, empirical, lazy  # noqa: E402
from cntk_bench.networks.architecture import Architecture  # noqa: E402

NETS = [
    Architecture("v", 3, 5, 2, 4, outputs=3, kappa=0.7),
    Architecture("gap", 4, 5, 2, 4, outputs=3, kappa=0.7),
    Architecture("fc", 3, 6, 2, 4, outputs=3, kappa=0.7, beta=0.3),
]
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}


def images(net, n, seed=0, dtype=torch.float64):
    source = torch.Generator().manual_seed(seed)
    shape = (n, net.channels, net.size, net.size)
    return torch.randn(shape, generator=source, dtype=torch.float64).to(dtype)


def jacobian(net, weights, x, names):
    """Every output's gradient at every image, (n, k, |w|), by torch.autograd alone."""
    weights = {name: w.clone().requires_grad_(name in names) for name, w in weights.items()}
    rows = [
        torch.cat(
            [g.flatten() for g in torch.autograd.grad(one, [weights[n] for n in names], retain_graph=True)]
        )
        for one in net.forward(weights, x).flatten()
    ]
    return torch.stack(rows).unflatten(0, (len(x), net.outputs))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("net", NETS, ids=lambda net: net.kind)
def test_the_kernels_are_products_of_whole_jacobians(net, dtype):
    weights, x, z = net.weights(1, dtype), images(net, 4, 0, dtype), images(net, 3, 1, dtype)
    J, other = jacobian(net, weights, x, net.trained), jacobian(net, weights, z, net.trained)
    near = {"rtol": 20 * ROUNDING[dtype], "atol": ROUNDING[dtype] * float((J**2).sum(-1).max())}
    for outputs in (None, (2,), (0, 1)):
        chosen = list(outputs or range(3))
        for left, right, z_ in ((J, J, None), (J, other, z)):
            expected = sum(left[:, o] @ right[:, o].T for o in chosen) / len(chosen)
            found = empirical.ntk(net, weights, x, z_, outputs=outputs)
            assert found.dtype == torch.float64 and found.shape == (4, len(right))
            np.testing.assert_allclose(found, expected.double(), **near)
    last = jacobian(net, weights, x, [name for name in net.shapes if name.endswith(str(net.depth))])
    for output in range(3):
        expected = (last[:, output] @ last[:, output].T).double()
        np.testing.assert_allclose(empirical.nngp(net, weights, x), expected, **near)


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.kind)
def test_blocks_change_nothing_but_rounding(net):
    weights, x, z = net.weights(2, torch.float64), images(net, 5), images(net, 4, 1)
    _, one = empirical.plan(net, net.trained, 1, 8, 2**40)
    bytes_of = lambda memory: empirical.plan(net, net.trained, 5, 8, memory)  # noqa: E731
    least = next(m for m in range(1000, 10**6, 100) if possible(bytes_of, m))
    plans = []
    for memory in (least, 2 * least, 3 * least, 2**30):
        plans.append(bytes_of(memory))
        np.testing.assert_allclose(
            empirical.ntk(net, weights, x, z, memory=memory),
            empirical.ntk(net, weights, x, z),
            rtol=1e-12,
            atol=1e-12,
        )
        square = empirical.ntk(net, weights, x, memory=memory)
        np.testing.assert_allclose(square, empirical.ntk(net, weights, x), rtol=1e-12, atol=1e-12)
        assert torch.equal(square, square.T)
    blocks = [block for _, block in plans]
    assert blocks[0] == 1 and blocks[-1] == 5 and blocks == sorted(blocks)
    assert plans[-1][0] == [net.trained]  # with enough memory, all tensors at once
    assert all([name for group in groups for name in group] == list(net.trained) for groups, _ in plans)
    with pytest.raises(UserError, match="allow at least .* GiB"):
        empirical.ntk(net, weights, x, memory=least // 2)


def possible(plan, memory):
    try:
        return bool(plan(memory))
    except UserError:
        return False


# Not getrusage: ru_maxrss begins with that of the parent process, which may be the larger one.
MEASURED = """
import re, sys, torch
from cntk_bench.networks import empirical
from cntk_bench.networks.architecture import Architecture
torch.set_num_threads(1)
kind, width, size, images, *memories = sys.argv[1], *map(int, sys.argv[2:])
small = Architecture(kind, 4, 8, 1, size, outputs=1)
empirical.ntk(small, small.weights(0), torch.ones(2, 1, size, size))  # libraries are loaded
net = Architecture(kind, 4, width, 1, size, outputs=1)
weights, x = net.weights(0), torch.randn(images, 1, size, size)
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
before = peak()
for memory in memories:
    empirical.ntk(net, weights, x, memory=memory)
    print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
@pytest.mark.parametrize("kind, width, size", [("v", 320, 2), ("gap", 64, 48), ("fc", 1200, 2)])
def test_memory_is_bounded(kind, width, size):
    allowed, slack = 2**26, 2**25  # slack is for other layouts of the weights and for the allocator
    command = [sys.executable, "-c", MEASURED, kind, *map(str, (width, size, 20, allowed, 2**40))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    bounded, unbounded = map(int, done.stdout.split())  # growth of the process's peak in bytes
    assert bounded < allowed + slack < unbounded


def test_the_mean_over_outputs_and_networks_is_the_exact_kernel():
    x = images(Architecture("v", 3, 1, 2, 4, outputs=1), 3)
    exact = convolutional.gram(x.numpy(), readouts=[Readout("ntk", "v", 3)])[0]
    net, seeds = Architecture("v", 3, 64, 2, 4, outputs=4), 16
    found = np.array([empirical.ntk(net, net.weights(seed, torch.float64), x) for seed in range(seeds)])
    error = found.std(0, ddof=1) / seeds**0.5
    assert (abs(found.mean(0) - exact) < 5 * error + 3 / 64 * abs(exact)).all() and (
        error < 0.2 * exact.max()
    ).all()


def test_descent_follows_the_gradient_flow_of_its_kernel():
    # Depth 2 with huge width is almost a linear model: f_t = y + exp(-Theta t) (f_0 - y).
    net = Architecture("fc", 2, 20_000, 1, 3, outputs=1)
    weights, x = net.weights(0, torch.float64), images(net, 4)
    y = torch.tensor([[1.0], [-1.0], [1.0], [0.0]], dtype=torch.float64)
    theta = empirical.ntk(net, weights, x)
    rate = 0.01 / float(torch.linalg.eigvalsh(theta)[-1])
    after = descent.descend(net, weights, x, y, rate, 200)
    start = net.forward(weights, x) - y
    found = net.forward(after, x) - y
    flow = torch.linalg.matrix_exp(-theta * rate * 200) @ start
    assert float((found - start).norm() / start.norm()) > 0.3
    np.testing.assert_allclose(found, flow, atol=0.02 * float(start.norm()))
    gap = Architecture("gap", 3, 8, 1, 4, outputs=1)
    w = gap.weights(0)
    moved = descent.descend(gap, w, images(gap, 2, dtype=torch.float32), torch.ones(2, 1), 0.01, 3)
    assert torch.equal(moved["w1"], w["w1"]) and torch.equal(moved["w3"], w["w3"])
    assert not torch.equal(moved["w2"], w["w2"])


def test_movement_by_hand():
    before = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}
    after = {"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([[4.0]]), "c": torch.ones(3)}
    assert descent.movement(before, after) == pytest.approx(0.2)


def test_laziness_of_a_product_of_two_parameters():
    a, b, x = 1.5, -0.4, torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    y, w = (
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
        {"a": torch.tensor(a).double(), "b": torch.tensor(b).double()},
    )
    found = lazy.laziness(lambda w: w["a"] * w["b"] * x, w, y)
    # Dh = (b x, a x); D2h(u, v) = (u_a v_b + u_b v_a) x
    norm = float(x.norm())
    assert found.distance == pytest.approx(float((a * b * x - y).norm()))
    assert found.first == pytest.approx(norm * (a * a + b * b) ** 0.5, rel=1e-6)
    assert found.second == pytest.approx(norm, rel=1e-6)
    assert found.kappa == pytest.approx(found.distance * norm / (norm**2 * (a * a + b * b)), rel=1e-6)


@pytest.mark.parametrize("indefinite", [False, True])
def test_laziness_of_a_quadratic_model(indefinite):
    # h_i(w) = A_i . w + c_i w.B w / 2 with B symmetric: |D2h| = |c| |B|, |Dh| = |A + c (B w)^T|
    rng = np.random.default_rng(0)
    A, c, w, y = rng.normal(size=(4, 6)), rng.normal(size=4), rng.normal(size=6), rng.normal(size=4)
    B = rng.normal(size=(6, 6))
    B = B + B.T
    if indefinite:  # eigenvalues come in pairs +- lambda, as in a ReLU network
        B[:3, :3] = B[3:, 3:] = 0
    t = {name: torch.tensor(value) for name, value in {"A": A, "B": B, "c": c}.items()}

    def h(p):
        v = torch.cat([p["one"], p["two"].flatten()])
        return t["A"] @ v + t["c"] * (v @ t["B"] @ v) / 2

    at = torch.tensor(w)
    found = lazy.laziness(
        h, {"one": at[:2], "two": at[2:].reshape(2, 2)}, torch.tensor(y), iterations=500, tolerance=1e-10
    )
    assert found.second == pytest.approx(np.linalg.norm(c) * np.linalg.norm(B, 2), rel=1e-5)
    assert found.first == pytest.approx(np.linalg.norm(A + np.outer(c, B @ w), 2), rel=1e-5)
    assert found.distance == pytest.approx(np.linalg.norm(A @ w + c * (w @ B @ w) / 2 - y))
    loose = lazy.laziness(h, {"one": at[:2], "two": at[2:].reshape(2, 2)}, torch.tensor(y))
    assert 0.9 * found.second < loose.second <= found.second * (1 + 1e-9)


def test_laziness_of_a_network_by_brute_force():
    net = Architecture("fc", 3, 4, 1, 2, outputs=1)
    weights, x, y = net.weights(3, torch.float64), images(net, 2), torch.ones(2, 1, dtype=torch.float64)
    shapes = [net.shapes[name] for name in net.trained]

    def h(flat):
        parts = flat.split([prod(shape) for shape in shapes])
        return net.forward({n: p.reshape(s) for n, p, s in zip(net.trained, parts, shapes, strict=True)}, x)[
            :, 0
        ]

    flat = torch.cat([weights[name].flatten() for name in net.trained])
    first, second = (torch.autograd.functional.hessian(lambda w, i=i: h(w)[i], flat) for i in range(2))
    angles = np.linspace(0, np.pi, 181)  # all directions g of two outputs
    brute = max(float(torch.linalg.matrix_norm(np.cos(a) * first + np.sin(a) * second, 2)) for a in angles)
    found = lazy.laziness(lambda w: net.forward(w, x), weights, y, starts=6, iterations=100, tolerance=1e-7)
    assert found.second == pytest.approx(brute, rel=1e-3)
    one = lazy.laziness(lambda w: net.forward(w, x), weights, y, starts=1, iterations=100)
    assert 0.5 * brute < one.second < brute * 1.001  # from one start, only a lower bound is certain
    assert found.first == pytest.approx(
        float(torch.linalg.eigvalsh(empirical.ntk(net, weights, x))[-1]) ** 0.5, rel=1e-4
    )


def test_what_is_piecewise_linear_is_not_curved():
    net = Architecture("gap", 3, 6, 1, 4, outputs=1)  # only its middle layer is trained
    weights, x = net.weights(0), images(net, 2, dtype=torch.float32)
    found = lazy.laziness(lambda w: net.forward({**weights, **w}, x), {"w2": weights["w2"]}, torch.ones(2, 1))
    assert found.second == 0 and found.kappa == 0 and found.first > 0
