"""Script of a Slurm job array that computes a run, in which each job does a share of the tiles."""

import math
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MARGIN = 60  # seconds before its time limit at which a job is asked to end
OPTIONS = {
    "partition": "--partition={}",
    "account": "--account={}",
    "gres": "--gres={}",
    "time": "--time={}",
    "cores": "--cpus-per-task={}",
}
MIB = {"MB": 1, "GB": 2**10, "TB": 2**20}  # as Slurm counts


def script(
    asked: Mapping[str, Any], name: str, command: Iterable[str], run: Path, folder: Path, shards: int
) -> str:
    """Return the text of the script.

    Parameters
    ----------
    asked : mapping
        The section `compute.slurm`.
    name : str
        Name of the run.
    command : iterable of str
        The program and arguments that compute the run, without --shard.
    run : Path
        The run's directory.
    folder : Path
        The jobs' working directory, wherever they are submitted; relative paths in the config start here.
    shards : int
        Number of jobs in the array.
    """
    directives = [OPTIONS[key].format(asked[key]) for key in OPTIONS if asked[key] is not None]
    directives += [f"--mem={_memory(asked['memory'])}", f"--array=1-{shards}", "--requeue"]
    directives += [f"--signal=B:TERM@{MARGIN}", "--open-mode=append", *asked["directives"]]
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name=cntk-bench-{''.join(c if c.isalnum() else '-' for c in name)}",
        *(f"#SBATCH {directive}" for directive in directives),
        f"# Each of {shards} jobs computes a share of the tiles. The images must have been fetched before.",
        "# A job that is cancelled, preempted or out of time keeps its finished tiles: submit this again for",
        f"# the rest, until `cntk-bench status {quoted(str(run))}` says that all are done. Then:",
        f"#     cntk-bench solve {quoted(str(run))}",
        "umask 077",
        f"cd -- {quoted(str(folder))} || exit 2",
        *asked["environment"],
        f'exec {" ".join(map(quoted, command))} --shard "$SLURM_ARRAY_TASK_ID/{shards}"',
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Quote a word for bash, on one line and in ASCII whatever it contains."""
    if text.isascii() and text.isprintable():
        return shlex.quote(text)
    plain = set(range(32, 127)) - set(b"'\\")
    return "$'" + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in os.fsencode(text)) + "'"


def _memory(text: str) -> str:
    """Convert an amount of memory such as 1.5GB for Slurm, which accepts no fractions."""
    return f"{math.ceil(float(text[:-2]) * MIB[text[-2:]])}M"
