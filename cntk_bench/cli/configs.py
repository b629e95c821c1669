"""Commands about configs: init."""

import os
import shlex

import click

from cntk_bench.cli import completion, document, options, streams
from cntk_bench.errors import UserError
from cntk_bench.text import short


@click.command()
@click.argument("file", default="config.yaml")
@click.option("--from", "base", metavar="CONFIG", shell_complete=completion.configs,
              help="Start from this config instead of the defaults.")  # fmt: skip
@options.overridable("dataset.name=cifar10")
@options.common
def init(file: str, base: str | None, overrides: tuple[str, ...]) -> None:
    """Write FILE, a config with every key and a comment on its possible values.

    The run is named after the file. An existing file is not overwritten. FILE is config.yaml by default; if
    it is -, the config is printed.
    """
    from cntk_bench.config import config, names, template
    from cntk_bench.system.files import write_atomic

    printed = file == "-"
    target = options.path((base or "config") if printed else file, "FILE")
    overrides = (f"name={names.from_file(str(target))!r}", *overrides)
    settings = config.load(options.located(base) if base else None, overrides)
    text = template.written(settings)
    if printed:
        document.add(file=None, config=text)
        streams.say(text)
        return
    if os.path.lexists(target):
        raise UserError(
            f"{short(str(target))} exists already and is not overwritten: give another name, or remove it"
        )
    write_atomic(target, text)
    document.add(file=target, config=text)
    streams.say(f"written: {target}\n`cntk-bench plan {shlex.quote(str(target))}` tells what it would cost")


COMMANDS = (init,)
