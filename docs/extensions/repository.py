"""Links to repository files that are not pages are replaced by the file's path, as there is no web address.

A page links to such files relative to itself, as readers of the repository need. The built pages stand
alone, so they show the path from the repository's root instead.
"""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent


def setup(app: Sphinx) -> dict[str, bool]:
    """Handle these links before Sphinx would copy the files that they lead to."""
    app.connect("doctree-read", _shown, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _shown(app: Sphinx, doctree: nodes.document) -> None:
    folder = Path(app.env.doc2path(app.env.docname)).parent
    links = (*doctree.findall(addnodes.download_reference), *doctree.findall(addnodes.pending_xref))
    for link in links:
        asked = link["reftarget"] + ".md" * (link.get("refdomain") == "doc")
        target = (folder / asked).resolve()
        outside = link["reftarget"].startswith(("../", "/")) and not target.is_relative_to(DOCS)
        if not outside or not target.exists():
            continue
        path = str(target.relative_to(ROOT)) + "/" * target.is_dir()
        text = link.astext()
        shown: list[nodes.Node] = [nodes.literal(path, path)]
        if text.strip("`").rstrip("/") not in (path.rstrip("/"), target.name):
            shown = [nodes.Text(f"{text} ("), *shown, nodes.Text(")")]
        link.replace_self(shown)
