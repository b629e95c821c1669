"""Parts of pages that are generated from the program itself: commands, configs and their keys, exit codes.

A page marks the place with a comment on a line of its own, such as <!-- generated: commands -->. So these
facts are written only once; a key whose meaning is not described stops the build.
"""

import inspect
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import BaseModel
from sphinx.application import Sphinx

MARK = re.compile(r"^<!-- generated: ([a-z ]+) -->$", re.MULTILINE)
MEANINGS = Path(__file__).parents[1] / "reference" / "meanings.yaml"


def setup(app: Sphinx) -> dict[str, bool]:
    """Replace the marks whenever a page is read."""
    app.connect("source-read", _filled)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _filled(app: Sphinx, name: str, source: list[str]) -> None:
    if MARK.search(source[0]):
        app.env.note_dependency(str(MEANINGS))
        source[0] = MARK.sub(lambda found: PARTS[found[1]](), source[0])


def commands() -> str:
    """Every command: its arguments, what it does, and its options."""
    from cntk_bench.cli.program import NAME, cli

    return "\n".join(_command(NAME, name, cli.commands[name]) for name in sorted(cli.commands))


def _command(program: str, name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"{program} {name}", max_content_width=100)
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    rows = [record for option in options if (record := option.get_help_record(context))]
    lines = [f"## {name}", "", "```text", command.get_usage(context).removeprefix("Usage: "), "```", ""]
    text = inspect.cleandoc(command.help or "")
    lines += [re.sub(r"(?m)^(For example: )(.+)$", r"\1`\2`", _joined(text)), ""]
    lines += ["| option | what it does |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{option}` | {_cell(said)} |" for option, said in rows), ""])


def _joined(text: str) -> str:
    """Each paragraph on one line, so that no line of prose can be mistaken for a list item."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n")).replace("*", r"\*")


def exit_codes() -> str:
    """The exit codes as a table."""
    from cntk_bench.cli.failures import EXIT_CODES

    rows = [f"| {code} | {_cell(meaning)} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(["| exit code | meaning |", "|---|---|", *rows])


def configs() -> str:
    """The configs that ship as a table, from the comment at the head of each file."""
    from cntk_bench.system import resources

    lines = ["| name | what it is | time |", "|---|---|---|"]
    for name in resources.configs():
        text = (resources.folder("configs") / f"{name}.yaml").read_text("utf-8")
        about, said = _head(text)
        lines.append(f"| `{name}` | {_cell(about)} | {_cell(said['Time'])} |")
    return "\n".join(lines)


def _head(text: str) -> tuple[str, dict[str, str]]:
    """The comment at the head of a config: its first sentences, then what it says by names such as Time."""
    comment = "\n".join(line[2:] for line in takewhile(lambda line: line.startswith("# "), text.splitlines()))
    about, *parts = re.split(r"(?m)^([A-Z][a-z]+): {2,}", comment)
    return about, dict(zip(parts[::2], parts[1::2], strict=True))


def keys() -> str:
    """Every key of a config, section by section in the meanings' order: default, values, meaning."""
    from cntk_bench.config.config import Config

    meanings, lines = yaml.safe_load(MEANINGS.read_text("utf-8")), []
    order = list(dict.fromkeys(key.partition(".")[0] for key in meanings))
    sections = [name for name, field in Config.model_fields.items() if _is_section(field.annotation)]
    for name in sorted(sections, key=lambda name: (name not in order, name in order and order.index(name))):
        lines += _section(name, Config.model_fields[name].annotation, meanings)
    if meanings:
        raise ValueError(f"{MEANINGS.name} has keys that no config has: {', '.join(sorted(meanings))}")
    return "\n".join(lines)


def _section(path: str, model: type[BaseModel], meanings: dict[str, str]) -> list[str]:
    about = _joined(inspect.cleandoc(model.__doc__ or ""))
    lines = [f"## {path}", "", about, "", "| key | default | may be | meaning |", "|---|---|---|---|"]
    inner: list[str] = []
    plain = model().model_dump(mode="json")
    for name, field in model.model_fields.items():
        key = f"{path}.{name}"
        if _is_section(field.annotation):
            inner += _section(key, field.annotation, meanings)  # type: ignore[arg-type]
            continue
        if key not in meanings:
            raise ValueError(f"{MEANINGS.name} does not say what {key} means")
        meaning, default = meanings.pop(key), _inline(plain[name])
        lines.append(f"| `{name}` | `{default}` | {_cell(field.description or '')} | {_cell(meaning)} |")
    return [*lines, "", *inner]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _inline(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("*", r"\*")


PARTS = {"commands": commands, "configs": configs, "exit codes": exit_codes, "keys": keys}
