"""What an executor costs per tile: the time that tasks take which only sleep, beyond their sleep.

    python scripts/executor_overhead.py --tasks 100000 --output results

Of each executor: the time from the first to the last of many tasks that sleep, less what they slept divided
by the workers, per task. So a tile's overhead is known whatever it computes; a tile should take a hundred
times that.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cntk_bench import executors
from cntk_bench.executors import Workers
from cntk_bench.records import provenance


@dataclass(frozen=True)
class Sleep:
    """A job whose tasks sleep for some seconds each."""

    seconds: float

    @contextmanager
    def worker(self) -> Iterator[Callable]:
        yield self._start

    def _start(self, task: int) -> Callable[[], Future]:
        return self._end

    def _end(self) -> Future:
        time.sleep(self.seconds)
        done: Future = Future()
        done.set_result(None)
        return done


def measured(name: str, tasks: int, seconds: float, workers: int) -> dict:
    """Overhead of an executor, in seconds per task: from the first task's end to the last one's."""
    times: list[float] = []
    executors.run(
        name, Sleep(seconds), range(tasks), lambda task: times.append(time.perf_counter()), lambda: False,
        Workers(({},) * workers),
    )  # fmt: skip
    spent = times[-1] - times[0]
    rest = spent * workers - (tasks - 1) * seconds
    return {
        "executor": name,
        "workers": workers,
        "tasks": tasks,
        "seconds_slept": seconds,
        "seconds": spent,
        "overhead_per_task": rest / (tasks - 1) / workers,
        "tile_for_one_percent": 100 * rest / (tasks - 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=0.001)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--executors", default="local,processes,dask")
    parser.add_argument("--output", type=Path, help="folder for executor-overhead.json and .md")
    asked = parser.parse_args()
    if asked.tasks < 2:
        parser.error("--tasks: give at least 2, between whose ends the time is measured")
    if asked.output:  # fails now, not after the measurements
        asked.output.mkdir(parents=True, exist_ok=True)
    names = asked.executors.split(",")
    found = [
        measured(name, asked.tasks, asked.seconds, 1 if name == "local" else asked.workers) for name in names
    ]
    lines = [
        "| executor | workers | tasks | overhead per task | tile whose overhead is 1 % |",
        "|---|---:|---:|---:|---:|",
    ]
    for one in found:
        lines.append(
            f"| {one['executor']} | {one['workers']} | {one['tasks']:,} "
            f"| {1e3 * one['overhead_per_task']:.2f} ms | {one['tile_for_one_percent']:.2f} s |"
        )
    print("\n".join(lines))
    if asked.output:
        stamp = provenance.stamp()
        (asked.output / "executor-overhead.json").write_text(
            json.dumps({"made": stamp, "measured": found}, indent=2) + "\n"
        )
        machine = stamp["machine"]
        head = (
            f"# What an executor costs per tile\n\n{machine['cores']} cores of {machine['cpu']}, commit "
            f"{stamp['commit']}; tasks that sleep for {1e3 * asked.seconds:g} ms,\n"
            "`scripts/executor_overhead.py`. Overhead: time per task beyond its sleep.\n\n"
        )
        (asked.output / "executor-overhead.md").write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    from executor_overhead import main as importable  # workers look for `Sleep` in a module of that name

    importable()
