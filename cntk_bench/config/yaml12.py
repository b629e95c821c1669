"""YAML 1.2 as configs need it: the core schema, of bounded size, without surprising features.

PyYAML reads YAML 1.1, in which 0100 is 64, 1:40 is 100, 1e-6 is text and `no` is false. So only its
parser is used; what a plain word means is decided here, by the core schema (chapter 10.3 of YAML 1.2.2).
Anchors, aliases, merge keys and tags are refused: no config needs them, and with them a short text could
expand without end.
"""

import codecs
import re
from collections.abc import Iterator
from typing import Any

import yaml

from cntk_bench.errors import UserError
from cntk_bench.text import short

MOST_BYTES = 100_000  # a config has some hundreds; this many are read within a second
MOST_LEVELS = 20  # lists and mappings inside each other
MOST_DIGITS = 400
# Parts of the parser's messages, and their remedies; the last is for all else.
_REMEDIES = (
    (r"character '\t'", "indent with spaces instead of tabs"),
    ("mapping values", "begin a new line for each key, and put a value that has a colon into quotes"),
    ("", "look at the brackets, quotes and indentation here and above"),
)

_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL, _HEXADECIMAL = re.compile(r"0o[0-7]+"), re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
NOTHING = ("~", "null", "Null", "NULL")
_WORDS = dict.fromkeys(("", *NOTHING))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)

# Characters that YAML does not allow, except lone surrogates, which stand for bytes of a file name.
_IMPOSSIBLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\udc80-\udcff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Parser(yaml.SafeLoader):
    NON_PRINTABLE = _IMPOSSIBLE  # type: ignore[misc]  # only the stubs call it final


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Only double quotes preserve every character; elsewhere U+0085 ends a line.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent)
# Quote text that either version of YAML would take for a number.
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(f"^(?:{_OCTAL.pattern}|{_INTEGER.pattern})$"), list("-+0123456789")
)
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+.0123456789")
)


class _Refused(Exception):
    def __init__(self, event: yaml.Event, reason: str) -> None:
        super().__init__(reason)
        assert event.start_mark is not None  # it was parsed from a text
        self.line = event.start_mark.line + 1


def read(text: bytes | str, origin: str, lines: dict[str, int] | None = None) -> Any:
    """Parse a YAML text to None, booleans, numbers, strings, lists, and dicts with strings as keys.

    Parameters
    ----------
    text : bytes or str
        Bytes are a file's (UTF-8; UTF-16 and UTF-32 with their mark), a string is an option's value.
    origin : str
        Where it comes from; errors begin with it.
    lines : dict, optional
        Filled with the line, from 1, of every mapping's keys, by their dotted names.

    Raises
    ------
    UserError
        If it is not YAML, or uses an unsupported feature; the error names the line of a file.
    """
    many = isinstance(text, bytes)
    try:
        text = _decoded(text) if isinstance(text, bytes) else text
        if len(text) > MOST_BYTES:
            raise UserError(f"{origin}: too long for a config: use at most {MOST_BYTES:,} characters")
        if found := _IMPOSSIBLE.search(text):
            line = f" line {text.count(chr(10), 0, found.start()) + 1}" if many else ""
            raise UserError(f"{origin}{line}: not valid YAML: remove the character {short(found[0])}")
        return _document(yaml.parse(text, _Parser), {} if lines is None else lines)
    except _Refused as refused:
        line = f" line {refused.line}" if many else ""
        raise UserError(f"{origin}{line}: not valid YAML: {refused}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if many and mark else ""
        problem = short(error.problem, 120)
        remedy = next(words for part, words in _REMEDIES if part in problem)
        raise UserError(f"{origin}{line}: not valid YAML: {problem}: {remedy}") from None
    except (yaml.YAMLError, ValueError, OverflowError, IndexError) as error:
        # PyYAML lets some of Python's own errors through, such as for "\UFFFFFFFF"
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{origin}: not valid YAML: {short(reason, 120)}") from None


def write(value: Any) -> str:
    """Format a value as YAML that versions 1.1 and 1.2 read alike."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9)


def inline(value: Any) -> str:
    """Format a value as `write` does, but in one line: lists and mappings in brackets."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9,
                     default_flow_style=True)  # fmt: skip
    return text.removesuffix("\n").removesuffix("\n...")


def _decoded(raw: bytes) -> str:
    encoding = "utf-8-sig"  # the mark, if there is one, left out
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "utf-32"
    elif raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = 1 + raw.count(b"\n", 0, error.start)
        raise ValueError(
            f"byte {error.start}, in line {line}, is not {encoding.removesuffix('-sig')} text: "
            "save the file as UTF-8"
        ) from None


def _document(events: Iterator, lines: dict[str, int]) -> Any:
    next(events)  # the stream's start
    start = next(events)
    if isinstance(start, yaml.StreamEndEvent):
        return None
    if start.version not in (None, (1, 2)):
        raise _Refused(start, "it is said to be of another version: remove the line that begins with %YAML")
    found = _node(next(events), events, (), lines)
    next(events)  # the document's end
    rest = next(events)
    if not isinstance(rest, yaml.StreamEndEvent):
        raise _Refused(rest, "a second document begins here (---): keep one")
    return found


def _node(event: Any, events: Iterator, place: tuple[str, ...], lines: dict[str, int]) -> Any:
    """Parse the value that begins with an event; `place`: the keys that lead to it, "" for each list."""
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise _Refused(event, "anchors (&) and aliases (*) are not supported: write the values out, or quote")
    if event.tag is not None:
        raise _Refused(event, "tags (!) are not supported: leave them out, or quote the value")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event) if event.implicit[0] else event.value
    if len(place) == MOST_LEVELS:
        raise _Refused(event, f"more than {MOST_LEVELS} levels of lists and mappings: use fewer")
    if isinstance(event, yaml.SequenceStartEvent):
        items: list = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            items.append(_node(item, events, (*place, ""), lines))
        return items
    mapping: dict = {}
    while not isinstance(key := next(events), yaml.MappingEndEvent):
        name = _key(key, mapping)
        inner = (*place, name)
        lines[".".join(inner)] = key.start_mark.line + 1
        mapping[name] = _node(next(events), events, inner, lines)
    return mapping


def _key(event: Any, mapping: dict) -> str:
    if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
        raise _Refused(
            event, "a key must be a plain word: leave out anchors, aliases, tags, lists and mappings"
        )
    if event.value == "<<":
        raise _Refused(event, "merge keys (<<) are not supported: write the keys out")
    if not event.value.isprintable():
        raise _Refused(event, f"the key {short(repr(event.value))} is not possible: use a plain word")
    if event.value in mapping:
        raise _Refused(event, f"the key {short(repr(event.value))} is given twice: keep one")
    return event.value


def _scalar(event: Any) -> Any:
    text = event.value
    if text in _WORDS:
        return _WORDS[text]
    for pattern, base in ((_INTEGER, 10), (_OCTAL, 8), (_HEXADECIMAL, 16)):
        if pattern.fullmatch(text):
            if len(text) > MOST_DIGITS:
                raise _Refused(event, f"the number {short(text, 30)} has {len(text):,} digits: use fewer")
            return int(text if base == 10 else text[2:], base)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "").lower())
    return text
