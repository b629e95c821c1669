"""The command line: parses, calls, prints.

`main` is the program, and `program.call` one command of it within a process that goes on. Nothing is
imported here, so that Ctrl-C is looked after before anything that takes time is.
"""

import sys


def main() -> None:
    """Run the command of sys.argv; raises SystemExit with one of `failures.EXIT_CODES`."""
    last = sys._getframe(1).f_globals.get("__name__") == "__main__"  # called by a script, which ends with it
    try:
        from cntk_bench.system import interruption

        with interruption.handled():
            from cntk_bench.cli.program import call

            code = call(sys.argv[1:])
        if last:
            interruption.end_with(code)
    except KeyboardInterrupt as stopped:  # while the program starts or ends
        from cntk_bench.cli import failures, streams

        message, code = failures.told(stopped)
        streams.complain_at_length(message or "interrupted")
    sys.exit(code)
