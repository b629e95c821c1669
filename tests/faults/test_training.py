"""Faults while networks are trained with a checkpoint after every step, and in the files that this leaves."""

import errno
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
from bench import INTERRUPTED, Bench, manners, predictions
from command import COUNT, Commands, Fault
from test_damage import DAMAGES

CONFIG = """\
name: nets
dataset: {name: digits, train: 24, test: 10}
kernel: {columns: [CNN-V], depths: [3]}
network: {width: 4, rates: [5], trials: 2, batch: 16, momentum: 0.5, epochs: 3, epochs_after: 2, curve: true}
"""
WARM = ("torch", "torch.func", "cntk_bench.networks.training", "cntk_bench.columns.training.CHECKPOINT=0")
CALLS = "write rename"


@pytest.fixture(scope="module")
def warm(shared, tmp_path_factory):
    """A bench with a finished run of networks; commands are forked from a process with PyTorch."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # a process that has started threads cannot be forked
        commands = Commands(folder, shared.commands.folder / "shim.so", 60.0, WARM)
    (folder / "nets.yaml").write_text(CONFIG)
    done = commands.call("run", folder / "nets.yaml", "--output", folder / "whole")
    assert done.status == 0 and done.stderr == "", done.stderr
    yield replace(shared, commands=commands, config=folder / "nets.yaml", whole=folder / "whole")
    commands.close()


@pytest.fixture
def nets(warm, tmp_path, request):
    warm.folder, warm.node = tmp_path, request.node
    return warm


def untrained(nets: Bench):
    """The path of a run of which nothing exists yet."""
    run = nets.folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    return run


def left(run):
    """Every file that training has left, by name, with its whole content."""
    files = {str(file.relative_to(run)): file for file in (run / "networks").rglob("*") if file.is_file()}
    return {name: b"" if file.name == "lock" else file.read_bytes() for name, file in files.items()}


def recovers(nets: Bench, run, command="train"):
    """Train again without a fault: the same bits, and no other files."""
    wrong = manners(nets.commands.call(command, nets.config, "--output", run), (0,))
    if wrong:
        return wrong
    ours, theirs = left(run), left(nets.whole)
    if ours != theirs:
        return f"other bits or files: {sorted(name for name, _ in ours.items() ^ theirs.items())}"
    right = command == "train" or predictions(run) == predictions(nets.whole)
    return None if right else "other predictions"


def places(nets: Bench, calls, rng):
    for call in calls.split():
        run = untrained(nets)
        fault = Fault(call, str(run / "networks"), COUNT, COUNT, errno.EIO)
        done = nets.commands.call("train", nets.config, "--output", run, fault=fault)
        assert done.status == 0 and done.matched > 12, (done.stderr, call, done.matched)
        for number in nets.choose(done.matched, rng):
            yield call, number


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_signal_while_networks_are_trained(nets, name):
    rng, kind, number = np.random.default_rng(1), f"{name} in training", getattr(signal, name)
    for call, place in places(nets, CALLS if name == "SIGKILL" else "rename", rng):
        run = untrained(nets)
        fault = Fault(call, str(run / "networks"), place, place, -number)

        def check(run=run, fault=fault):
            done = nets.commands.call("run", nets.config, "--output", run, fault=fault)
            wrong = manners(done, (-number,) if name == "SIGKILL" else INTERRUPTED)
            return wrong or recovers(nets, run, "run" if fault.calls == "rename" else "train")

        nets.survive(kind, f"{fault}", check)
    nets.report(kind)


def test_a_write_that_fails_while_networks_are_trained(nets):
    rng, kind = np.random.default_rng(2), "a write fails in training"
    for call, place in places(nets, "create write", rng):
        run = untrained(nets)
        code = int(rng.choice((errno.ENOSPC, errno.EIO, errno.EACCES)))
        fault = Fault(call, str(run / "networks"), place, COUNT, code)

        def check(run=run, fault=fault):
            done = nets.commands.call("run", nets.config, "--output", run, fault=fault)
            return manners(done, (2,)) or recovers(nets, run)

        nets.survive(kind, f"{fault}", check)
    nets.report(kind)


NO_FILES = ("a folder", "a dangling link", "a link to itself", "a pipe")


@pytest.mark.parametrize("what", ["result", "checkpoint", "progress.json", "lock"])
def test_a_damaged_file_of_a_network(nets, what):
    """Commands say so in a line; training goes on to the same bits, or a line says what to remove."""
    rng, kind = np.random.default_rng(3), f"damaged {what} of a network"
    looks = ("status", "verify", "solve") if what == "result" else ("status",)
    for name, damage in DAMAGES.items():
        if what in ("progress.json", "lock") and name not in ("a megabyte", "escape sequences", *NO_FILES):
            continue
        run = nets.copy()
        file = rng.choice(sorted(map(str, run.glob(f"networks/*/*/{what}"))))
        damage(run / file, rng)
        if what != "result":  # the other files are read only without a result
            (run / file).with_name("result").unlink()

        def check(run=run, name=name):
            for command in looks:
                wrong = manners(nets.commands.call(command, run), (0, 1, 2))
                if wrong:
                    return f"{command}: {wrong}"
            if name == "a folder" or what == "lock" and name in NO_FILES:
                done = nets.commands.call("train", nets.config, "--output", run)
                return manners(done, (2,)) or (None if "remove it" in done.stderr else done.stderr)
            return recovers(nets, run)

        nets.survive(kind, f"{name} in {file}", check)
    nets.report(kind)
