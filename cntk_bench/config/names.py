"""Names of runs, which are shown in tables and name the folders of runs."""

import re
import unicodedata
from pathlib import Path
from typing import Any

from cntk_bench.system.paths import to_utf8

MOST = 100  # characters
MOST_BYTES = 240  # in UTF-8; a folder's name may have 255
OTHERS = " .+-_"  # beside letters and digits


def checked(name: Any) -> str:
    """Return a valid name as it is.

    Raises
    ------
    ValueError
        If it is no string of at most `MOST` letters, digits and `OTHERS` that begins with one of the
        first two or with "_". Letters are those of any script, with the marks that belong to them.
    """
    if not isinstance(name, str) or not name or len(name) > MOST:
        raise ValueError
    if not all(map(_possible, name)) or not _first(name[0]) or len(name.encode()) > MOST_BYTES:
        raise ValueError
    return name


def from_file(path: str) -> str:
    """Derive a run's name from its config file's, with "-" for what a name cannot have."""
    stem = Path(unicodedata.normalize("NFC", to_utf8(path))).stem
    kept = "".join(c if _possible(c) else "/" for c in stem)  # no file name has it
    kept = re.sub(r" *(/ *)+", "-", kept)
    while kept and not _first(kept[0]):
        kept = kept[1:]
    return kept[:MOST].encode()[:MOST_BYTES].decode(errors="ignore").rstrip(" .-") or "run"


def _possible(character: str) -> bool:
    mark = unicodedata.category(character).startswith("M")
    return character.isalnum() or mark or character in OTHERS


def _first(character: str) -> bool:
    return character.isalnum() or character == "_"
