"""Arguments and options that several commands share, and how they are interpreted."""

import json
import os
import re
import resource
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cntk_bench.cli import completion, document, streams
from cntk_bench.errors import UserError
from cntk_bench.system import paths
from cntk_bench.text import short

if TYPE_CHECKING:
    from cntk_bench.config.config import Config
    from cntk_bench.records.directory import Run

Command = TypeVar("Command", bound=Callable[..., Any])
FORMATS = ("text", "markdown", "csv", "json", "latex")  # report.FORMATS, whose import would slow --help
MOVED = ("dataset.path", "dataset.labels")  # keys that tell where the data are now
LEAST_MEMORY = 2**30  # bytes of address space; with fewer, Numba's compiler was found not to load


def common(command: Command) -> Command:
    """Add the options of every command."""

    def begin(_context: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
        if verbose:
            streams.tell_more()
        _require_memory()

    command = click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=begin, help="Report what is being done."
    )(command)
    # `document.opened` looks for it, so that errors in the other options are reported as JSON, too.
    command = click.option(
        document.OPTION, is_flag=True, expose_value=False, help="Print one JSON document instead of lines."
    )(command)
    return click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")(command)


def configured(command: Command) -> Command:
    """Add a config file, its overrides, and the run directory."""
    command = click.option(
        "-o", "--output", metavar="DIR", help="Run directory.  [default: runs/NAME, NAME from the config]"
    )(command)
    command = click.option(
        "--backend", metavar="NAME", help="Where to compute; the same as --set compute.backend=NAME."
    )(command)
    argument = click.argument("config", shell_complete=completion.configs)
    return common(argument(overridable("dataset.train=200")(command)))


def of_run(command: Command) -> Command:
    """Add the argument RUN, an existing run directory."""

    def check(_context: click.Context, _parameter: click.Parameter, named: str) -> str:
        below = os.path.join("runs", named)
        known = "/" not in named and os.path.isfile(os.path.join(below, "config.yaml"))
        if known and not os.path.lexists(named):
            raise UserError(f"there is no {short(named)}: did you mean {short(below)}?")
        return named

    argument = click.argument("directory", metavar="RUN", shell_complete=completion.runs, callback=check)
    return common(argument(command))


def of_column(**more: Any) -> Callable[[Command], Command]:
    """Add the option --column; `more` is for `click.option`."""
    return click.option("--column", metavar="NAME", shell_complete=completion.columns, **more)


class Number(click.FloatRange):
    """A finite number in a range; `click.FloatRange` takes NaN, which is beyond no bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


def formatted(command: Command) -> Command:
    """Add the option --format of a printed table."""

    def check(_context: click.Context, _parameter: click.Parameter, form: str) -> str:
        if document.asked() and form not in ("text", "json"):
            raise UserError(f"--format {form} is no JSON: leave out --json, or --format")
        return form

    return click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        default="text",
        show_default=True,
        callback=check,
        help="Format of the table; json prints its rows alone, --json a whole document.",
    )(command)


def executor(command: Command) -> Command:
    """Add the option --executor."""
    text = "How tiles are distributed to workers; the same as --set compute.executor=NAME."
    return click.option("--executor", metavar="NAME", help=text)(command)


def share(text: str | None, what: str) -> tuple[int, int]:
    """Parse a share such as 1/4 into (i, n); None is the whole, (1, 1)."""
    if text is None:
        return 1, 1
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    i, n = map(int, found.groups()) if found else (0, 0)
    if not 1 <= i <= n:
        raise UserError(f"{what} {short(text)}: give a share such as 1/4, the first of four")
    return i, n


def overridable(example: str) -> Callable[[Command], Command]:
    """Add the option --set, which overrides keys of the config."""
    text = f"Override a key, such as {example}. May be repeated."
    return click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help=text, shell_complete=completion.keys
    )


def require_moved(overrides: tuple[str, ...], *sections: str) -> None:
    """Raise UserError if an override changes more than the data's location (`MOVED`) and these sections."""
    for override in overrides:
        key = override.partition("=")[0]
        if key not in MOVED and key.partition(".")[0] not in sections:
            may = [*MOVED, *(f"the keys of {section}" for section in sections)]
            raise UserError(f"--set {short(override)}: only {' and '.join(may)} can change here")


def assigned(key: str, value: Path) -> str:
    """The override that sets a key to a path, whatever characters it has."""
    return f"{key}={json.dumps(str(value), ensure_ascii=False)}"  # JSON is YAML, too


def path(text: str, what: str) -> Path:
    """Return the path given as the option or argument `what`, with ~ expanded."""
    try:
        return Path(paths.expanded(text))
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


def donor(command: Command) -> Command:
    """Add the option --from, a run to copy tiles from."""
    text = "Copy tiles of the same images and readouts from RUN instead of computing them."
    return click.option("--from", "donor", metavar="RUN", help=text, shell_complete=completion.runs)(command)


def run_directory(text: str, what: str = "RUN") -> "Run":
    """Return the run in the directory given as the option or argument `what`."""
    from cntk_bench.records.directory import Run

    return Run(path(text, what))


def settings(
    config_file: str,
    overrides: tuple[str, ...],
    backend: str | None,
    output: str | None,
    executor: str | None = None,
) -> "tuple[Config, Run]":
    """Load the config; return it and its run."""
    from cntk_bench.config import config
    from cntk_bench.records.directory import Run

    overrides = with_choices(overrides, backend, executor)
    where = None if output is None else path(output, "--output")
    found = config.load(located(config_file), overrides)
    return found, Run(where or Path("runs", paths.from_utf8(found.name))).asked(found)


def with_choices(overrides: tuple[str, ...], backend: str | None, executor: str | None) -> tuple[str, ...]:
    """Return the overrides with those that --backend and --executor stand for."""
    choices = {"compute.backend": backend, "compute.executor": executor}
    return (*overrides, *(f"{key}={value}" for key, value in choices.items() if value is not None))


def located(config_file: str) -> Path:
    """Return the file of the argument CONFIG, which may be just the name of one that ships."""
    from cntk_bench.config import source

    return source.located(path(config_file, "CONFIG"))


def _require_memory() -> None:
    """Refuse a memory limit too low for the libraries: some would print messages, or hang."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEMORY:
        raise UserError(
            f"the limit on memory is {limit / 2**20:,.0f} MiB, and the libraries need more: raise it "
            f"(ulimit -v) to {LEAST_MEMORY // 2**20:,} MiB at least"
        )
