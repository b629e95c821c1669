"""`choose: validation`, from `run` to the table, against training written here with PyTorch's optimiser."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trained import call, changed, solutions, write  # noqa: E402

from cntk_bench.config import config  # noqa: E402
from cntk_bench.networks.architecture import Architecture  # noqa: E402
from cntk_bench.networks.recipe import Recipe  # noqa: E402
from cntk_bench.runs import images  # noqa: E402

CHOSEN = ("dataset.seed=22", "network.choose=validation", "network.validation=0.25")
RATES, TRIALS, EPOCHS, AFTER = (10.0, 20.0, 40.0), 2, 8, 2


@pytest.fixture
def written(tmp_path, monkeypatch):
    return write(tmp_path, monkeypatch)


def held_out(n, count):
    return np.sort(np.random.default_rng([0, n]).permutation(n)[:count])


def classes(loaded, left, rate, trial):
    """Predictions (AFTER, v + m) of held-out and test images, after full accuracy or in the last epochs."""
    net = Architecture("v", 2, 16, 1, 8, outputs=10, kappa=0.05)
    recipe = Recipe(rate=rate, trial=trial, batch=16)
    weights = {name: w.requires_grad_() for name, w in net.weights(recipe.weights_seed).items()}
    optimiser = torch.optim.SGD(weights.values(), lr=rate)
    kept = np.setdiff1d(np.arange(len(loaded.y_train)), left)
    x, y = torch.tensor(loaded.x_train[kept]), torch.tensor(loaded.y_train[kept])
    goal = torch.nn.functional.one_hot(y, 10) - 0.1
    tried, found = torch.tensor(np.concatenate([loaded.x_train[left], loaded.x_test])), []
    epoch, end = 0, None
    while epoch < (EPOCHS if end is None else end):
        for batch in torch.as_tensor(recipe.order(len(kept), epoch)).split(16):
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(net.forward(weights, x[batch]), goal[batch]).backward()
            optimiser.step()
        epoch += 1
        with torch.no_grad():
            if end is None and bool((net.forward(weights, x).argmax(1) == y).all()):
                end = epoch + AFTER
            found.append(net.forward(weights, tried).argmax(1).numpy())
    return np.array(found[-AFTER:])


def expected(loaded, train=slice(None)):
    """Validation and test accuracy for each rate."""
    from dataclasses import replace

    loaded = replace(loaded, x_train=loaded.x_train[train], y_train=loaded.y_train[train])
    n = len(loaded.y_train)
    left = held_out(n, round(n / 4))
    rows = []
    for rate in RATES:
        found = np.concatenate([classes(loaded, left, rate, trial) for trial in range(TRIALS)])
        inside, test = found[:, : len(left)], found[:, len(left) :]
        rows.append((100 * np.mean(inside == loaded.y_train[left]), 100 * np.mean(test == loaded.y_test)))
    return np.array(rows)


def overrides(*more):
    rates = f"network.rates={list(RATES)}"
    return changed(*CHOSEN, rates, f"network.epochs={EPOCHS}", f"network.trials={TRIALS}", *more)


def test_the_rate_that_is_best_on_held_out_images_is_shown(written):
    shown = call("run", "nets.yaml", *overrides())
    loaded = images.load(config.load("nets.yaml", CHOSEN))
    rows = expected(loaded)
    (solution,) = solutions()
    candidates = solution["candidates"]
    assert [c["validation_accuracy"] for c in candidates] == pytest.approx(rows[:, 0])
    assert [c["accuracy"] for c in candidates] == pytest.approx(rows[:, 1])
    best = int(np.argmax(rows[:, 0]))
    assert (
        list(rows[:, 0]).count(rows[best, 0]) == 1 and rows[best, 1] < rows[:, 1].max()
    )  # otherwise choosing by the test images would give the same
    assert (solution["rate"], solution["chosen_by"]) == (RATES[best], "validation")
    assert solution["accuracy"] == pytest.approx(rows[best, 1]) and solution["held_out"] == 8
    assert "CNN-V: 8 of the training images are held out (network.choose: validation)" in shown
    assert "rate: of 3 learning rates, the one that is best on training images that were held out" in shown
    curve = json.loads(Path("runs/nets/solutions/CNN-V-2-curve-rate-10-trial-0.json").read_text())
    # 22 images are left to train on
    assert curve["time"][1] == pytest.approx(2 * 10 * 0.05**2 * 2 / (22 * 10))
    call("train", "nets.yaml", *overrides())
    assert len(list(Path("runs/nets/networks").glob("*/*"))) == 6  # nothing was trained again
    call("verify", "runs/nets")


def test_each_draw_holds_out_images_of_its_own(written):
    shown = call("run", "nets.yaml", *overrides("dataset.draws=2", "dataset.train=24"))
    loaded = images.load(config.load("nets.yaml", (*CHOSEN, "dataset.draws=2", "dataset.train=24")))
    (solution,) = solutions()
    accuracies = []
    for number, draw in enumerate(solution["draws"]):
        rows = expected(loaded, slice(24 * number, 24 * (number + 1)))
        best = int(np.argmax(rows[:, 0]))
        assert draw["rate"] == RATES[best]
        accuracies.append(rows[best, 1])
    assert solution["accuracies"] == pytest.approx(accuracies) and "each draw has its own" in shown
    assert "6 of the training images are held out" in shown


def test_a_single_rate_is_told_to_hold_images_out_for_nothing(written):
    shown = call("run", "nets.yaml", *changed(*CHOSEN, "network.rates=[5]"))
    assert "8 of the training images are held out" in shown and "learning rates" not in shown
    assert solutions()[0]["held_out"] == 8
    shown = call("run", "nets.yaml", *changed("network.rates=[5]"))
    assert "held out" not in shown and "held_out" not in solutions()[0]
