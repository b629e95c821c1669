"""Networks trained with one limit of epochs and used with another; broken folders, broken PyTorch."""

import logging
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from trained import call, changed, digests, material, solutions, write  # noqa: E402

from cntk_bench.networks.folder import Folder  # noqa: E402
from cntk_bench.runs.material import jobs  # noqa: E402

ONE = ("network.trials=1", "network.rates=[30]")


@pytest.fixture
def written(tmp_path, monkeypatch):
    return write(tmp_path, monkeypatch)


def job(*overrides, run="runs/nets"):
    _, _, (found,) = next(jobs(*material(run, *overrides)))
    return found


def train(epochs, *overrides, **more):
    return call("train", "nets.yaml", *changed(*ONE, f"network.epochs={epochs}", *overrides), **more)


def test_a_limit_below_full_training_accuracy_is_no_result_of_it(written):
    """A network that needed more epochs than a new limit would not have finished under it."""
    train(200)
    found = job().result()
    assert 4 < found.reached < 100
    (result,) = Path("runs/nets/networks").glob("*/*/result")
    before = result.read_bytes()
    train(found.reached)  # still the same result: exactly as many epochs as the network needed
    low = f"network.epochs={found.reached - 1}"
    told = call("train", "nets.yaml", *changed(*ONE, low), code=2)
    assert f"trained for {found.epoch} epochs already" in told and f"use {found.reached} at least" in told
    assert result.read_bytes() == before
    assert "is not trained with these settings" in call("solve", "runs/nets", *changed(low), code=2)
    call("solve", "runs/nets", *changed("network.epochs=150"))
    assert solutions()[0]["reached"] == [found.reached]


def test_the_same_of_one_that_was_stopped_after_full_training_accuracy(written):
    call("compute", "nets.yaml", *changed(*ONE, "network.epochs=200"))
    one = job()
    one.folder.mkdir(parents=True)
    epochs = []
    one.do(lambda words: epochs.append(words), lambda: bool(epochs) and "100.0 %" in epochs[-1])
    assert (one.folder / "checkpoint").exists() and not one.done().finished
    reached = int(epochs[-1].split()[1].rstrip(","))
    assert f"use {reached} at least" in train(reached - 1, code=2)
    train(reached)
    assert job().result().reached == reached


@pytest.mark.parametrize("rate", [100, 150])
def test_a_failure_beyond_the_limit_is_none(written, rate):
    """One of these networks fails within its last epoch, the other at its end, when it is evaluated."""
    asked = (*ONE[:1], f"network.rates=[{rate}]")
    call("train", "nets.yaml", *changed(*asked, "network.epochs=50"))
    step = job().result().failure["step"]
    epochs = -(-step // 2)  # an epoch has two steps
    assert epochs > 1
    exact, low = (changed(*asked, f"network.epochs={limit}") for limit in (epochs, epochs - 1))
    before = (job().folder / "result").stat().st_mtime_ns
    call("train", "nets.yaml", *exact)
    assert f"use {epochs} at least" in call("train", "nets.yaml", *low, code=2)
    assert (job().folder / "result").stat().st_mtime_ns == before
    call("train", "nets.yaml", *low, "--output", "low")
    assert job(run="low").result().failure is None


def test_a_lost_checkpoint_does_not_let_a_lower_limit_replace_what_took_longer(written):
    train(7)
    (result,) = Path("runs/nets/networks").glob("*/*/result")
    before = result.read_bytes()
    (result.parent / "checkpoint").unlink()
    assert "use 7, or 9 and more" in train(5, code=2) and result.read_bytes() == before


def test_what_a_killed_process_left_half_written_goes(written):
    train(3)
    folder = job().folder
    for name in ("checkpoint", "result", "progress.json"):
        (folder / f".{name}-0123.partial").write_bytes(b"half")
    (folder / ".mine").write_bytes(b"")
    train(4)
    assert sorted(p.name for p in folder.iterdir()) == [
        *(".mine", "checkpoint", "lock", "progress.json", "result")
    ]


def test_what_is_no_file_is_damage_and_a_folder_is_told_before_hours_are_spent(written):
    train(3)
    before, folder = digests(), job().folder
    for make in (os.mkfifo, lambda path: path.symlink_to(path.name)):
        (folder / "result").unlink()
        make(folder / "result")
        assert "its result is damaged: it cannot be read" in call("status", "runs/nets")
        train(3)
        assert digests() == before
    (folder / "result").unlink()
    (folder / "result").mkdir()
    assert "it cannot be read: Is a directory" in call("status", "runs/nets")
    assert "result is a folder, where a file is to be: remove it" in train(3, code=2)


def test_going_on_with_another_pytorch_is_said(written, caplog):
    train(3)
    files = Folder(job().folder, job().identity)
    state, made = files.resumed(torch.device("cpu"))
    files.save(state, made | {"torch": "1.0"})
    with caplog.at_level(logging.WARNING):
        train(5)
    assert "was begun with torch=1.0, and goes on with" in caplog.text
    caplog.clear()
    train(7)
    assert not caplog.text


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["network.kappa=10000"], "; lower network.kappa"),
        (["network.rates=[1e9]"], "; lower network.rates"),
        (
            ["kernel.columns=[FC-NN]", "kernel.depths=[4]", "network.width=1"],
            "zero, and with it every gradient); raise",
        ),
    ],
)
def test_the_remedy_is_that_of_the_failure(written, overrides, words):
    """At width 1 and depth 4 no unit is active in three of four networks, so some seed gives such a one."""
    from click.testing import CliRunner

    from cntk_bench.cli import program

    doubts = []
    for seed in range(12 if "network.width=1" in overrides else 1):
        asked = ["run", "nets.yaml", *changed(*ONE, f"network.seed={seed}", *overrides)]
        done = CliRunner().invoke(program.cli, asked, standalone_mode=False)
        (solution,) = solutions()
        doubts.append(solution["doubt"] or "")
        assert (done.return_value == 2) == (solution["accuracy"] is None)
        if words in doubts[-1]:
            return
    pytest.fail(f"{doubts}")


@pytest.mark.parametrize(
    "error", ["OSError('libtorch.so: no such file')", "ImportError('of another Python')"]
)
def test_a_pytorch_that_does_not_load_is_named(written, monkeypatch, error):
    import sys

    (written / "torch").mkdir()
    (written / "torch" / "__init__.py").write_text(f"raise {error}")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(written)
    for command in ("run", "train"):
        told = call(command, "nets.yaml", code=2)
        assert told.startswith("PyTorch is installed and does not load (") and "pip install" in told
    assert not Path("runs").exists()
