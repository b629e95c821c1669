"""What a config file and its overrides say, before it is checked: values, and where each was set.

A file that says `extends: OTHER` starts from all that OTHER says: a path relative to the file itself, or the
name of a config that ships. What the file itself says takes precedence: mappings are merged key by key;
lists, numbers and words are replaced; null replaces a value like any other. A name is not inherited.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cntk_bench.config import names, yaml12
from cntk_bench.config.sections import SECRET
from cntk_bench.errors import UserError
from cntk_bench.system import paths, resources
from cntk_bench.system.files import read_plain
from cntk_bench.text import one_line, redacted, short

MOST_FILES = 10  # that extend one another
EXTENDS = "extends"


@dataclass
class Source:
    """Values, and where they were set.

    file : the config file, as messages name it.
    raw : nested mappings.
    lines : dotted key -> the file and line that have it, such as "run.yaml line 3".
    overrides : dotted key -> the option that set it, such as "--set dataset.train=200".
    mistakes : what is wrong with invalid overrides, each with its option.
    """

    file: str
    raw: dict
    lines: dict[str, str]
    overrides: dict[str, str] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)

    def place(self, key: str) -> str:
        """Return where a dotted key, or a part of it, was set: the last override, the line, or the file."""
        for name, option in reversed(self.overrides.items()):
            if f"{name}.".startswith(f"{key}.") or f"{key}.".startswith(f"{name}."):
                return option
        parts = key.split(".")
        above = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        return next((self.lines[name] for name in above if name in self.lines), self.file)

    def placed(self, wrong: Mapping[str, str]) -> list[str]:
        """Return what is wrong with keys, each after its place: in the files' order, then of overrides."""
        places = [self.file, *dict.fromkeys(self.lines.values()), *self.overrides.values()]
        told = [(self.place(key), problem) for key, problem in wrong.items()]
        return [": ".join(one) for one in sorted(told, key=lambda one: places.index(one[0]))]

    def override(self, text: str) -> None:
        """Apply an assignment such as "dataset.train=200", its value parsed as YAML, or note a mistake."""
        option = "--set" + (
            "" if SECRET.search(text) else f" {short(redacted(' '.join(text[:100].split())))}"
        )
        key, equals, value = text.partition("=")
        parts = key.split(".")
        odd = not key.isprintable() or " " in key or len(parts) > yaml12.MOST_LEVELS
        try:
            if not equals or not all(parts) or odd:
                raise UserError(f"{option}: expected key=value, such as dataset.train=200")
            if not value.strip():
                raise UserError(f"{option}: no value is given: write {short(key)}=null for nothing")
            if parts[0] == EXTENDS:
                raise UserError(f"{option}: {EXTENDS} stands in a file: give that file as CONFIG")
            given = yaml12.read(value, option)
            if given is None and value.strip() not in yaml12.NOTHING:  # a comment, say
                raise UserError(f"{option}: no value is given: write {short(key)}=null for nothing")
            if isinstance(given, str) and " #" in value.strip() and value.strip()[0] not in "'\"|>":
                raise UserError(
                    f"{option}: only {short(given)} is read, as # begins a comment: put the value in quotes"
                )
            self.raw = _assigned(self.raw, parts, given)
        except UserError as error:
            self.mistakes.append(str(error))
        else:
            self.overrides.pop(key, None)
            self.overrides[key] = option


def read(path: str | Path | None, overrides: Iterable[str] = ()) -> Source:
    """Read a config file (if any), what it extends, and overrides; a key's last override counts.

    Raises
    ------
    UserError
        If a file cannot be read, is no YAML, or no mapping.
    """
    raw, lines = ({}, {}) if path is None else _file(Path(path), ())
    raw = {"name": names.from_file(str(path or "config"))} | raw
    found = Source(short(str(path or "the config"), 100), raw, lines)
    for override in map(paths.to_utf8, overrides):
        found.override(override)
    return found


def located(path: Path) -> Path:
    """Return the path or, if it is just the name of a config that ships, that config's file."""
    if path.suffix or len(path.parts) > 1 or (path.exists() and not path.is_dir()):
        return path
    shipped = resources.folder("configs") / f"{path.name}.yaml"
    return Path(str(shipped)) if shipped.is_file() else path


def _remedy(path: Path) -> str:
    """Suggest what to do about an unreadable config; if it may be a name, also a config that ships."""
    if len(path.parts) != 1:
        return "give a YAML file"
    near = get_close_matches(path.stem, resources.configs(), n=1)
    return f"did you mean {near[0]}?" if near else "give a YAML file, or a config that `info` lists"


def _file(path: Path, above: tuple[Path, ...]) -> tuple[dict, dict[str, str]]:
    """Read a file and those that it extends: values, and where they were set; `above` extend it."""
    where = short(str(path), 100)
    try:
        text = read_plain(path, yaml12.MOST_BYTES)
    except OSError as error:
        raise UserError(
            f"cannot read the config {where} ({error.strerror or error}): {_remedy(path)}"
        ) from None
    except ValueError:  # a null character, or one that the locale's encoding does not have
        raise UserError(f"cannot read the config {where}: that cannot be a file's name here") from None
    numbers: dict[str, int] = {}
    raw = yaml12.read(text, where, numbers)
    if not isinstance(raw, dict):
        what = "nothing" if raw is None else show(raw)
        raise UserError(f"{where} is not a config: expected keys such as 'dataset:', found {what}")
    lines = {key: f"{where} line {number}" for key, number in numbers.items()}
    base = raw.pop(EXTENDS, None)
    if base is None:
        return raw, lines
    below, others = _extended(base, path, above, lines[EXTENDS])
    return _merged(below, raw), {key: line for key, line in others.items() if key not in lines} | lines


def _extended(base: Any, path: Path, above: tuple[Path, ...], place: str) -> tuple[dict, dict[str, str]]:
    """Read what a file extends; `place` is where it says so."""
    if not isinstance(base, str) or not base:
        raise UserError(
            f"{place}: {EXTENDS} is {show(base)}: expected a file, or the name of a config that ships"
        )
    named = Path(paths.expanded(paths.from_utf8(base)))
    beside = path.parent / named  # itself where it is absolute
    shipped = located(named)
    other = beside if beside.exists() and not (beside.is_dir() and shipped.is_file()) else shipped
    if not other.exists():
        raise UserError(
            f"{place}: {EXTENDS} is {show(base)}: there is no {short(str(beside))}, "
            f"and none of that name ships: {_remedy(named)}"
        )
    chain = (*above, path)
    if any(os.path.samefile(other, one) for one in chain):
        if os.path.samefile(other, path):
            raise UserError(f"{place}: {EXTENDS} is {show(base)}, this file itself: name another one")
        raise UserError(
            f"{place}: {EXTENDS} is {show(base)}, which extends this file: take one of the two lines out"
        )
    if len(chain) == MOST_FILES:
        raise UserError(f"{place}: more than {MOST_FILES} files extend one another: use fewer")
    try:
        below, lines = _file(other, chain)
    except UserError as error:
        raise UserError(
            str(error) if len(chain) > 1 else f"{one_line(error, 200)} (extended by {place})"
        ) from None
    below.pop("name", None)
    return below, lines


def _merged(below: Mapping, above: Mapping) -> dict:
    """Merge mappings key by key; any other value is taken from `above`."""
    inner = {
        key: _merged(below[key], value)
        for key, value in above.items()
        if isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
    }
    return {**below, **above, **inner}


def _assigned(mapping: Mapping, parts: list[str], value: Any) -> dict:
    """Return a copy of nested mappings with one value set, replacing any non-mapping on the way."""
    head, *rest = parts
    if rest:
        inner = mapping.get(head)
        value = _assigned(inner if isinstance(inner, Mapping) else {}, rest, value)
    return {**mapping, head: value}


def show(value: Any) -> str:
    """Format a value in a few characters, as in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return short(repr(value) if isinstance(value, str) else value)
