"""What `plan` says of training: against real training, and on a clock that only steps move."""

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from trained import call, changed, material, write  # noqa: E402

from cntk_bench import networks  # noqa: E402
from cntk_bench.columns.training import Training  # noqa: E402
from cntk_bench.config import config  # noqa: E402
from cntk_bench.costs import effort  # noqa: E402
from cntk_bench.networks import recipe as recipes  # noqa: E402
from cntk_bench.networks import timing, training  # noqa: E402
from cntk_bench.networks.architecture import Architecture  # noqa: E402
from cntk_bench.networks.recipe import Recipe  # noqa: E402
from cntk_bench.networks.training import Images  # noqa: E402
from cntk_bench.records.directory import Run  # noqa: E402
from cntk_bench.runs import images  # noqa: E402
from cntk_bench.runs.material import jobs  # noqa: E402

ONE = ("network.trials=1", "network.rates=[30]", "network.momentum=0.5")


@pytest.fixture
def written(tmp_path, monkeypatch):
    return write(tmp_path, monkeypatch)


def cells(*overrides):
    settings = config.load("nets.yaml", overrides)
    return effort.efforts(Run(Path("runs/nets")), settings, images.load(settings))


def test_steps_epochs_and_disk_are_those_of_a_network_that_needs_them_all(written, monkeypatch):
    """The network fits all training images in the last epoch that the limit allows."""
    call("train", "nets.yaml", *changed(*ONE, "network.epochs=200"), "--output", "long")
    _, _, (job,) = next(jobs(*material("long")))
    limit = job.result().reached
    (cell,) = cells(*ONE, f"network.epochs={limit}")
    assert (cell.label, cell.count, cell.left) == ("CNN-V at depth 2", 1, 1)
    done, update, save, sizes = [], training.update, job._files.__class__.save, []
    monkeypatch.setattr(training, "update", lambda *a: (done.append(len(a[-1])), update(*a))[1])
    monkeypatch.setattr("cntk_bench.columns.training.CHECKPOINT", 0)

    def saved(files, *state):
        save(files, *state)
        sizes.append((files.path / "checkpoint").stat().st_size)

    monkeypatch.setattr(job._files.__class__, "save", saved)
    call("train", "nets.yaml", *changed(*ONE, f"network.epochs={limit}"))
    assert cell.each.steps == len(done) and cell.each.epochs == limit + 2
    assert cell.each.batch == max(done) == 16
    (result,) = Path("runs/nets/networks").glob("*/*/result")
    assert max(sizes) <= cell.each.checkpoint <= 1.2 * max(sizes) + 8192
    assert result.stat().st_size <= cell.each.disk - cell.each.checkpoint
    assert cells(*ONE, f"network.epochs={limit}")[0].left == 0


def test_seconds_are_those_of_the_steps_and_of_every_look(written, monkeypatch):
    found = timing.Timing(step=2.0, output=0.5, images=16)
    monkeypatch.setattr(timing, "timed", lambda *_: found)
    (cell,) = cells("network.epochs=3", "dataset.draws=2", "network.curve=false")
    assert cell.count == cell.left == 8  # with two draws
    assert cell.each.epochs == 5 and cell.each.steps == 10
    assert cell.each.seconds == 2.0 * 10 + 0.5 * (30 * 6 + 40 * 2)
    (curved,) = cells("network.epochs=3")
    assert curved.each.seconds == cell.each.seconds + 0.5 * 40 * 6  # after epochs 0 to 5
    assert curved.each.disk > cell.each.disk + 2 * 4 * 40 * 10 * 6
    (held,) = cells(
        "network.epochs=3", "network.choose=validation", "network.validation=0.5", "network.curve=false"
    )
    assert held.each.steps == 5 and held.each.seconds == 2.0 * 5 + 0.5 * (15 * 6 + 55 * 2)


@pytest.mark.parametrize("seconds, timed", [(0.0, 1), (0.008, 4), (1.0, 24)])
def test_a_timing_is_that_of_a_warm_step_in_proportion(monkeypatch, seconds, timed):
    clock, calls = [0.0], []

    def update(net, recipe, found, state, places):
        first = not calls
        calls.append(len(places))
        assert recipe.rate == 0 and len(found.x) == len(places)  # timing must not change the weights
        clock[0] += 1e-3 * len(places) + 100 * first

    def outputs(net, weights, x):
        clock[0] += 1e-4 * len(x)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing, "update", update)
    monkeypatch.setattr(timing, "outputs", outputs)
    net = Architecture("v", 2, 4, 1, 4, outputs=3)
    x = torch.zeros(40, 1, 4, 4)
    found = timing.timed(
        net, Recipe(1.0, batch=24), Images(x, x[:, 0, 0, :3], x[:, 0, 0, 0].long(), x[:0]), seconds
    )
    assert (
        found.images == timed and found.step == pytest.approx(0.024) and found.output == pytest.approx(1e-4)
    )


def test_timing_leaves_the_weights_as_they_are():
    net, source = Architecture("fc", 2, 4, 1, 4, outputs=3), torch.Generator().manual_seed(0)
    x = torch.randn((6, 1, 4, 4), generator=source)
    before = torch.get_rng_state()
    found = timing.timed(
        net,
        Recipe(1e9, batch=None, momentum=0.5),
        Images(x, x[:, 0, 0, :3], x[:, 0, 0, 0].long(), x[:0]),
        0.01,
    )
    assert 0 < found.step < 60 and 0 < found.output < 60 and torch.equal(before, torch.get_rng_state())


def test_plan_tells_it_and_spends_nothing(written, monkeypatch):
    both = changed("kernel.columns=[CNTK-V, CNN-V, RBF]", "kernel.depths=[2, 3]")
    lines = call("plan", "nets.yaml", *both).splitlines()
    assert "networks         8 of 8 to be trained" in lines and any(
        line.startswith("pairs ") for line in lines
    )
    (first, second) = (line for line in lines if line.startswith("training "))
    assert "CNN-V at depth 2: 4, each at most 6 epochs, 12 steps of 16 images, " in first
    assert " a step (timed on " in first and "CNN-V at depth 3: 4, each at most 6 epochs" in second
    names = ("disk, train", "memory, train", "time, train")
    assert all(any(line.startswith(name) for line in lines) for name in names)
    assert "at most, in one process; less where networks fit all training images" in lines[-2]
    # "columns that need no Gram matrix" are RBF
    assert re.fullmatch("time, all +.* (s|min), without columns that need no Gram matrix", lines[-1])
    assert not Path("runs").exists()
    call("train", "nets.yaml", *changed("network.rates=[5]"))
    assert "networks         2 of 4 to be trained" in call("plan", "nets.yaml")
    told = call("plan", "nets.yaml", *changed("network.rates=[5]"))
    assert told == "networks         all 2 are trained\n"
    monkeypatch.delattr(Training, "effort")  # a column of another package may have none
    for draws in (1, 2):
        told = call("plan", "nets.yaml", *changed(f"dataset.draws={draws}", "network.seed=1"))
        assert f"CNN-V at depth 2: {4 * draws}, of which the column does not tell the time" in told
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    assert "trained networks need PyTorch: pip" in call("plan", "nets.yaml", code=2)


def test_points_of_a_curve_are_counted_without_looking_at_every_epoch():
    assert [recipes.points(n) for n in range(60)] == [
        sum(map(recipes.in_curve, range(n + 1))) for n in range(60)
    ]
    assert recipes.points(10**9) < 130


def test_what_would_be_killed_is_refused(written, monkeypatch):
    net = Architecture("v", 2, 16, 1, 8, outputs=10)
    need = 4 * (2 * 16 * 9 + 2 * 16 * 64 * 10)  # the weights and their gradient
    for free, recipe, fits in (
        (need, Recipe(1.0), True),
        (need - 1, Recipe(1.0), False),
        (need, Recipe(1.0, momentum=0.5), False),
    ):
        monkeypatch.setattr(training.memory, "available", lambda free=free: free)
        if fits:
            training.begin(net, recipe, torch.device("cpu"))
        else:
            with pytest.raises(MemoryError):
                training.begin(net, recipe, torch.device("cpu"))
    monkeypatch.setattr(training.memory, "available", lambda: need - 1)
    for command in ("plan", "train"):
        told = call(command, "nets.yaml", code=2)
        assert "does not fit into the memory (it needs " in told and "use a smaller network.batch" in told


def test_plan_refuses_what_does_not_fit(written):
    told = call("plan", "nets.yaml", *changed("network.width=1000000000"), code=2)
    assert "does not fit into the memory" in told and "use a smaller network.batch or network.width" in told
