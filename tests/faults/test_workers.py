"""Faults while a run is computed by worker processes: in a worker, or in the process that hands out tiles."""

import errno
import signal
import time
from pathlib import Path

import numpy as np
from bench import INTERRUPTED, TILES, logged, manners, predictions, same_bits
from command import COUNT, Fault

from cntk_bench.executors.workers import AHEAD
from cntk_bench.grams.journal import writers

CALLS = "create write fsync rename"
CREW = ("--executor", "processes", "--set", "compute.workers=2")
FLYING = 2 * AHEAD  # tiles in flight with two workers


def compute(bench, run, **more):
    return bench.commands.call("compute", bench.config, "--output", run, *CREW, **more)


def sound(bench, run, before, allowed):
    """What is wrong with a complete run: its numbers or predictions, or finished tiles computed again."""
    names = logged(run)
    if sorted(set(names)) != sorted(logged(bench.whole)) or len(names) - TILES > allowed:
        return f"{len(names)} tiles computed, {len(set(names))} different ones"
    if any(names.count(name) > 1 for name in before):
        return "a finished tile was computed again"
    wrong = manners(bench.commands.call("verify", run), (0,)) or same_bits(run, bench.whole)
    if wrong:
        return wrong
    done = bench.commands.call("solve", run)
    right = done.status == 0 and predictions(run) == predictions(bench.whole)
    return None if right else f"solves to something else: {done.stderr}"


def test_a_worker_that_is_killed_anywhere(bench):
    """The others compute its tiles; the process that lost it says so and ends well."""
    rng, kind = np.random.default_rng(7), "SIGKILL of a worker at a system call (processes)"
    for call in rng.permutation(CALLS.split())[: bench.many]:
        run, place = bench.begun(3), int(rng.integers(1, 5))
        arms = {"SHIM_FAULT": f"{call}|{run}|{place}|{place}|{-signal.SIGKILL}",
                "SHIM_ONCE": str(bench.folder / f"struck-{call}")}  # fmt: skip

        def check(run=run, arms=arms):
            before = logged(run)
            done = compute(bench, run, **arms)
            if not Path(arms["SHIM_ONCE"]).exists():
                return "nobody was struck"
            if "a worker was lost" not in done.stderr:
                return f"nobody is missed: {done.stderr}"
            return manners(done, (0,)) or sound(bench, run, before, AHEAD)

        bench.survive(kind, f"{call} {place}", check)
    bench.report(kind, "clusters")


def test_a_signal_anywhere_in_the_process_that_hands_out_tiles(bench):
    """Its workers finish what they have begun, and end; the same command then goes on."""
    rng, kinds, calls, run = np.random.default_rng(8), [], f"{CALLS} open", bench.begun(3)
    counted = compute(bench, run, fault=Fault(calls, str(run), COUNT, COUNT, errno.EIO))
    for name in ("SIGKILL", "SIGINT", "SIGTERM"):
        kind = f"{name} at a system call of the process that hands out tiles (processes)"
        number = getattr(signal, name)
        for place in rng.integers(1, counted.matched, max(1, bench.many // 2)).tolist():
            run = bench.begun(3)
            fault = Fault(calls, str(run), place, place, -number)

            def check(run=run, fault=fault, number=number):
                done = compute(bench, run, fault=fault)
                allowed = (-number,) if number == signal.SIGKILL else (0, *INTERRUPTED)
                wrong = manners(done, allowed)
                if not wrong and number != signal.SIGKILL and writers(run / "gram.zarr"):
                    wrong = "workers are left"
                while writers(run / "gram.zarr"):  # workers of a killed process finish what they have begun
                    time.sleep(0.02)
                before = logged(run)
                wrong = wrong or manners(compute(bench, run), (0,))
                return wrong or sound(bench, run, before, FLYING)

            bench.survive(kind, f"{fault}", check)
        kinds.append(kind)
    for kind in kinds:
        bench.report(kind, "clusters")
