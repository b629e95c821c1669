"""Write a config as a YAML file that explains itself: every key with its value, and what it may be."""

from textwrap import wrap
from typing import Any

from pydantic import BaseModel

from cntk_bench.config import config, yaml12
from cntk_bench.config.config import Config
from cntk_bench.system import paths

WIDTH = 100  # characters of a line of comments, about

HEAD = """\
All keys of a config of cntk-bench. A key or section that is left out has its default, which is the value
shown here unless the comment states another. With `extends: OTHER`, a file or the name of a config that ships
with the program, it has the value from OTHER instead.
"""


def written(settings: Config) -> str:
    """The config as YAML with comments, made from the sections' own defaults and descriptions.

    `config.load` reads it back to an equal Config.
    """
    lines = [*_comment(HEAD), f"name: {yaml12.inline(settings.name)}  # names the run and its directory"]
    for name in config.section_order(settings):
        section = getattr(settings, name)
        lines += ["", *_comment(_first(section)), f"{name}:", *_keys(section, "  ")]
    return "\n".join(lines) + "\n"


def _keys(section: BaseModel, indent: str) -> list[str]:
    plain = section.model_dump(mode="json")
    lines: list[str] = []
    for name, field in type(section).model_fields.items():
        value, default = getattr(section, name), field.default
        if isinstance(value, BaseModel):
            lines += [*_comment(_first(value), indent), f"{indent}{name}:", *_keys(value, f"{indent}  ")]
            continue
        changed = (
            "" if value == default else f"; default {_shown(type(section)().model_dump(mode='json')[name])}"
        )
        lines += _comment(f"{field.description}{changed}", indent)
        lines.append(f"{indent}{name}: {_shown(plain[name])}")
    return lines


def _shown(value: Any) -> str:
    return yaml12.inline(paths.to_utf8(value) if isinstance(value, str) else value)


def _first(section: BaseModel) -> str:
    """Return the first paragraph of a section's docstring."""
    return (type(section).__doc__ or "").partition("\n\n")[0]


def _comment(text: str, indent: str = "") -> list[str]:
    """Text as comments."""
    return [f"{indent}# {line}" for line in wrap(" ".join(text.split()), WIDTH, break_on_hyphens=False)]
