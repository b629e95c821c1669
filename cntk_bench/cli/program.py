"""The group of all commands, and `call`, which turns whatever happens into one line and an exit code."""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout, suppress

import click
from click.shell_completion import shell_complete

from cntk_bench import __version__
from cntk_bench.cli import (
    analyses,
    bench,
    comparing,
    configs,
    converge,
    document,
    failures,
    figures,
    info,
    logfile,
    page,
    plan,
    results,
    stages,
    streams,
)
from cntk_bench.system import files, libraries

NAME = "cntk-bench"
COMPLETION = "_CNTK_BENCH_COMPLETE"


class _Group(click.Group):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands with their whole first sentence, which click's own would cut off."""
        said = {name: " ".join((command.help or "").split()) for name, command in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl([(name, said[name].partition(". ")[0].rstrip(".")) for name in sorted(said)])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl(list(failures.EXIT_CODES.items()))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=NAME)
def cli() -> None:
    """Exact convolutional neural tangent kernels and their accuracy, depth by depth.

    `run` does everything; the other commands do its steps one by one, or analyse its results.
    """


for room in (stages, results, figures, page, comparing, analyses, converge, plan, bench, info, configs):
    for command in room.COMMANDS:
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
    with (
        logfile.kept(arguments),
        document.opened(arguments, cli.commands),
        streams.logged(),
        files.no_write_by_others(),
    ):
        try:
            return _ended(list(arguments))
        finally:
            streams.drain()


def _ended(arguments: list[str]) -> int:
    """Run a command and return its exit code, however it ends; print and log the reason."""
    try:
        code = _invoke(arguments)
        if document.asked():
            streams.put(document.text(code))
    except (Exception, KeyboardInterrupt) as error:
        message, code = failures.message_and_code(error)
        if "--debug" in arguments and not isinstance(error, click.ClickException | click.exceptions.Exit):
            logfile.end(1, message, error)
            raise
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            message = error.format_message()
        if message is not None:
            streams.complain_at_length(message)
        if document.asked():
            with suppress(OSError, ValueError):  # writing it may be what failed
                streams.put(document.text(code, message))
        logfile.end(code, message, error)
        return code
    logfile.end(code)
    return code


def _invoke(arguments: list[str]) -> int:
    if instruction := os.environ.get(COMPLETION):
        try:
            return shell_complete(cli, {}, NAME, COMPLETION, instruction)
        except (KeyError, ValueError):  # the shell's variables are not there, or are nonsense
            return 1
    # Keep what libraries print out of a document.
    with redirect_stdout(sys.stderr) if document.asked() else nullcontext():
        # Not click's own main, which prints an empty line when interrupted.
        with cli.make_context(NAME, arguments) as context:
            return cli.invoke(context) or 0
