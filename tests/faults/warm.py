"""The real command line in a process that is forked from a warm one: milliseconds instead of seconds.

Run as a program, with `shim.c` preloaded, it imports and compiles everything once. Then, for every JSON line
on its standard input, it forks a child that arms the shim and calls `cntk_bench.cli.main` as the installed
command does, and answers with a JSON line: the child's exit code, or minus its signal, and the calls matched.
"""

import ctypes
import json
import os
import signal
import sys
import time


def main():
    warm_up()
    requests, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for line in requests:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            requests.close()
            answers.close()
            command(request)
        answers.write(json.dumps({"status": wait(child, request)}) + "\n")
        answers.flush()


def warm_up():
    """Import what every command imports, and compile the kernels that the runs use."""
    import numpy as np
    import sklearn.datasets  # noqa: F401
    from matplotlib.backends import backend_agg, backend_svg  # noqa: F401

    from cntk_bench import Readout, cli, gram, pipeline  # noqa: F401

    images = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype("f4")
    gram(images, readouts=[Readout("ntk", "v", 3), Readout("ntk", "gap", 3)], backend="cpu")


def command(request):
    """Never returns. What the child prints goes to files, as its standard streams."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    sys.argv = ["cntk-bench", *request["arguments"]]
    from cntk_bench import cli

    shim = ctypes.CDLL(None)
    if request["fault"]:
        calls, part, first, last, what = request["fault"]
        shim.arm(calls.encode(), os.fsencode(part), ctypes.c_long(first), ctypes.c_long(last), what)
    code = 1
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        if request["fault"]:
            shim.arm(b"", b"", ctypes.c_long(0), ctypes.c_long(0), 0)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        os._exit(code)


def wait(child, request):
    """The child's exit code, or minus the signal that ended it; it may take `patience` seconds."""
    limit = time.monotonic() + request["patience"]
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hangs"
        time.sleep(0.002)


if __name__ == "__main__":
    main()
