"""Two commands on one run at the same moment, and runs that are moved while they are written."""

import itertools
import json
import shutil
import signal
import threading

import numpy as np
import pytest
from bench import Bench, manners, predictions, same_bits
from command import Commands, Fault


@pytest.fixture
def second(bench, tmp_path_factory):
    """A second warm command line beside the first."""
    folder = tmp_path_factory.mktemp("second")
    commands = Commands(folder, bench.commands.folder / "shim.so")
    yield commands
    commands.close()


def both(bench: Bench, second: Commands, one, other):
    """Run two commands at once, and return how they ended."""
    ended = {}

    def run(commands, arguments, name):
        ended[name] = commands.call(*arguments)

    threads = [
        threading.Thread(target=run, args=(bench.commands, one, "one")),
        threading.Thread(target=run, args=(second, other, "other")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended["one"], ended["other"]


def consistent(run):
    """None if a run's record, solutions and solves describe the same solve; else what is wrong."""
    record = json.loads((run / "record.json").read_text())
    for solution in record["solutions"]:
        name = f"{solution['column']}-{solution['depth']}.npz"
        for folder in (run / "solutions", run / "solves" / str(record["solve"])):
            ridge = float(np.load(folder / name)["ridge"])
            if abs(ridge - solution["ridge"] - solution["jitter"]) > 1e-12:
                return f"{name}: ridge {ridge} in {folder.name}, {solution['ridge']} in the record"
    return None


COMMANDS = ("compute", "run", "solve 0.5", "solve 0.01", "verify", "verify --repair", "status", "table")


def arguments(bench, run, command):
    name, *options = command.split()
    if name in ("compute", "run"):
        return (name, bench.config, "--output", run)
    if name == "solve":
        return (name, run, "--set", f"solve.ridge={options[0]}")
    return (name, run, *options)


@pytest.mark.parametrize("state", ["new", "begun", "finished"])
def test_two_commands_at_once(bench, second, state):
    kind = f"two commands at once on a {state} run"
    pairs = list(itertools.combinations_with_replacement(COMMANDS, 2))
    rng = np.random.default_rng(5)
    for one, other in rng.permutation(pairs)[: max(8, 8 * bench.many // 3)]:
        if state == "new":
            run = bench.folder / "run"
            shutil.rmtree(run, ignore_errors=True)
        else:
            run = bench.begun() if state == "begun" else bench.copy()

        def check(run=run, one=one, other=other):
            ended = both(bench, second, arguments(bench, run, one), arguments(bench, run, other))
            for done in ended:
                wrong = manners(done)
                told = any(
                    word in done.stderr for word in ("another", "comput", "not a run", "no record", "no ")
                )
                if wrong or (done.status and not told):
                    return wrong or done.stderr
            done = bench.commands.call("run", bench.config, "--output", run)
            wrong = manners(done, (0,)) or same_bits(run, bench.whole) or consistent(run)
            if not wrong and predictions(run) != predictions(bench.whole):
                wrong = "solves to something else"
            return wrong

        bench.survive(kind, f"{one} and {other}", check)
    bench.report(kind)


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_run_that_is_moved_while_it_is_written(bench, how):
    """What the log lists is there, wherever the run is now; the same command goes on or begins anew."""
    rng, kind = np.random.default_rng(6), f"a run is {how} while it is written"
    elsewhere = bench.folder / "elsewhere"

    def disturb(run):
        if how == "removed":
            shutil.rmtree(run)
            return
        run.rename(elsewhere)
        if how == "replaced":
            shutil.copytree(bench.whole, run)

    for call, number in itertools.product(
        ("create", "fsync", "rename"), rng.choice(60, bench.many, False) + 1
    ):
        run = bench.begun()
        shutil.rmtree(elsewhere, ignore_errors=True)
        fault = Fault(call, str(run), int(number), int(number), -signal.SIGSTOP)

        def check(run=run, fault=fault):
            done = bench.compute(run, fault=fault, meanwhile=lambda: disturb(run))
            wrong = manners(done)
            if not wrong and elsewhere.exists():
                wrong = manners(bench.commands.call("verify", elsewhere), (0,)) and "the moved run is damaged"
                wrong = wrong or manners(bench.compute(elsewhere), (0,)) or same_bits(elsewhere, bench.whole)
            return wrong or manners(bench.compute(run), (0,)) or same_bits(run, bench.whole)

        bench.survive(kind, f"{fault}", check)
    bench.report(kind)
