"""The one JSON document that a command prints with --json, instead of its lines.

Its keys, whatever the command:

    format      version of these keys; a new one may add keys to a command without another number
    command     the command's name, or null where none was known
    version     of cntk-bench
    exit_code   as the process has it
    error       null, or what ended the command, as standard error has it; several mistakes are lines of it
    messages    warnings, as standard error has them, a line each; the last `MOST`

and the command's own, which are there if it came so far (`add`). Numbers that are not finite are null.
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
    """Gather facts until the end, if the arguments ask for them; `commands` are those that there are."""
    global _open
    before = _open
    wanted = OPTION in arguments and not any(word in arguments for word in _PLAIN)
    _open = _Document(next((word for word in arguments if word in commands), None)) if wanted else None
    try:
        yield
    finally:
        _open = before


def asked() -> bool:
    """Whether a document is printed, and no lines."""
    return _open is not None


def add(**facts: Any) -> None:
    """Put facts into the document, if there is one: plain values, NumPy's, paths, or what has a str."""
    if _open is not None:
        _open.facts |= facts


def message(line: str) -> None:
    """Put a line that went to standard error into the document, if there is one."""
    if _open is not None:
        _open.messages.append(line)


def text(code: int, error: str | None = None) -> str:
    """The document."""
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
