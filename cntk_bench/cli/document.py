"""The one JSON document that a command prints with --json, instead of its lines.

Its keys, whatever the command:

    format      version of these keys; a command may get more keys without a new number
    command     the command's name, or null if none was recognised
    version     of cntk-bench
    exit_code   that of the process
    error       null, or the message of what ended the command; a line for each of several mistakes
    messages    the last `MOST` warnings, a line each, as on standard error

and the command's own keys, present if it got that far (`add`). Numbers that are not finite are null.
"""

import json
from collections import deque
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

FORMAT = 1
MOST = 1000
OPTION = "--json"
_PLAIN = ("--help", "-h", "--version")  # what these print is for people alone


class _Document:
    def __init__(self, command: str | None) -> None:
        self.command = command
        self.facts: dict[str, Any] = {}
        self.messages: deque[str] = deque(maxlen=MOST)


_open: _Document | None = None


@contextmanager
def opened(arguments: Sequence[str], commands: Container[str]) -> Iterator[None]:
    """Collect facts while this is open, if the arguments ask for a document; `commands`: known names."""
    global _open
    before = _open
    wanted = OPTION in arguments and not any(word in arguments for word in _PLAIN)
    _open = _Document(next((word for word in arguments if word in commands), None)) if wanted else None
    try:
        yield
    finally:
        _open = before


def asked() -> bool:
    """Whether a document is printed instead of lines."""
    return _open is not None


def add(**facts: Any) -> None:
    """Add facts to the document, if there is one: plain or NumPy values, paths, or what has a str."""
    if _open is not None:
        _open.facts |= facts


def message(line: str) -> None:
    """Put a line that went to standard error into the document, if there is one."""
    if _open is not None:
        _open.messages.append(line)


def text(code: int, error: str | None = None) -> str:
    """Return the document as JSON."""
    from cntk_bench import __version__
    from cntk_bench.records.record import plain

    assert _open is not None
    head: dict[str, Any] = {"format": FORMAT, "command": _open.command, "version": __version__}
    head |= {
        "exit_code": code,
        "error": error and error.removeprefix("error: "),
        "messages": list(_open.messages),
    }
    return json.dumps(plain(head | _open.facts), indent=2, allow_nan=False, default=str)
