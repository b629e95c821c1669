"""Paths as users give them: with ~ for a home directory, and bytes that are invalid in any encoding.

In the process, a path is a string decoded from the file system's encoding, which the locale decides. In a
config, which must be read alike in any locale, it is UTF-8. In both, a byte that the encoding cannot decode
is a lone surrogate, U+DC80 to U+DCFF (Python's "surrogateescape").
"""

import os
from pathlib import PurePath

from cntk_bench.errors import UserError
from cntk_bench.text import short


def expanded(path: str) -> str:
    """Replace a leading ~ or ~user in a path by the home directory.

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
    if not path.startswith("~") and str(PurePath(path)).startswith("~"):
        # pathlib drops the ./ of ./~name, a folder's name, which would be expanded where it is seen next.
        return os.path.join(current() or os.curdir, path)
    found = os.path.expanduser(path)
    if found.startswith("~") and found == path:
        user = path.partition("/")[0]
        raise UserError(
            f"{short(user)} is the home of nobody known here: give the whole path, or ./{short(user)} "
            "for a folder of that name"
        )
    return found


def current() -> str | None:
    """The current folder; None if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def to_utf8(text: str) -> str:
    """Convert a string of the process (an argument, a path) to UTF-8; unchanged if the locale is UTF-8."""
    try:
        return os.fsencode(text).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # it has characters that the locale cannot encode
        return text


def from_utf8(text: str) -> str:
    """Convert a path from UTF-8 to a string of the process; the inverse of `to_utf8`.

    Raises
    ------
    ValueError
        If it has a lone surrogate that does not stand for a byte.
    """
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))
