"""A small run, what must hold for it after any fault, and the counts of survived faults."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fault_table
import numpy as np
import zarr
from command import Commands, Done

CONFIG = """\
name: small
dataset: {name: digits, train: 24, test: 10}
kernel: {columns: [CNTK-V, CNN-GP-V], depths: [3]}
compute: {tile: 8, backend: cpu}
"""
TILES = 12
INTERRUPTED = (130, 143)  # exit codes: 128 plus the signal's number


@dataclass
class Bench:
    """Where faults are injected.

    commands : the command line.
    folder : holds the runs of one test.
    config : the path of a config.
    whole : the directory of a finished run of that config.
    many : roughly how many faults of a kind are injected.
    counts : for each kind, how many were injected and what went wrong, kept until reported.
    node : pytest's item of the test.
    """

    commands: Commands
    folder: Path
    config: Path
    whole: Path
    many: int
    counts: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    node: Any = None

    def copy(self, name: str = "run") -> Path:
        """A fresh copy of the finished run."""
        run = self.folder / name
        shutil.rmtree(run, ignore_errors=True)
        return shutil.copytree(self.whole, run, symlinks=True)

    def begun(self, tiles: int = 5, name: str = "run") -> Path:
        """A fresh run in which only this many tiles are finished."""
        run = self.copy(name)
        for stale in ("solves", "solutions", "report"):
            shutil.rmtree(run / stale)
        (log,) = (run / "gram.zarr" / "journals").iterdir()
        log.write_text("\n".join([line for line in log.read_text().split("\n") if line][:tiles] + [""]))
        return run

    def compute(self, run: Path, **more) -> Done:
        return self.commands.call("compute", self.config, "--output", run, **more)

    def choose(self, number: int, rng: np.random.Generator) -> list[int]:
        """The numbers of the calls, out of `number`, that shall fail: `many` of them, or all."""
        return sorted(rng.choice(np.arange(1, number + 1), min(self.many, number), replace=False).tolist())

    def survive(self, kind: str, what: str, check: Callable[[], str | None]) -> None:
        """Count one injection; `check` returns what went wrong, or None."""
        number, wrong = self.counts.setdefault(kind, (0, []))
        problem = check()
        if problem:
            wrong.append(f"{what}: {problem}")
        self.counts[kind] = (number + 1, wrong)

    def report(self, kind: str, section: str = "one process") -> None:
        """Add this kind to the table, and fail the test if any of its injections was not survived."""
        number, wrong = self.counts.pop(kind)
        fault_table.note(self.node, section, kind, number, number - len(wrong))
        assert number, f"no injection of the kind {kind}"
        assert not wrong, f"{len(wrong)} of {number} {kind}:\n" + "\n".join(wrong[:20])


def manners(done: Done, allowed: tuple[int, ...] = (0, 2)) -> str | None:
    """What is wrong with how a command ended; these rules hold whatever was done to it."""
    if done.status not in allowed:
        return f"exit {done.status} of {' '.join(done.arguments)[-200:]}: {done.stderr[-300:]}"
    if "Traceback" in done.stderr or "fault of cntk-bench" in done.stderr:
        return f"not foreseen: {done.stderr[-400:]}"
    lines = done.stderr.splitlines()
    if done.status == 2 and not lines:
        return "exit 2 without a word"
    if any(len(line) > 320 for line in lines) or len(lines) > 4:
        return f"too long: {len(lines)} lines, {max(map(len, lines))} characters"
    if not (done.stdout + done.stderr).replace("\n", "").isprintable():
        return f"control characters: {done.stdout + done.stderr!r}"[:300]
    if ": None" in done.stderr:
        return f"no reason given: {done.stderr}"
    return None


def grams(run: Path) -> dict[str, np.ndarray]:
    group = zarr.open_group(run / "gram.zarr", mode="r")
    return {part: group[part][:] for part in ("train", "test")}


def same_bits(run: Path, whole: Path) -> str | None:
    """None if a run has the same numbers as the finished one, to the last bit; else what is wrong."""
    ours, theirs = grams(run), grams(whole)
    equal = all(np.array_equal(ours[part], theirs[part], equal_nan=True) for part in ours)
    return None if equal else "other numbers"


def logged(run: Path) -> list[str]:
    """Names of the tiles that the journals list as finished; torn lines are skipped."""
    names = []
    for log in sorted((run / "gram.zarr" / "journals").glob("*")):
        for line in log.read_text("utf-8", "replace").split("\n"):
            try:
                names.append(json.loads(line)["tile"])
            except (ValueError, TypeError, KeyError):
                pass
    return names


def predictions(run: Path) -> dict[str, list[int]]:
    """What the last solve predicts."""
    return {
        file.name: np.load(file)["predicted"].tolist() for file in sorted((run / "solutions").glob("*.npz"))
    }
