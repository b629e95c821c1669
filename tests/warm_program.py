"""The program cntk-bench in processes that are forked from one that has imported and compiled everything.

Starting Python, and importing what most commands need, takes longer than most commands of the documentation.
`Warm` starts such a process, and `script` writes a command that asks it to run the program. As with the
installed command, it has the caller's arguments, folder, environment and standard streams; the command
ends with its exit code. If the caller changes PYTHONPATH, other modules may be meant, so the program is
started as usual.

Run as a program, with the path of a socket, this module is that process.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

CLIENT = """#!{python} -ISB
import json, os, socket, sys
if os.environ.get("PYTHONPATH") != {path!r}:
    os.execv({python!r}, [{python!r}, "-m", "cntk_bench", *sys.argv[1:]])
asked = json.dumps({{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}})
with socket.socket(socket.AF_UNIX) as server:
    server.connect({socket!r})
    socket.send_fds(server, [b"\\0"], [0, 1, 2])
    server.sendall(asked.encode() + b"\\n")
    status = int(server.makefile().readline())
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


class Warm:
    """The warm process, until `close`; its socket is in `folder`, whose path must be short."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self._socket, self._environment = folder / "program", environment
        command = [sys.executable, __file__, str(self._socket)]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
        while not self._socket.exists():
            assert self._process.poll() is None, "the program cannot be imported"
            time.sleep(0.05)

    def script(self) -> str:
        """The text of a command that behaves like cntk-bench."""
        path = self._environment.get("PYTHONPATH")
        return CLIENT.format(python=sys.executable, path=path, socket=str(self._socket))

    def close(self) -> None:
        """End the process; running commands are not interrupted."""
        self._process.terminate()
        self._process.wait()


def main() -> None:
    warm_up()
    signal.signal(signal.SIGCHLD, reap)
    path = sys.argv[1]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{path}-")
        server.listen(16)
        os.rename(f"{path}-", path)  # so the path exists only once it listens
        while True:
            asking, _ = server.accept()
            if os.fork() == 0:
                server.close()
                answer(asking)
            asking.close()


def warm_up() -> None:
    """Import what the commands in the documentation import, and compile."""
    import cntk_bench.estimators  # noqa: F401
    from cntk_bench.report import page  # noqa: F401

    with suppress(ImportError):
        import torch  # noqa: F401
    compile_kernels()


def compile_kernels() -> None:
    """Import what every command imports, and compile the kernels that most runs use."""
    import numpy as np
    import sklearn.datasets  # noqa: F401
    from matplotlib.backends import backend_agg, backend_svg  # noqa: F401

    import cntk_bench.cli.program  # noqa: F401
    from cntk_bench import Readout, gram
    from cntk_bench.costs import cost  # noqa: F401
    from cntk_bench.regression import prediction, ridge  # noqa: F401
    from cntk_bench.runs import access, compute, solve, status, verify  # noqa: F401

    images = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype("f4")
    gram(images, readouts=[Readout("ntk", "v", 3), Readout("ntk", "gap", 3)], backend="cpu")


def reap(*_: object) -> None:
    """Collect processes that have answered; their CPU time then counts as ours."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def answer(asking: socket.socket) -> None:
    """Run a command and tell the client how it ended; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(asking, 1, 3)
    request = json.loads(asking.makefile().readline())
    child = os.fork()
    if child == 0:
        asking.close()
        command(request, streams)
    _, status = os.waitpid(child, 0)
    asking.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def command(request: dict, streams: list[int]) -> None:
    """Run the program as the installed command does; never returns."""
    for number, handle in enumerate(streams):
        os.dup2(handle, number)
        os.close(handle)
    # As in a fresh interpreter: our streams remember whether earlier ones could seek.
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["cntk-bench", *request["arguments"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 1
    try:
        code = ended()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def ended() -> int:
    """Exit code of the program, called as by the installed command."""
    from cntk_bench import cli

    try:
        cli.console()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    return 1


if __name__ == "__main__":
    main()
