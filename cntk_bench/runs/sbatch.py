"""The script of a Slurm job array that computes a run: each of its jobs does a share of the tiles."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MARGIN = 60  # seconds before a job's limit of time at which it is asked to end
OPTIONS = {
    "partition": "--partition={}",
    "account": "--account={}",
    "gres": "--gres={}",
    "time": "--time={}",
    "cores": "--cpus-per-task={}",
}


def script(asked: Mapping[str, Any], name: str, command: Iterable[str], run: Path, shards: int) -> str:
    """The text of the script.

    Parameters
    ----------
    asked : mapping
        The section `compute.slurm`.
    name : str
        Of the run.
    command : iterable of str
        The program and arguments that compute the run, without --shard.
    run : Path
        The run's directory.
    shards : int
        Jobs of the array.
    """
    directives = [OPTIONS[key].format(asked[key]) for key in OPTIONS if asked[key] is not None]
    directives += [f"--mem={asked['memory'].removesuffix('B')}", f"--array=1-{shards}", "--requeue"]
    directives += [f"--signal=B:TERM@{MARGIN}", "--open-mode=append", *asked["directives"]]
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name=cntk-bench-{''.join(c if c.isalnum() else '-' for c in name)}",
        *(f"#SBATCH {directive}" for directive in directives),
        f"# Each of {shards} jobs computes a share of the tiles. The images must have been fetched before.",
        "# A job that is cancelled, preempted or out of time keeps its finished tiles: submit this again for",
        f"# the rest, until `cntk-bench status {shlex.quote(str(run))}` says that all are done. Then:",
        f"#     cntk-bench solve {shlex.quote(str(run))}",
        "umask 077",
        *asked["environment"],
        f'exec {shlex.join(command)} --shard "$SLURM_ARRAY_TASK_ID/{shards}"',
    ]
    return "\n".join(lines) + "\n"
