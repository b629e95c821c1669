"""What the fault suite drives: the command line, warm or as a new process, with one fault in it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


@dataclass(frozen=True)
class Fault:
    """What happens at calls `first` .. `last` of one of `calls` on a path that contains `part`.

    what : the errno that the call fails with; or, below 0, the signal that the process gets before it.
    """

    calls: str
    part: str
    first: int
    last: int
    what: int


@dataclass(frozen=True)
class Done:
    """How a command ended: `status` is its exit code, minus the signal that killed it, or "hangs"."""

    arguments: tuple[str, ...]
    status: int | str
    stdout: str
    stderr: str


@dataclass
class Commands:
    """Runs commands one after another; `folder` receives what they print."""

    folder: Path
    shim: Path
    patience: float = 60.0
    _warm: subprocess.Popen | None = field(default=None, repr=False)

    def __enter__(self):
        environment = self.environment() | {"LD_PRELOAD": str(self.shim)}
        command = [sys.executable, str(HERE / "warm.py")]
        pipe = subprocess.PIPE
        self._warm = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        return self

    def __exit__(self, *_):
        self._warm.stdin.close()
        self._warm.wait()
        self._warm.stdout.close()

    def environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONFAULTHANDLER": ""}

    def call(self, *arguments, cwd=None, fault: Fault | None = None, **environment) -> Done:
        """Run `cntk-bench ARGUMENTS` in a fork of the warm process."""
        out, err = self.folder / "stdout", self.folder / "stderr"
        arguments = tuple(map(str, arguments))
        request = {
            "arguments": arguments,
            "folder": str(cwd or self.folder),
            "environment": environment,
            "stdout": str(out),
            "stderr": str(err),
            "fault": fault and [fault.calls, fault.part, fault.first, fault.last, fault.what],
            "patience": self.patience,
        }
        self._warm.stdin.write(json.dumps(request) + "\n")
        self._warm.stdin.flush()
        status = json.loads(self._warm.stdout.readline())["status"]
        return Done(arguments, status, *(file.read_text("utf-8", "replace") for file in (out, err)))

    def start(self, *arguments, **kwargs) -> subprocess.Popen:
        """Start `cntk-bench ARGUMENTS` as a process of its own, cold."""
        command = [sys.executable, "-m", "cntk_bench", *map(str, arguments)]
        return subprocess.Popen(command, env=self.environment(), **kwargs)


def build_shim(folder: Path) -> Path:
    """The preloaded library, compiled for this machine."""
    library = folder / "shim.so"
    compiler = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O1"]
    subprocess.run([*compiler, "-o", str(library), str(HERE / "shim.c")], check=True)
    return library
