"""The command line: parses, calls, prints.

`console` is the installed command, `main` the same for a script that goes on afterwards, and `program.call`
runs one command within a process that goes on. Nothing slow is imported at the top, so that Ctrl-C is
handled before such imports begin.
"""

import sys


def console() -> None:
    """Run `main` and end the process with it: a signal during Python's shutdown changes nothing."""
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

        message, code = failures.message_and_code(stopped)
        streams.complain_at_length(message or "interrupted")
    sys.exit(code)
