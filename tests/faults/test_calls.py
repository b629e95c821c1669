"""System calls that fail, and signals that arrive, anywhere in a command."""

import errno
import json
import shutil
import signal

import numpy as np
import pytest
from bench import INTERRUPTED, logged, manners, predictions, same_bits
from command import COUNT, Fault

WRITING = "create write fsync rename mkdir unlink link truncate"
READING = "open read"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)
UNREADABLE = (errno.EMFILE, errno.EIO, errno.EACCES, errno.ESTALE)


def begun(bench):
    run = bench.begun()
    return run, ("compute", bench.config, "--output", run)


def new(bench):
    run = bench.folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    return run, ("run", bench.config, "--output", run)


def finished(*arguments):
    def prepare(bench):
        run = bench.copy()
        return run, (arguments[0], run, *arguments[1:])

    return prepare


def damaged(bench):
    run = bench.copy()
    (run / "gram.zarr" / "train" / "c.0.1.0").write_bytes(b"damaged")
    return run, ("verify", run, "--repair")


COMMANDS = {"compute": begun, "run": new, "solve": finished("solve"), "verify --repair": damaged}


def places(bench, prepare, calls, rng):
    """Where a command shall fail: (kind of call, number of the call), a few for every kind."""
    for call in calls.split():
        run, arguments = prepare(bench)
        counted = bench.commands.call(*arguments, fault=Fault(call, str(run), COUNT, COUNT, errno.EIO))
        assert counted.status == 0, counted.stderr
        for number in bench.choose(counted.matched, rng):
            yield call, number


def recovers(bench, run, before=()):
    """Compute again without a fault: the bits must be the same, no finished tile computed twice."""
    done = bench.compute(run)
    if done.status != 0:
        return f"does not go on: {done.stderr}"
    names = logged(run)
    if sorted(names) != sorted(set(names)) or not set(before) <= set(names):
        return "finished tiles were computed again, or lost"
    wrong = manners(bench.commands.call("verify", run)) or same_bits(run, bench.whole)
    if wrong:
        return wrong
    done = bench.commands.call("solve", run)
    if done.status != 0 or predictions(run) != predictions(bench.whole):
        return f"solves to something else: {done.stderr}"
    return None


@pytest.mark.parametrize("command", ["compute", "run", "solve"])
def test_a_write_that_fails(bench, command):
    rng, kind = np.random.default_rng(1), f"a write fails in {command}"
    for call, number in places(bench, COMMANDS[command], WRITING, rng):
        run, arguments = COMMANDS[command](bench)
        code, last = rng.choice(FULL), rng.choice([number, COUNT])  # this call alone, or all from it on
        fault = Fault(call, str(run), number, int(last), int(code))

        def check(run=run, arguments=arguments, fault=fault):
            done = bench.commands.call(*arguments, fault=fault)
            return manners(done) or recovers(bench, run, logged(run))

        bench.survive(kind, f"{fault}", check)
    bench.report(kind)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_signal_anywhere(bench, command, name):
    rng, kind = np.random.default_rng(2), f"{name} in {command}"
    number = getattr(signal, name)
    for call, place in places(bench, COMMANDS[command], "create write fsync rename open", rng):
        run, arguments = COMMANDS[command](bench)
        fault = Fault(call, str(run), place, place, -number)

        def check(run=run, arguments=arguments, fault=fault):
            done = bench.commands.call(*arguments, fault=fault)
            # How many calls there are varies a little with threads.
            ended = done.status == 0 and done.matched < fault.first
            allowed = (-number,) if name == "SIGKILL" and not ended else (0, *INTERRUPTED)
            wrong = manners(done, allowed)
            if command == "verify --repair":  # the discarded tiles are computed anew
                return wrong or again(bench, run)
            return wrong or recovers(bench, run, logged(run))

        bench.survive(kind, f"{fault}", check)
    bench.report(kind)


def again(bench, run):
    done = bench.commands.call("verify", run, "--repair")
    if done.status != 0:
        return f"is not repaired: {done.stdout} {done.stderr}"
    return manners(bench.compute(run), (0,)) or same_bits(run, bench.whole)


@pytest.mark.parametrize(
    "command", [("verify",), ("verify", "--repair"), ("solve",), ("status",), ("table",)]
)
def test_a_read_that_fails(bench, command):
    """What cannot be read is not taken for damage: no tile is discarded or computed again."""
    rng, kind = np.random.default_rng(3), f"a read fails in {' '.join(command)}"
    prepare = finished(*command)
    before = json.dumps(logged(bench.whole))
    for call, number in places(bench, prepare, READING, rng):
        run, arguments = prepare(bench)
        fault = Fault(call, str(run), number, int(rng.choice([number, COUNT])), int(rng.choice(UNREADABLE)))

        def check(run=run, arguments=arguments, fault=fault):
            wrong = manners(bench.commands.call(*arguments, fault=fault))
            if not wrong and json.dumps(logged(run)) != before:
                wrong = "tiles were discarded or computed again"
            return wrong or same_bits(run, bench.whole) or recovers(bench, run)

        bench.survive(kind, f"{fault}", check)
    bench.report(kind)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(bench, code):
    kind = "no file locks"
    for prepare in COMMANDS.values():
        run, arguments = prepare(bench)
        fault = Fault("flock", str(run), 1, COUNT, code)

        def check(run=run, arguments=arguments, fault=fault):
            done = bench.commands.call(*arguments, fault=fault)
            wrong = manners(done, (0,)) or ("lock" not in done.stderr and "no warning") or None
            return wrong or same_bits(run, bench.whole)

        bench.survive(kind, f"{fault}", check)
    bench.report(kind)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EBADF])
def test_directories_that_cannot_be_flushed(bench, code):
    kind = "no directory flush"
    for folder in ("/train", "/test", "/solves"):
        run, arguments = new(bench)

        def check(run=run, arguments=arguments, folder=folder):
            ends = Fault("fsync", f"{folder}$", 1, COUNT, code)
            return manners(bench.commands.call(*arguments, fault=ends), (0,)) or same_bits(run, bench.whole)

        bench.survive(kind, folder, check)
    bench.report(kind)
