"""Paths as people give them: a ~ for a home directory, and bytes that need not be text in any encoding.

In the process a path is a string in the file system's encoding, which the locale decides. In a config,
which any locale must read alike, it is UTF-8. A byte that the encoding does not know is the lone
surrogate that Python has for it, U+DC80 to U+DCFF, in both.
"""

import os

from cntk_bench.errors import UserError
from cntk_bench.text import short


def expanded(path: str) -> str:
    """The path with a leading ~ or ~user replaced by that home directory.

    Raises
    ------
    UserError
        If it is empty, cannot be a path, or the user is unknown.
    """
    if not path:
        raise UserError("it is empty: give a path, such as . for the current folder")
    if "\0" in path:
        raise UserError("it holds a null character, which no path can: leave that out")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise UserError(f"{short(path)} has a character that no path here can have: give another") from None
    found = os.path.expanduser(path)
    if found.startswith("~") and found == path:
        user = path.partition("/")[0]
        raise UserError(
            f"{short(user)} is the home of nobody known here: give the whole path, or ./{short(user)} "
            "for a folder of that name"
        )
    return found


def current() -> str | None:
    """The current folder; None where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def to_utf8(text: str) -> str:
    """A string of the process (an argument, a path) as UTF-8 has it; the same where the locale's is UTF-8."""
    try:
        return os.fsencode(text).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # it has characters that are not from the locale
        return text


def from_utf8(text: str) -> str:
    """A path as UTF-8 has it, as a string of the process.

    Raises
    ------
    ValueError
        If it has a lone surrogate that does not stand for a byte.
    """
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))
