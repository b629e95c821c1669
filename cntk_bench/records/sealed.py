"""JSON files of results, each with the digest of what it says: a changed digit would be another result."""

import json
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.records import record
from cntk_bench.system.files import read_plain, write_json
from cntk_bench.text import short

SEAL = "sha256"


def write(path: Path, facts: dict) -> dict:
    """Write facts, whole, and give them as they are read again; what is not a finite number becomes null."""
    facts = record.plain(facts)
    write_json(path, facts | {SEAL: record.digest(facts)})
    return facts


def read(path: Path) -> dict | None:
    """The facts; None where they are not as they were written, or by a version that knew no digests.

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
