"""The fenced blocks of a Markdown page, and the meaning of their info strings and the comments above them.

    bash       commands, run in order by `bash -euo pipefail`
    console    commands after `$ `, and the output that they must print; `...` stands for anything
    python     code; all blocks of a page share one namespace
    pycon      a session with outputs, as doctest reads it, in the same namespace
    yaml       a config, or a part of one
    toml       parsed
    text       something to look at, no input of any program
    bibtex     the same

`<!-- not run: REASON -->` above a block says that it cannot run here; it is still parsed.
`<!-- needs: MODULE -->` says that the block runs only where the module can be imported.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt

LANGUAGES = ("bash", "console", "python", "pycon", "yaml", "toml", "text", "bibtex")
COMMENT = re.compile(r"<!-- (not run|needs): (.+?) -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, its first line in the page, and its marks by name."""

    language: str
    text: str
    line: int
    marks: dict[str, str]


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page in order; directives of MyST, such as {toctree}, are left out."""
    marks: dict[str, str] = {}
    for token in MarkdownIt("commonmark").parse(page):
        if token.type == "html_block":
            marks |= {name: " ".join(said.split()) for name, said in COMMENT.findall(token.content)}
            continue
        if token.type == "fence" and not token.info.startswith("{"):
            assert token.map is not None
            yield Block(token.info.strip(), token.content, token.map[0] + 1, marks)
        marks = {}
