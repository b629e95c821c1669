"""Notebooks as they are committed: no outputs, no execution counts, no metadata of whoever ran them.

    python scripts/clean_notebooks.py docs/examples/*.ipynb          writes them so
    python scripts/clean_notebooks.py --check docs/examples/*.ipynb  names those that are not; exit code 1

Outputs are not committed because nothing would hold them to the code above them: they depend on libraries and
machine, and figures cannot be reviewed as text. The pages are built with outputs where they are asked for.
"""

import argparse
import json
from pathlib import Path
from typing import Any

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def cleaned(text: str) -> str:
    """A notebook's JSON, of nbformat 4.5, with only what is written by hand: cells, their ids and tags."""
    found = json.loads(text)
    if (found["nbformat"], found["nbformat_minor"]) < (4, 5):
        raise ValueError("it is older than nbformat 4.5, whose cells have ids: save it with a newer Jupyter")
    notebook = {
        "cells": [_cell(cell) for cell in found["cells"]],
        "metadata": METADATA,
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _cell(cell: dict[str, Any]) -> dict[str, Any]:
    source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
    tags = cell["metadata"].get("tags")
    kept = {
        "cell_type": cell["cell_type"],
        "id": cell["id"],
        "metadata": {"tags": tags} if tags else {},
        "source": source.strip("\n").splitlines(keepends=True),
    }
    return kept | ({"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {})


def main() -> int:
    """Clean or check the notebooks of the command line; 1 if one was not clean and is only checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("notebooks", nargs="+", type=Path)
    given = parser.parse_args()
    changed = 0
    for path in given.notebooks:
        text = path.read_text("utf-8")
        if (clean := cleaned(text)) != text:
            changed += 1
            print(f"{path}: {'not clean' if given.check else 'cleaned'}")
            if not given.check:
                path.write_text(clean, "utf-8")
    return int(bool(changed and given.check))


if __name__ == "__main__":
    raise SystemExit(main())
