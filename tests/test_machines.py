"""Two machines work on one run on a shared disk: neither mistakes the other's things for its own.

They differ in host name, network and home, or they have the same process numbers.
"""

import json
import signal
import time
from collections import Counter

import machines
import pytest
from machines import KINDS
from test_shards import CONFIG, alone, folder, lines, matrices, require_same  # noqa: F401

from cntk_bench.executors.workers import AHEAD
from cntk_bench.grams.journal import FOLDER

pytestmark = pytest.mark.skipif(bool(machines.missing()), reason=machines.missing())

TILES = 95
FLYING = 2 * AHEAD  # tiles in flight of one coordinator with two workers
COMMAND = ("run", "shared.yaml", "--output", "run", "--executor", "processes", "--set", "compute.workers=2")


def both(kind, folder):  # noqa: F811
    return [machines.begin(kind, name, folder, *COMMAND) for name in ("one", "other")]


def computed(run):
    """For each tile, how often it was computed."""
    files = (run / "gram.zarr" / FOLDER).glob("*.jsonl")
    texts = [line for file in files for line in file.read_text().split("\n") if line.endswith("}")]
    return Counter(json.loads(line)["tile"] for line in texts)


def ended(process, codes=(0,)):
    said = process.communicate(timeout=600)
    assert process.returncode in codes, said
    return said


@pytest.mark.parametrize("kind", KINDS)
def test_two_coordinators_at_one_moment_are_one_process(alone, folder, kind, faults):  # noqa: F811
    faults(f"two coordinators at one moment, each on a machine with {kind} (processes)")
    for out, err in map(ended, both(kind, folder)):
        assert out.split("\n\nAll results")[0] == alone[0] and err.count("\n") <= 2, err
    times, run = computed(folder / "run"), folder / "run"
    # At the end, each may have tiles in flight that the other computes, too; more begin between two looks.
    assert len(times) == TILES and times.total() - TILES <= 3 * FLYING, times.total()
    stages = json.loads((run / "record.json").read_text())["stages"]
    calls = [stage for stage in stages if stage["stage"] == "compute"]
    assert len(calls) == 2 and all(stage["seconds"] for stage in calls)
    hosts = {file.name.rsplit("-", 2)[0] for file in (run / "gram.zarr" / FOLDER).iterdir()}
    if "--uts" in KINDS[kind]:
        assert hosts == {"one", "other"}
    else:  # both machines have the same name, and both coordinators are process 1
        assert len(hosts) == 1
        assert calls[0]["process"] == calls[1]["process"] and calls[0]["call"] != calls[1]["call"]
    require_same(alone, folder)


def test_two_writers_with_one_process_number_have_a_journal_each(alone, folder, faults):  # noqa: F811
    """Each share is process 1 of its machine, and both machines have one name."""
    faults("two shares at one moment, each process 1 on a machine of the same name (--shard)")
    share = ("compute", "shared.yaml", "--output", "run", "--shard")
    shares = [
        machines.begin("process numbers of its own", name, folder, *share, part)
        for name, part in (("one", "1/2"), ("other", "2/2"))
    ]
    for process in shares:
        ended(process)
    times, run = computed(folder / "run"), folder / "run"
    assert len(times) == times.total() == TILES
    writers = [file.name.rsplit("-", 1)[0] for file in (run / "gram.zarr" / FOLDER).iterdir()]
    assert len(writers) == 2 and writers[0] == writers[1] and writers[0].endswith("-1"), writers
    require_same(alone, folder)


def test_a_machine_that_is_gone_costs_what_it_had_in_flight(alone, folder, faults):  # noqa: F811
    faults("one of two machines is gone, with all of its processes")
    one, other = both("process numbers of its own", folder)
    run = folder / "run"
    while not (run / "gram.zarr" / FOLDER).exists() or computed(run).total() < 10:
        assert one.poll() is None and other.poll() is None
        time.sleep(0.02)
    before = set(computed(run))
    one.send_signal(signal.SIGKILL)
    ended(one, (-signal.SIGKILL,))
    ended(other)
    times = computed(run)
    assert len(times) == TILES and times.total() - TILES <= 3 * FLYING
    assert all(times[tile] <= 2 for tile in before)
    require_same(alone, folder)
