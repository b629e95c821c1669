"""The command line: parses, calls, prints.

`console` is the installed command, `main` the same for a script that goes on, and `program.call` one command
of it within a process that goes on. Nothing is imported here, so that Ctrl-C is looked after before anything
that takes time is.
"""

import sys


def console() -> None:
    """`main`, where the process ends with it: a signal that comes while Python tidies up changes nothing."""
    main(last=True)


def main(last: bool = False) -> None:
    """Run the command of sys.argv; raises SystemExit with one of `failures.EXIT_CODES`."""
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
