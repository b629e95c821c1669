"""Several `compute` processes on one run, with workers or shares of their own; some are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cntk_bench.grams import layout, store
from cntk_bench.grams.journal import FOLDER
from cntk_bench.grams.tiles import PARTS, Plan

REPOSITORY = Path(__file__).parents[1]
CONFIG = """
name: shared
dataset: {name: digits, train: 100, test: 40}
kernel: {columns: [CNTK-V, CNTK-GAP], depths: [3]}
compute: {tile: 10, backend: cpu}
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def begin(folder, *arguments):
    def usual():
        """Signals as at a terminal, even if the tests run in the background, where SIGINT is ignored."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_DFL)

    command = [sys.executable, "-m", "cntk_bench", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, preexec_fn=usual, **pipes)


def ended(process):
    said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said[0]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shared.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    (folder / "shared.yaml").write_text(CONFIG)
    table = ended(begin(folder, "run", "shared.yaml", "--output", "run")).split("\n\nAll results")[0]
    return table, matrices(folder / "run")


def matrices(run):
    grams = store.open(run / "gram.zarr")
    return [grams.matrix(part, name, np.float32) for name in grams.readouts for part in PARTS]


def lines(run):
    """For each process, the names of the tiles that its journal lists as done."""
    found = {}
    for file in (run / "gram.zarr" / FOLDER).glob("*.jsonl"):
        text = file.read_text().split("\n")
        found[int(file.name.split("-")[-2])] = [
            json.loads(line)["tile"] for line in text if line.endswith("}")
        ]
    return found


def require_same(alone, folder):
    assert ended(begin(folder, "solve", "run")).strip() == alone[0].strip()
    for found, right in zip(matrices(folder / "run"), alone[1], strict=True):
        np.testing.assert_array_equal(found, right)


def test_two_shares_at_the_same_moment_are_the_run_of_one_process(alone, folder, faults):
    faults("two shares at one moment (--shard)")
    both = [begin(folder, "compute", "shared.yaml", "--output", "run", "--shard", f"{i}/2") for i in (1, 2)]
    for process in both:
        assert "share" in ended(process)
    first, second = lines(folder / "run").values()
    assert not set(first) & set(second) and abs(len(first) - len(second)) <= 1
    require_same(alone, folder)


def test_a_share_alone_leaves_the_others_for_later(alone, folder):
    ended(begin(folder, "compute", "shared.yaml", "--output", "run", "--shard", "2/3"))
    process = begin(folder, "solve", "run")
    assert "run `compute`" in process.communicate(timeout=600)[1] and process.returncode == 2
    ended(begin(folder, "compute", "shared.yaml", "--output", "run"))
    require_same(alone, folder)


@pytest.mark.parametrize("executor", ["processes", "dask"])
def test_workers_killed_at_random_change_nothing(alone, folder, executor, faults):
    if executor == "dask":
        pytest.importorskip("distributed", reason="Dask is not installed: pip install 'cntk-bench[cluster]'")
    run, dice = folder / "run", random.Random(0)
    process = begin(folder, "compute", "shared.yaml", "--output", "run", "--executor", executor,
                    "--set", "compute.workers=2")  # fmt: skip
    killed, before = set(), 0
    while len(killed) < 3 and process.poll() is None:
        found = lines(run) if (run / "gram.zarr" / FOLDER).exists() else {}
        done = sum(map(len, found.values()))
        if killed and done < before + 8:  # or one tile could be in flight at every kill, and then is given up
            time.sleep(0.02)
            continue
        alive = [pid for pid, tiles in found.items() if pid not in killed and len(tiles) > dice.randrange(8)]
        for pid in alive[:1]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                break
            killed.add(pid)
            before = done
        time.sleep(0.02)
    said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    faults(f"SIGKILL of a worker at a random moment ({executor})", len(killed))
    assert killed and "a worker was lost" in said[1]
    assert "workers lost: " in ended(begin(folder, "status", "run"))
    times = [tile for tiles in lines(run).values() for tile in tiles]
    # 55 tiles of training pairs and 40 of test images. Only tiles in flight were computed again, three for
    # each worker; while one restarts, Dask may have given all of them to the other.
    flying = 3 if executor == "processes" else 3 * 2
    assert len(set(times)) == 95 and len(times) - 95 <= flying * len(killed)
    require_same(alone, folder)


@pytest.mark.parametrize("signum, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_end_it_keeps_what_its_workers_have_done(alone, folder, signum, code, faults):
    faults(f"{signum.name} while workers compute (processes)")
    run = folder / "run"
    arguments = ["compute", "shared.yaml", "--output", "run", "--executor", "processes"]
    process = begin(folder, *arguments, "--set", "compute.workers=2")
    while not (run / "gram.zarr" / FOLDER).exists() or sum(map(len, lines(run).values())) < 5:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signum)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == code and "finished tiles are stored" in said and "lost" not in said
    first = lines(run)
    assert not [pid for pid in first if Path(f"/proc/{pid}").exists()]
    ended(begin(folder, *arguments))
    times = [tile for tiles in lines(run).values() for tile in tiles]
    assert len(times) == len(set(times)) == 95 and sum(map(len, first.values())) < 95
    require_same(alone, folder)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", "1/99999999999"])
def test_what_is_no_share_is_refused(folder, text):
    process = begin(folder, "compute", "shared.yaml", "--shard", text)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 2 and "give a share such as 1/4" in said and not (folder / "runs").exists()


def test_shares_are_even_and_leave_nothing_out():
    plan = Plan(1000, 300, 7, 2)
    numbers = {part: layout.within(plan, part, None) for part in PARTS}
    for n in (1, 2, 7, 1000):
        shares = [layout.share(numbers, i, n) for i in range(1, n + 1)]
        for part in PARTS:
            np.testing.assert_array_equal(np.concatenate([s[part] for s in shares]), numbers[part])
        sizes = [sum(map(len, s.values())) for s in shares]
        assert max(sizes) - min(sizes) <= 1


def test_shares_that_are_ended_in_the_middle_cost_their_tiles_in_flight(alone, folder, faults):
    """A different signal ends each; another share does not notice, and a later process computes the rest."""
    run, usual = folder / "run", ("compute", "shared.yaml", "--output", "run", "--shard")
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    for signum in signals:
        faults(f"{signum.name} of a share in the middle, beside others (--shard)")
    *some, last = (begin(folder, *usual, f"{i}/4") for i in (1, 2, 3, 4))
    left = dict(zip(some, signals, strict=True))
    while left:
        found = lines(run) if (run / "gram.zarr" / FOLDER).exists() else {}
        for process in [process for process in left if found.get(process.pid)]:
            process.send_signal(left.pop(process))
        time.sleep(0.002)
    for process, signum in zip(some, signals, strict=True):
        said = process.communicate(timeout=600)[1]
        assert process.returncode == (-signum if signum == signal.SIGKILL else 128 + signum), said
        assert signum == signal.SIGKILL or "finished tiles are stored" in said
    ended(last)
    kept = sum(map(len, lines(run).values()))
    assert 23 + 3 <= kept < 95 and len(lines(run)[last.pid]) in (23, 24)
    ended(begin(folder, "compute", "shared.yaml", "--output", "run"))
    times = [tile for tiles in lines(run).values() for tile in tiles]
    assert len(times) == len(set(times)) == 95
    require_same(alone, folder)
