"""Training networks: against PyTorch's own optimiser and linearised dynamics; interruptions, resuming."""

import json
import logging

import numpy as np
import pytest
from scipy.linalg import expm

torch = pytest.importorskip("torch")

from cntk_bench.networks import archive, training  # noqa: E402
from cntk_bench.networks.architecture import Architecture  # noqa: E402
from cntk_bench.networks.device import arithmetic, choose  # noqa: E402
from cntk_bench.networks.folder import Folder  # noqa: E402
from cntk_bench.networks.recipe import Recipe, in_curve  # noqa: E402
from cntk_bench.networks.training import Images, State, begin, steps  # noqa: E402

CPU = torch.device("cpu")
SMALL = Architecture("v", 3, 6, 2, 4, outputs=3, kappa=0.5)
RECIPE = Recipe(rate=0.05, batch=4, momentum=0.9, epochs_after=2, curve=True)


def images(n, net, m=5, dtype=torch.float32, seed=0):
    """Noise images with labels in turn, and m other images."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randn((n + m, net.channels, net.size, net.size), generator=source, dtype=dtype)
    labels = torch.arange(n) % net.outputs
    targets = torch.eye(net.outputs, dtype=dtype)[labels] - 0.1
    return Images(x[:n], targets, labels, x[n:])


def trained(net, recipe, found, epochs, state=None):
    state = begin(net, recipe, CPU) if state is None else state
    for _ in steps(net, recipe, found, state, epochs):
        pass
    return state


def same(one, other):
    """Assert that two states are the same to the last bit."""
    for kind in ("weights", "velocity", "predicted", "outputs"):
        first, second = getattr(one, kind), getattr(other, kind)
        assert first.keys() == second.keys(), kind
        for key in first:
            assert torch.equal(torch.as_tensor(first[key]), torch.as_tensor(second[key])), (kind, key)
    for name in ("epoch", "step", "history", "reached", "failure"):
        assert getattr(one, name) == getattr(other, name), name


# What a step does


@pytest.mark.parametrize("kind", ["v", "gap", "fc"])
@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_steps_are_those_of_pytorchs_optimiser(kind, loss):
    net = Architecture(kind, 3, 6, 2, 4, outputs=3, kappa=0.5, beta=0.1 if kind == "fc" else 0)
    recipe = Recipe(rate=0.02, batch=4, momentum=0.7, loss=loss)
    found = images(10, net)
    state = trained(net, recipe, found, 3)
    weights = net.weights(recipe.weights_seed)
    ours = [weights[name].requires_grad_() for name in net.trained]
    optimiser = torch.optim.SGD(ours, lr=0.02, momentum=0.7)
    for epoch in range(3):
        order = recipe.order(10, epoch)
        assert sorted(order) == list(range(10))
        for batch in (order[:4], order[4:8], order[8:]):
            optimiser.zero_grad()
            outputs = net.forward(weights, found.x[batch])
            if loss == "mean":
                value = torch.nn.functional.mse_loss(outputs, found.targets[batch])
            else:
                value = torch.nn.functional.mse_loss(outputs, found.targets[batch], reduction="sum") / 2
            value.backward()
            optimiser.step()
    for name in net.shapes:
        torch.testing.assert_close(state.weights[name], weights[name], rtol=1e-4, atol=1e-6)
    moved = [
        name
        for name, w in net.weights(recipe.weights_seed).items()
        if not torch.equal(w, state.weights[name])
    ]
    # GAP's first and last weights are fixed
    assert moved == list(net.trained) and (kind != "gap" or moved == ["w2"])


def test_trials_differ_and_rates_of_one_trial_do_not():
    one, other = Recipe(rate=1.0), Recipe(rate=1.0, trial=1)
    assert one.weights_seed != other.weights_seed and list(one.order(200, 0)) != list(other.order(200, 0))
    assert list(one.order(200, 0)) != list(one.order(200, 1))
    fast = Recipe(rate=10.0)
    assert one.weights_seed == fast.weights_seed and list(one.order(200, 3)) == list(fast.order(200, 3))
    assert Recipe(rate=1.0, seed=1).weights_seed != one.weights_seed
    assert [epoch for epoch in range(30) if in_curve(epoch)] == [
        *(0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 16, 19, 23, 27)
    ]


# Time on the kernel's scale, and dynamics at large width


def kernel(net, weights, x):
    """Empirical NTK (n k, n k), scaled like the exact kernel, and outputs (n k,)."""
    weights = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
    outputs = net.forward(weights, x).flatten()
    rows = []
    for one in outputs:
        grads = torch.autograd.grad(one, [weights[name] for name in net.trained], retain_graph=True)
        rows.append(torch.cat([grad.flatten() for grad in grads]))
    rows = torch.stack(rows)
    return (rows @ rows.T).numpy() / net.kappa**2, outputs.detach().numpy()


@pytest.mark.parametrize(
    "kind, depth, width, changes",
    [
        ("fc", 2, 8192, {"loss": "mean", "batch": None}),
        ("fc", 2, 8192, {"loss": "sum", "batch": None}),
        ("fc", 2, 8192, {"loss": "mean", "batch": 2}),
        ("fc", 2, 8192, {"loss": "sum", "batch": 2}),
        ("fc", 2, 8192, {"loss": "mean", "batch": None, "momentum": 0.5}),
        ("v", 2, 4096, {"loss": "mean", "batch": None}),
        ("gap", 3, 256, {"loss": "sum", "batch": None}),
    ],
)
def test_wide_networks_follow_the_flow_of_their_kernel_in_its_time(kind, depth, width, changes):
    """f_t = y + exp(-K t) (f_0 - y), with K the network's own initial kernel and t the recipe's time."""
    net = Architecture(kind, depth, width, 1, 3, outputs=2, kappa=0.8)
    found = images(4, net, m=1, dtype=torch.float64)
    y = found.targets.numpy().ravel()
    probe = Recipe(rate=1.0, **changes)
    start, f0 = kernel(net, net.weights(probe.weights_seed, torch.float64), found.x)
    largest = np.linalg.eigvalsh(start)[-1]
    epochs, end = 80, 1.5 / largest  # most of the fastest direction is learnt by then
    recipe = Recipe(rate=end / epochs / probe.time(4, 2, net.kappa), **changes)
    assert recipe.time(4, 2, net.kappa) * epochs == pytest.approx(end)
    state = State(net.weights(recipe.weights_seed, torch.float64))
    if recipe.momentum:
        state.velocity = {name: torch.zeros_like(state.weights[name]) for name in net.trained}
    drifts = []
    for _ in steps(net, recipe, found, state, epochs):
        if state.step == 0 and state.epoch % 20 == 0:
            drifts.append(np.linalg.norm(kernel(net, state.weights, found.x)[0] - start, 2))
    assert state.epoch == epochs and len(drifts) == 4
    moved = net.forward(state.weights, found.x).detach().numpy().ravel()
    expected = y + expm(-start * end) @ (f0 - y)
    # For the difference d and the residual r, which only shrinks, d' = -K d - (K_t - K) r, so
    # |d| <= t max |K_t - K| |r_0|. Steps of length h instead of a flow change exp(-l t) by at most
    # h l / (2 e); momentum 0.5 lags by one step, the order of two batches by less than an epoch: by h l.
    residual = np.linalg.norm(f0 - y)
    tolerance = residual * (
        end * max(drifts) + 1.5 / epochs * (0.2 if len(changes) == 2 and not changes["batch"] else 2)
    )
    assert tolerance < 0.25 * np.linalg.norm(expected - f0)  # otherwise the test shows nothing
    assert np.linalg.norm(moved - expected) < tolerance
    losses = [loss for loss, _ in state.history]
    assert len(losses) == epochs + 1 and all(b < a for a, b in zip(losses, losses[1:], strict=False))
    assert losses[0] == pytest.approx(np.square(f0 - y).mean(), rel=1e-5)


# When training ends


def test_it_ends_some_epochs_after_full_training_accuracy():
    net = Architecture("fc", 2, 64, 1, 3, outputs=2, kappa=1.0)
    recipe = Recipe(rate=0.3, batch=None, epochs_after=3)
    found = images(4, net)
    state = trained(net, recipe, found, 1000)
    accuracies = [accuracy for _, accuracy in state.history]
    assert state.reached == next(epoch for epoch, a in enumerate(accuracies) if a == 1) > 0
    assert state.epoch == state.reached + 3 and sorted(state.predicted) == [
        state.reached + 1,
        state.reached + 2,
        state.reached + 3,
    ]
    expected = net.forward(state.weights, found.others).argmax(1)
    assert state.predicted[state.epoch].tolist() == expected.tolist()
    limit = state.reached - 1  # with a limit that is too low, the last epochs count
    short = trained(net, recipe, found, limit)
    assert (short.reached, short.epoch) == (None, limit)
    assert sorted(short.predicted) == [e for e in range(limit - 2, limit + 1) if e > 0]
    # Reached in the limit's last epoch: three more are trained all the same.
    late = trained(net, recipe, found, state.reached)
    same(late, state)


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_a_network_that_is_not_trained_yet_predicts_nothing(tmp_path, epochs):
    """If fewer epochs are allowed than are counted, all of them count, from the first on."""
    recipe, found = Recipe(rate=0.05, batch=4, epochs_after=10, curve=True), images(10, SMALL)
    state = trained(SMALL, recipe, found, epochs)
    assert (state.epoch, state.reached) == (epochs, None) and len(state.history) == epochs + 1
    assert sorted(state.predicted) == list(range(1, epochs + 1))
    assert sorted(state.outputs) == list(range(epochs + 1))  # the curve begins before the first step
    folder = Folder(tmp_path, "identity")
    folder.finish(state, {})
    assert len(folder.result().predicted) == epochs


def test_what_an_earlier_version_kept_of_a_network_before_training_is_left_out(tmp_path):
    recipe, found, folder = Recipe(rate=0.05, batch=4), images(10, SMALL), Folder(tmp_path, "identity")
    state = trained(SMALL, recipe, found, 3)
    state.predicted[0] = np.zeros(5, np.int16)
    folder.finish(state, {})
    np.testing.assert_array_equal(folder.result().predicted, [state.predicted[e] for e in (1, 2, 3)])
    again, _ = folder.resumed(CPU)
    assert 0 not in trained(SMALL, recipe, found, 5, again).predicted


def test_a_network_that_diverges_ends_with_the_step_and_no_prediction():
    recipe = Recipe(rate=30.0, batch=4)
    found = images(10, SMALL)
    state = trained(SMALL, recipe, found, 50)
    weights = SMALL.weights(recipe.weights_seed)
    ours = [w.requires_grad_() for w in weights.values()]
    optimiser, step = torch.optim.SGD(ours, lr=30.0), 0
    while True:
        order = torch.as_tensor(recipe.order(10, step // 3))
        batch = order.split(4)[step % 3]
        loss = (SMALL.forward(weights, found.x[batch]) - found.targets[batch]).square().mean()
        step += 1
        if not loss < training.BOUND:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert state.failure.step == step and "mean squared error" in state.failure.reason
    assert state.finished(50, 10) and not state.predicted


def test_a_network_whose_outputs_are_all_zero_ends():
    found = images(4, SMALL)
    weights = SMALL.weights(0) | {
        "w2": -SMALL.weights(0)["w2"].abs()
    }  # so no unit of the last layer is ever active
    state = trained(SMALL, Recipe(rate=0.1, batch=None), found, 50, State(weights))
    assert state.failure.step == 0 and "every output was zero" in state.failure.reason


# Interrupted and continued


@pytest.fixture(scope="module")
def whole():
    return trained(SMALL, RECIPE, images(10, SMALL), 5)


@pytest.mark.parametrize("stop", range(1, 16))
def test_the_same_bits_wherever_it_was_interrupted(tmp_path, whole, stop):
    found, folder = images(10, SMALL), Folder(tmp_path, "identity")
    state = begin(SMALL, RECIPE, CPU)
    for count, _ in enumerate(steps(SMALL, RECIPE, found, state, 5), 1):
        if count == stop:
            break
    folder.save(state, {"devices": ["cpu"]})
    again, made = folder.resumed(CPU)
    assert made == {"devices": ["cpu"]}
    same(again, state)
    same(trained(SMALL, RECIPE, found, 5, again), whole)
    assert whole.epoch == 5 and whole.velocity and sorted(whole.outputs) == [0, 1, 2, 3, 4, 5]


def test_a_higher_limit_goes_on(tmp_path, whole):
    found, folder = images(10, SMALL), Folder(tmp_path, "identity")
    folder.finish(trained(SMALL, RECIPE, found, 3), {})
    assert folder.result().epoch == 3 and folder.result().reached is None
    again, _ = folder.resumed(CPU)
    same(trained(SMALL, RECIPE, found, 5, again), whole)


def test_a_result_reads_back(tmp_path, whole):
    folder = Folder(tmp_path, "identity")
    assert folder.result() is None and folder.resumed(CPU) is None and folder.progress() is None
    folder.finish(whole, {"devices": ["cpu"]})
    found = folder.result()
    assert (found.epoch, found.reached, found.failure) == (5, None, None) and found.made["devices"] == ["cpu"]
    assert found.history == whole.history
    np.testing.assert_array_equal(found.predicted, [whole.predicted[4], whole.predicted[5]])
    for epoch, outputs in whole.outputs.items():
        np.testing.assert_array_equal(found.outputs[epoch], outputs)
    loss, accuracy = whole.history[-1]
    assert folder.progress() == {"epoch": 5, "loss": loss, "accuracy": accuracy}


@pytest.mark.parametrize("place", [0, 30, 200, -1])
def test_a_damaged_checkpoint_is_noticed(tmp_path, whole, caplog, place):
    folder = Folder(tmp_path, "identity")
    folder.save(whole, {})
    data = bytearray((tmp_path / "checkpoint").read_bytes())
    data[place] ^= 1
    (tmp_path / "checkpoint").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert folder.resumed(CPU) is None
    assert "damaged" in caplog.text and "training begins anew" in caplog.text
    (tmp_path / "checkpoint").write_bytes(data[: len(data) // 2])
    assert folder.resumed(CPU) is None


def test_what_is_of_another_identity_is_not_used(tmp_path, whole, caplog):
    Folder(tmp_path, "identity").finish(whole, {})
    assert Folder(tmp_path, "other").resumed(CPU) is None and "of other settings or images" in caplog.text
    with pytest.raises(archive.Damaged):
        Folder(tmp_path, "other").result()


CHANGES = [("rate", 0.1), ("trial", 1), ("seed", 3), ("batch", 5), ("loss", "sum"), ("momentum", 0.0)]


@pytest.mark.parametrize(
    "field, value", [*CHANGES, ("epochs_after", 3), ("precision", "bf16"), ("curve", False)]
)
def test_whatever_decides_the_weights_is_in_the_identity(field, value):
    from dataclasses import replace

    network, data = {"width": 3}, {"images": "abc"}
    first = RECIPE.identity(network, data)
    assert first == RECIPE.identity(dict(network), dict(data))
    assert first != replace(RECIPE, **{field: value}).identity(network, data)
    assert first != RECIPE.identity({"width": 4}, data) and first != RECIPE.identity(
        network, {"images": "abd"}
    )


def test_progress_that_is_nonsense_says_nothing(tmp_path):
    for text in (
        "",
        "[]",
        '{"epoch": "x"}',
        '{"epoch": 1e999, "loss": 0, "accuracy": 0}',
        json.dumps({"epoch": 1, "loss": [], "accuracy": 0}),
        "[" * 10**5,
    ):
        (tmp_path / "progress.json").write_text(text)
        assert Folder(tmp_path, "i").progress() is None


# Nothing else is changed


def test_pytorchs_own_settings_and_random_numbers_are_left_alone():
    state, deterministic = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    for precision in ("float32", "bf16"):
        with arithmetic(CPU, precision):
            trained(SMALL, Recipe(rate=0.05, batch=4, precision=precision), images(10, SMALL), 2)
    assert torch.equal(state, torch.get_rng_state()) and not torch.is_autocast_enabled("cpu")
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    with pytest.raises(ValueError), arithmetic(CPU, "bf16"):
        raise ValueError
    assert not torch.is_autocast_enabled("cpu")


def test_bf16_trains_as_float32_does_to_its_precision(whole):
    """bf16 products have eight bits, so changes of the weights may differ by a few per cent."""
    found, changes = images(10, SMALL), {}
    for precision in ("float32", "bf16"):
        recipe = Recipe(rate=0.05, batch=None, precision=precision)
        with arithmetic(CPU, precision):
            state = trained(SMALL, recipe, found, 5)
        changes[precision] = torch.cat(
            [(state.weights[name] - w).flatten() for name, w in SMALL.weights(recipe.weights_seed).items()]
        )
    difference = (changes["float32"] - changes["bf16"]).norm() / changes["float32"].norm()
    assert 0 < difference < 0.05


def test_devices_that_are_not_there(monkeypatch):
    from cntk_bench.errors import UserError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose("auto").type == choose("cpu").type == "cpu"
    with pytest.raises(UserError, match="network.device is cuda: PyTorch finds no GPU here"):
        choose("cuda")
    with pytest.raises(UserError, match="network.precision is tf32: only GPUs have it"):
        choose("auto", "tf32")
