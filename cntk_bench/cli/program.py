"""The group of all commands, and one call of it: whatever happens, one line and an exit code."""

import logging
import os
from collections.abc import Sequence

import click
from click.shell_completion import shell_complete

from cntk_bench import __version__
from cntk_bench.cli import analyses, costs, failures, finite, results, stages, streams
from cntk_bench.system import files, libraries

NAME = "cntk-bench"
COMPLETION = "_CNTK_BENCH_COMPLETE"


class _Group(click.Group):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl(list(failures.EXIT_CODES.items()))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=NAME)
def cli() -> None:
    """Exact convolutional neural tangent kernels and their accuracy, depth by depth.

    `run` does everything; the other commands are its steps, each useful alone.
    """


for command in (*stages.COMMANDS, *results.COMMANDS, *analyses.COMMANDS, *finite.COMMANDS, *costs.COMMANDS):
    cli.add_command(command)


def call(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; with --debug, an error is raised instead.

    Parameters
    ----------
    arguments : sequence of str
        Those after the program's name.
    """
    streams.prepare()
    libraries.own_process()
    with streams.logged(), files.not_for_all():
        try:
            code = _invoke(list(arguments))
        except (Exception, KeyboardInterrupt) as error:
            if "--debug" in arguments and not isinstance(error, click.ClickException | click.exceptions.Exit):
                raise
            if isinstance(error, click.exceptions.NoArgsIsHelpError):
                streams.complain_at_length(error.format_message())
                return error.exit_code
            message, code = failures.told(error)
            if message is not None:
                streams.complain(message)
        finally:
            streams.drain()
        return code


def _invoke(arguments: list[str]) -> int:
    if instruction := os.environ.get(COMPLETION):
        try:
            return shell_complete(cli, {}, NAME, COMPLETION, instruction)
        except (KeyError, ValueError):  # the shell's variables are not there, or are nonsense
            return 1
    logging.getLogger("cntk_bench").setLevel(logging.WARNING)
    # Not click's own main, which prints an empty line where it is interrupted.
    with cli.make_context(NAME, arguments) as context:
        return cli.invoke(context) or 0
