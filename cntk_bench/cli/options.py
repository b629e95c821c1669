"""Arguments and options that several commands have, and what they stand for."""

import logging
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cntk_bench.errors import UserError
from cntk_bench.system import paths
from cntk_bench.text import short

if TYPE_CHECKING:
    from cntk_bench.runs.config import Config
    from cntk_bench.runs.directory import Run

Command = TypeVar("Command", bound=Callable[..., Any])
LEAST_MEMORY = 2**30  # bytes of address space; with fewer, Numba's compiler was found not to load


def common(command: Command) -> Command:
    """Options of every command."""

    def begin(_context: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
        if verbose:
            logging.getLogger("cntk_bench").setLevel(logging.INFO)
        _require_memory()

    command = click.option(
        "--verbose", is_flag=True, expose_value=False, callback=begin, help="Say what is being done."
    )(command)
    return click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")(command)


def configured(command: Command) -> Command:
    """A config file, its overrides, and the run directory."""
    command = click.option(
        "--output", metavar="DIR", help="Run directory.  [default: runs/NAME, NAME from the config]"
    )(command)
    command = click.option(
        "--backend", metavar="NAME", help="Where to compute; the same as --set compute.backend=NAME."
    )(command)
    return common(click.argument("config")(overridable("dataset.train=200")(command)))


def executor(command: Command) -> Command:
    """Who computes."""
    text = "Who computes tiles; the same as --set compute.executor=NAME."
    return click.option("--executor", metavar="NAME", help=text)(command)


def share(text: str | None, what: str) -> tuple[int, int]:
    """(i, n) of a share such as 1/4, of which None is the whole."""
    if text is None:
        return 1, 1
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    i, n = map(int, found.groups()) if found else (0, 0)
    if not 1 <= i <= n:
        raise UserError(f"{what} {short(text)}: give a share such as 1/4, the first of four")
    return i, n


def overridable(example: str) -> Callable[[Command], Command]:
    """Overrides of the config's keys."""
    text = f"Override a key, such as {example}. May be given again."
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=text)


def path(text: str, what: str) -> Path:
    """A path given as the option or argument `what`; ~ stands for the home directory."""
    try:
        return Path(paths.expanded(text))
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


def donor(command: Command) -> Command:
    """Another run to take from."""
    text = "Take from RUN what is the same: tiles of the same images and readouts."
    return click.option("--from", "donor", metavar="RUN", help=text)(command)


def run_directory(text: str, what: str = "RUN") -> "Run":
    """The run in the directory given as the option or argument `what`."""
    from cntk_bench.runs.directory import Run

    return Run(path(text, what))


def settings(
    config_file: str,
    overrides: tuple[str, ...],
    backend: str | None,
    output: str | None,
    executor: str | None = None,
) -> "tuple[Config, Run]":
    """The config, and the run that it names."""
    from cntk_bench.runs import config
    from cntk_bench.runs.directory import Run

    if backend is not None:
        overrides = (*overrides, f"compute.backend={backend}")
    if executor is not None:
        overrides = (*overrides, f"compute.executor={executor}")
    where = None if output is None else path(output, "--output")
    found = config.load(located(config_file), overrides)
    return found, Run(where or Path("runs", paths.from_utf8(found.name))).asked(found)


def located(config_file: str) -> Path:
    """The file of the argument CONFIG, which may be the mere name of one that ships."""
    from cntk_bench.runs import config

    return config.located(path(config_file, "CONFIG"))


def _require_memory() -> None:
    """Refuse a limit in which the libraries cannot be loaded: some then print lines of their own, or hang."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEMORY:
        raise UserError(
            f"the limit on memory is {limit / 2**20:,.0f} MiB, and the libraries need more: raise it "
            f"(ulimit -v) to {LEAST_MEMORY // 2**20:,} MiB at least"
        )
