"""What the fault suite drives: the command line with one fault in it, in a fork of a warm process."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
COUNT = 10**9  # no command makes so many calls: they are only counted, and none fails


@dataclass(frozen=True)
class Fault:
    """What happens at calls `first` to `last` among `calls` whose path contains `part`
    (or ends with it, if `part` ends with "$").

    what : if positive, the errno with which the call fails; if negative, minus the signal sent before it.
    """

    calls: str
    part: str
    first: int
    last: int
    what: int

    def __str__(self):
        what = errno.errorcode[self.what] if self.what > 0 else signal.Signals(-self.what).name
        return f"{what} at {self.calls} {self.first}{' and later' if self.last > self.first else ''}"


@dataclass(frozen=True)
class Done:
    """How a command ended: `status` is its exit code, minus the signal that killed it, or "hangs".

    matched : the number of calls that matched a fault's names and path.
    """

    arguments: tuple[str, ...]
    status: int | str
    stdout: str
    stderr: str
    matched: int


class Commands:
    """Runs commands one after another; their output goes through files in `folder`.

    `warm`: arguments of `warm.py`.
    """

    def __init__(self, folder: Path, shim: Path, patience: float = 30.0, warm: tuple[str, ...] = ()):
        self.folder, self.patience = folder, patience
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "LD_PRELOAD": str(shim)}
        command = [sys.executable, str(HERE / "warm.py"), *warm]
        pipe = subprocess.PIPE
        self._warm = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def close(self):
        self._warm.communicate()

    def call(
        self,
        *arguments,
        cwd: Path | None = None,
        fault: Fault | None = None,
        closed: tuple[int, ...] = (),
        limits: dict[str, int] | None = None,
        meanwhile: Callable[[], object] | None = None,
        drawn: bool = False,
        **environment: str,
    ) -> Done:
        """Run `cntk-bench ARGUMENTS`.

        closed : standard streams that are closed when it starts.
        limits : names of resource limits, such as RLIMIT_NOFILE, and their values.
        meanwhile : called while a SIGSTOP fault holds the command still.
        drawn : whether the table's figure is drawn, half of a solve's time; else a placeholder is written.
        """
        out, err, count = (self.folder / name for name in ("stdout", "stderr", "matched"))
        for file in (out, err, count):
            file.unlink(missing_ok=True)
        arguments = tuple(map(str, arguments))
        request = {
            "arguments": arguments,
            "folder": str(cwd or self.folder),
            "environment": environment,
            "stdout": str(out),
            "stderr": str(err),
            "matched": str(count),
            "closed": closed,
            "limits": limits or {},
            "drawn": drawn,
            "fault": fault and [fault.calls, fault.part, fault.first, fault.last, fault.what],
            "patience": self.patience,
        }
        status = self._ask(request)
        if status == "stopped":
            meanwhile()
            status = self._ask({"goes_on": True, "patience": self.patience})
        texts = (file.read_text("utf-8", "replace") for file in (out, err))
        return Done(arguments, status, *texts, int(count.read_text()) if count.exists() else 0)

    def _ask(self, request: dict) -> int | str:
        self._warm.stdin.write(json.dumps(request) + "\n")
        self._warm.stdin.flush()
        return json.loads(self._warm.stdout.readline())["status"]


def build_shim(folder: Path) -> Path:
    """The preloaded library, compiled for this machine."""
    library = folder / "shim.so"
    compiler = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O1"]
    subprocess.run([*compiler, "-o", str(library), str(HERE / "shim.c")], check=True)
    return library
