"""JSON files of results, each with a digest of its content, so that a changed digit is noticed."""

import json
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.records import record
from cntk_bench.system.files import read_plain, write_json
from cntk_bench.text import short

SEAL = "sha256"


def write(path: Path, facts: dict) -> dict:
    """Write facts atomically, and return them as `read` would; numbers that are not finite become None."""
    facts = record.plain(facts)
    write_json(path, facts | {SEAL: record.digest(facts)})
    return facts


def read(path: Path) -> dict | None:
    """Read the facts; None if they are not as written, or were written by a version without digests.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    try:
        facts = json.loads(read_plain(path))
        return facts if facts.pop(SEAL) == record.digest(facts) else None
    except OSError as error:
        raise UserError(f"cannot read {short(str(path))} ({error.strerror}): make it readable") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
