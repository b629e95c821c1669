"""Several machines simulated on one by kernel namespaces: own host names, networks, process numbers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from cntk_bench.backends.cpu import compilation

KINDS = {
    "another network and host name": ("--uts", "--net"),
    "process numbers of its own": ("--pid", "--mount-proc"),
}


def missing():
    """Why there can be none here; empty if there can be."""
    if not shutil.which("unshare"):
        return "there is no unshare here (Debian: util-linux)"
    every = [option for kind in KINDS.values() for option in kind]
    done = subprocess.run(["unshare", *every, "--fork", "true"], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"name spaces are not permitted here: {done.stderr.strip()}"


def command(kind, name, *arguments):
    """The command line to run a command on such a machine; `name` is its host name if it has its own."""
    named = f"hostname {name} && " if "--uts" in KINDS[kind] else ""
    return [
        "unshare",
        *KINDS[kind],
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        f'{named}exec "$@"',
        "sh",
        *arguments,
    ]


def begin(kind, name, folder, *arguments, **environment):
    """Start the program on a machine that has its own home, in a folder that all machines share."""
    home = Path(folder) / f"home-{name}"
    home.mkdir(exist_ok=True)
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        # Otherwise each machine would compile for minutes.
        "NUMBA_CACHE_DIR": str(next(compilation.folders())),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    program = (sys.executable, "-m", "cntk_bench", *map(str, arguments))
    return subprocess.Popen(
        command(kind, name, *program), cwd=folder, env={**os.environ, **own, **environment}, **pipes
    )
