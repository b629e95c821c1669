"""A clock that is set, hours back or days ahead, while two processes compute: for one or for both of them."""

import itertools
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time

import pytest
from bench import logged, manners, predictions, same_bits
from command import Done

from cntk_bench.grams.journal import FOLDER

HOUR, DAY = 3600, 86400
TRAIN, TEST, TILE = 60, 20, 4
FLYING = 4  # tiles that a process has in flight: being computed or written
TILES = (TRAIN // TILE) * (TRAIN // TILE + 1) // 2 + (TRAIN // TILE) * (TEST // TILE)
MORE = ("--set", f"dataset.train={TRAIN}", "--set", f"dataset.test={TEST}", "--set", f"compute.tile={TILE}")
JUMPS = {("back by 5 hours", "one"): -5 * HOUR, ("forwards by 3 days", "both"): 3 * DAY}


class Clock:
    """A clock that some processes share and that can be set."""

    def __init__(self, file):
        self.file = file
        file.write_bytes(bytes(8))

    def set(self, seconds):
        handle = os.open(self.file, os.O_WRONLY)
        os.pwrite(handle, struct.pack("q", seconds), 0)
        os.close(handle)


def begin(bench, clock, *arguments):
    own = {"LD_PRELOAD": str(bench.commands.folder / "shim.so"), "SHIM_CLOCK": str(clock.file)}
    command = [sys.executable, "-m", "cntk_bench", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | own
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=bench.folder, env=environment, **pipes)


def ended(process):
    out, err = process.communicate(timeout=300)
    return Done(tuple(process.args), process.returncode, out, err, 0)


@pytest.fixture(scope="module")
def whole(shared, tmp_path_factory):
    run = tmp_path_factory.mktemp("clock") / "whole"
    done = shared.commands.call("run", shared.config, "--output", run, *MORE)
    assert done.status == 0, done.stderr
    return run


def stopped_in_the_middle(run, processes):
    """Stop each process once it has finished a few tiles, so that none gets far ahead of the others."""
    left, end = list(processes), time.monotonic() + 300
    while left:
        assert time.monotonic() < end
        for process in list(left):
            assert process.poll() is None, process.communicate()
            files = list((run / "gram.zarr" / FOLDER).glob(f"*-{process.pid}-*.jsonl"))
            if files and files[0].read_text().count("}\n") >= 3:
                process.send_signal(signal.SIGSTOP)
                left.remove(process)
        time.sleep(0.005)


def misled(bench, clock, run):
    """What is wrong with what `status` says of two working processes, by the clock of one of them."""
    said = ended(begin(bench, clock, "status", run))
    seconds = re.search(r" pairs per second and process, (\d+) (s|min) left with 2 processes\n", said.stdout)
    wrong = not seconds or int(seconds[1]) > 120 or said.stdout.count(" process ") != 2
    return f"status says: {said.stdout}" if wrong else manners(said, (0,))


@pytest.mark.parametrize(("jump", "whose"), JUMPS)
def test_a_clock_that_is_set_while_two_processes_compute(bench, whole, jump, whose):
    kind, run = f"a clock is set {jump} while two processes compute", bench.folder / "run"

    def check():
        clocks = [Clock(bench.folder / name) for name in ("one", "other")]
        command = ("compute", bench.config, "--output", run, *MORE)
        both = [begin(bench, clock, *command) for clock in clocks]
        stopped_in_the_middle(run, both)
        for clock in clocks if whose == "both" else clocks[:1]:
            clock.set(JUMPS[jump, whose])
        wrong = misled(bench, clocks[0], run)
        for process in both:
            process.send_signal(signal.SIGCONT)
        done = [ended(process) for process in both]
        names = logged(run)
        wrong = wrong or next(filter(None, (manners(one, (0,)) for one in done)), None)
        wrong = wrong or next((f"words: {one.stderr}" for one in done if one.stderr), None)
        if not wrong and (len(set(names)) != TILES or len(names) - TILES > 3 * FLYING):
            wrong = f"{len(names)} tiles computed, {len(set(names))} of {TILES} different ones"
        record = json.loads((run / "record.json").read_text())
        seconds = [stage["seconds"] for stage in record["stages"]]
        if not wrong and not (len(seconds) == 2 and all(0 < one < 600 for one in seconds)):
            wrong = f"stages took {seconds} s"
        times = [line["seconds"] for line in lines(run)]
        if not wrong and not 0 <= min(times) <= max(times) < 600:
            wrong = f"tiles took up to {max(times)} s"
        solved = bench.commands.call("solve", run)
        wrong = wrong or manners(solved, (0,)) or same_bits(run, whole)
        return wrong or (None if predictions(run) == predictions(whole) else "other predictions")

    bench.survive(kind, whose, check)
    bench.report(kind, "clusters")


def lines(run):
    texts = (file.read_text().split("\n") for file in (run / "gram.zarr" / FOLDER).glob("*.jsonl"))
    return [json.loads(line) for line in itertools.chain(*texts) if line]
