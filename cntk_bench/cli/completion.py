"""Shell completion of configs, runs, their columns, and the keys of --set.

The user waits for it at each press of Tab, so nothing slow is imported: keys are parsed from the source of
the sections instead of taken from their classes, whose libraries take half a second to load.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

if TYPE_CHECKING:
    import ast

PACKAGE = Path(__file__).parents[1]
CONFIG = "config.yaml"  # in every run directory
MOST = 1000  # most runs, or paths, that are looked at

Items = list[CompletionItem]


class _Bash(BashComplete):
    """Click's completion, without a space after what can be continued: KEY= and FOLDER/."""

    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)", "COMPREPLY+=($value); [[ $value == *[=/] ]] && compopt -o nospace"
    )


class _Zsh(ZshComplete):
    """The same for zsh; fish does so by itself."""

    source_template = ZshComplete.source_template.replace(
        "compadd -U -V unsorted -a completions",
        "local -a open=(${(M)completions:#*[=/]}) closed=(${completions:#*[=/]})\n"
        "        [[ -z $open ]] || compadd -U -S '' -V unsorted -a open\n"
        "        [[ -z $closed ]] || compadd -U -V unsorted -a closed",
    )


add_completion_class(_Bash)
add_completion_class(_Zsh)


def configs(_context: click.Context, _parameter: click.Parameter, begun: str) -> Items:
    """Complete names of shipped configs, YAML files, and folders, which may contain some."""
    from cntk_bench.system import resources

    files = [path for path in _paths(begun) if path.endswith(("/", ".yaml", ".yml"))]
    return _items([*resources.configs(), *files], begun)


def runs(_context: click.Context, _parameter: click.Parameter, begun: str) -> Items:
    """Complete run directories: those in ./runs, and those that begin so; if none, folders."""
    folders = [path for path in _paths(begun) if path.endswith("/")]
    found = [path[:-1] for path in folders if Path(path, CONFIG).is_file()]
    return _items(dict.fromkeys([*_runs(), *found]), begun) or _items(folders, begun)


def columns(_context: click.Context, _parameter: click.Parameter, begun: str) -> Items:
    """Complete columns of the run named on the command line; without one, of all runs in ./runs."""
    # The context is no help: click drops arguments if an option lacks its value.
    line = split_arg_string(os.environ.get("COMP_WORDS", ""))
    named = [word for word in line if Path(word, CONFIG).is_file()]
    return _items(dict.fromkeys(name for run in named or _runs() for name in _columns(run)), begun)


def keys(_context: click.Context, _parameter: click.Parameter, begun: str) -> Items:
    """Complete keys of a config, each followed by = for its value."""
    return _items([f"{key}=" for key in config_keys()], begun)


def config_keys() -> list[str]:
    """Return dotted keys of a config that have values, parsed from the source of its sections."""
    import ast

    classes: dict[str, ast.ClassDef] = {}
    for path in (*sorted(PACKAGE.glob("config/*.py")), *sorted(PACKAGE.glob("columns/*.py"))):
        text = path.read_text(encoding="utf-8")
        if "(Section)" in text or "Sections)" in text:
            found = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
            classes |= {
                node.name: node for node in found if any("Section" in ast.unparse(b) for b in node.bases)
            }
    return [
        key for name in ("Config", "Sections") if name in classes for key in _fields(classes[name], classes)
    ]


def _fields(of: "ast.ClassDef", classes: "dict[str, ast.ClassDef]") -> Iterator[str]:
    import ast

    for node in of.body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and not node.target.id.startswith("_")
        ):
            name, inner = node.target.id, classes.get(ast.unparse(node.annotation))
            yield from [name] if inner is None else (f"{name}.{key}" for key in _fields(inner, classes))


def _runs() -> list[str]:
    from glob import glob

    return [str(Path(path).parent) for path in sorted(glob(f"runs/*/{CONFIG}"))[:MOST]]


def _columns(run: str) -> list[str]:
    from cntk_bench.config import yaml12
    from cntk_bench.errors import UserError
    from cntk_bench.system.files import read_plain

    try:
        asked: Any = yaml12.read(read_plain(Path(run, CONFIG), yaml12.MOST_BYTES), run)
        return [name for name in asked["kernel"]["columns"] if isinstance(name, str)]
    except (OSError, UserError, LookupError, TypeError):
        return []


def _paths(begun: str) -> list[str]:
    """Return paths that begin with `begun`; folders end with a slash."""
    from glob import escape, glob

    return [f"{path}/" if Path(path).is_dir() else path for path in sorted(glob(f"{escape(begun)}*"))[:MOST]]


def _items(words: Any, begun: str) -> Items:
    return [CompletionItem(word) for word in words if word.startswith(begun)]
