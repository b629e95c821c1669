"""The real command line in a process forked from a warm one: milliseconds instead of seconds.

Run as a program, with `shim.c` preloaded, it imports and compiles everything once. For every JSON line on its
standard input it then forks a child, which arms the shim and calls `cntk_bench.cli.console` as the installed
command does. The answer is a JSON line: the child's exit code, minus the signal that ended it, or "stopped"
where a fault stops it; in that case the next line lets it go on.

Its arguments are further modules to import, and constants to set, such as package.module.NAME=0.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import warm_program  # noqa: E402


def main():
    warm_up()
    requests, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    child = 0
    for line in requests:
        request = json.loads(line)
        if "goes_on" in request:
            os.kill(child, signal.SIGCONT)
        else:
            child = os.fork()
        if child == 0:
            requests.close()
            answers.close()
            command(request)
        answers.write(json.dumps({"status": wait(child, request)}) + "\n")
        answers.flush()


def warm_up():
    """Import what every command imports, and compile the kernels that the runs use."""
    from cntk_bench.report import sketch

    # Drawing the figures of HTML pages takes seconds; placeholders are used.
    sketch.drawn = lambda make, kind: ("data:image/png;base64,", 1, 1)
    for argument in sys.argv[1:]:
        name, _, value = argument.partition("=")
        if value:
            module, _, constant = name.rpartition(".")
            setattr(importlib.import_module(module), constant, float(value))
        else:
            importlib.import_module(name)
    warm_program.compile_kernels()


def placeholders(stem, make, kinds=("png", "svg")):
    """Write files like `report.style.save`, without drawing anything."""
    from cntk_bench.system import files

    for kind in kinds:
        files.write_atomic(f"{stem}.{kind}", b"a figure")
    return [Path(f"{stem}.{kind}") for kind in kinds]


def command(request):
    """Run the command in the child, which prints to files; never returns."""
    from cntk_bench.report import style

    os.setsid()
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
    for number in request["closed"]:  # as in an interpreter started without these streams
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)
    for name, most in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    if not request["drawn"]:
        style.save = placeholders
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests run in the background have it ignored
    sys.argv = ["cntk-bench", *request["arguments"]]
    shim = ctypes.CDLL(None)
    if request["fault"]:
        calls, part, first, last, what = request["fault"]
        shim.arm(calls.encode(), os.fsencode(part), ctypes.c_long(first), ctypes.c_long(last), what)
    code = 1
    try:
        code = warm_program.ended()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 30))
        matched = shim.matched()
        shim.arm(b"", b"", ctypes.c_long(0), ctypes.c_long(0), 0)
        with open(request["matched"], "w") as file:
            file.write(str(matched))
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


def wait(child, request):
    """Exit code of the child, minus its signal, "stopped", or "hangs" after `patience` seconds."""
    limit = time.monotonic() + request["patience"]
    while True:
        done, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if done:
            return "stopped" if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
        if time.monotonic() > limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hangs"
        time.sleep(0.002)


if __name__ == "__main__":
    main()
