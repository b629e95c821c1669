"""One run as one self-contained HTML page, readable without network, other files or scripts.

`page_tables`, `page_figures` and `page_provenance` provide its content as plain data, the templates its form.
Everything from outside is text: Jinja2 escapes it, `text.visible` shows control characters as escapes, and
the page's policy lets the browser load nothing and use only our own script and style.
"""

import base64
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from cntk_bench import __version__
from cntk_bench.report import page_figures, page_provenance, page_tables
from cntk_bench.report.findings import AGAIN, FIGURES, Findings
from cntk_bench.report.notes import notes, title
from cntk_bench.report.rows import DOUBTED, MISSING, count, draws, is_trusted, name_of, number, rows
from cntk_bench.report.sketch import shown
from cntk_bench.text import short, visible

FILE = "index.html"
TEMPLATES = Path(__file__).parent / "templates"
SECTIONS = {
    "accuracy": "Accuracy",
    "ridges": "Ridges tried",
    "mistakes": "Mistakes",
    "spectra": "Spectra",
    "solving": "Solving",
    "cost": "Cost",
    "reproduce": "Reproduce",
    "provenance": "Provenance",
}


def html(record: dict, found: Findings | None = None) -> str:
    """The page of a record's last solve; the same record and findings give the same page.

    Parameters
    ----------
    record : dict
        A record with solutions, from a source that is not trusted.
    found : Findings, optional
        What is known beyond the record.

    Raises
    ------
    UserError
        If nothing has been solved yet, or no run can have written the record.
    """
    return rendered("page.html", content(record, found or Findings()))


def rendered(template: str, shown: dict[str, Any], *styles: str) -> str:
    """A page of one of our templates, styles and script; `shown` is plain data by the template's names."""
    style, script = _part("page.css"), _part("page.js")
    for name in styles:
        style += "\n" + _part(name)
    return _template(template).render(
        **shown, style=style, script=script, policy=_policy(style, script), version=__version__
    )


def content(record: dict, found: Findings) -> dict[str, Any]:
    """The page's content as plain data, by the names that the template has for it."""
    table = rows(record)
    absent = dict.fromkeys(FIGURES, "") | dict(found.absent)
    if absent["spectra"] and not absent["spectra"].endswith(AGAIN):
        absent["spectra"] += f". To compute and show them: {page_command(record)} --spectrum"
    sketches = {key: make() for key, make in page_figures.of_solve(record, found).items()}
    figures = {key: shown(sketch) for key, sketch in sketches.items()}
    there = {
        "ridges": any((figures["ridges"], absent["ridges"])),
        "mistakes": any((figures["confusion"], figures["mistakes"], absent["mistakes"], absent["confusion"])),
        "spectra": any((figures["spectra"], absent["spectra"])),
    }
    return {
        "name": short(record["name"].strip(), 120) or "a run",
        "lead": title(record).partition(": ")[2] or title(record),
        "sections": {key: heading for key, heading in SECTIONS.items() if there.get(key, True)},
        "summary": _summary(record, table),
        "tables": page_tables.accuracies(record),
        "notes": [(note, note.startswith(DOUBTED)) for note in notes(record)],
        "figures": figures,
        "absent": absent,
        "details": page_tables.details(record),
        "costs": page_provenance.costs(record),
        "total": page_provenance.total(record),
        "commands": commands(record, found if sketches["curves"] else replace(found, curves=())),
        "config": found.config,
        "config_file": config_file(record),
        "environments": page_provenance.environments(record),
        "checks": page_provenance.checks(record),
        "fingerprints": page_provenance.fingerprints(record),
        "solve": record.get("solve"),
        "page_command": page_command(record),
    }


def _summary(record: dict, table: list[dict]) -> list[tuple[str, str, str]]:
    """The facts at the head of the page: (name, value, explanation)."""
    data, found = record["data"], []
    sound = [row for row in table if row["trusted"] and row["accuracy"] is not None]
    if sound:
        best = max(sound, key=lambda row: row["accuracy"])
        error = best["standard_error"]
        value = f"{best['accuracy']:.2f}" + (f" ± {error:.2f}" if error is not None else "") + " %"
        bound = ", ± one standard error" if error is not None else ""
        several = f"; the highest of {len(sound)}, so biased upwards" if len(sound) > 1 else ""
        found.append(("highest accuracy", value, f"{name_of(best)}{bound}{several}"))
    several = f"{count(draws(data))} draws of " if draws(data) > 1 else ""
    images = f"{several}{count(data['n_train'])} / {count(data['n_test'])}"
    found.append(("training / test images", images, short(data["name"], 40)))
    doubted = sum(not is_trusted(one) for one in record["solutions"])
    cells = len(record["solutions"])
    told = "all trusted" if not doubted else f"{doubted} marked {DOUBTED}, not to be trusted"
    found.append(("cells", str(cells), told))
    hours = sum(page_provenance.core_hours(one) or 0 for one in page_provenance.last(record))
    seconds = sum(number(one.get("seconds")) or 0 for one in page_provenance.last(record))
    if seconds:
        found.append(("core hours", f"{hours:.3g}", f"{seconds:,.0f} s of wall time"))
    return found


def config_file(record: dict) -> str:
    """A name for the file of the config."""
    return f"{record['name'].strip() or 'run'}.yaml"


def _folder(record: dict) -> str:
    return shlex.quote(visible(f"runs/{record['name'].strip() or 'run'}"))


def page_command(record: dict) -> str:
    """The command that writes the page again."""
    return f"cntk-bench page {_folder(record)}"


def commands(record: dict, found: Findings) -> str:
    """The commands that repeat the run in a shell, one per line."""
    folder, file = _folder(record), shlex.quote(visible(config_file(record)))
    lines = [
        f"cntk-bench plan {file}",
        f"cntk-bench run {file} --output {folder}",
        f"cntk-bench verify {folder}",
    ]
    kept = " --spectrum" if any(one.kept for one in found.spectra) else ""
    return "\n".join([*lines, *_curves(folder, found.curves), page_command(record) + kept])


def _curves(folder: str, curves: Sequence[dict]) -> list[str]:
    """The commands that compute learning curves again: one for all cells, or one each if options differ."""
    asked = dict.fromkeys(map(_asked, curves))
    if len(asked) < 2:
        return [f"cntk-bench curve {folder}{options}" for options in asked]
    cells = [f"{shlex.quote(visible(str(one['column'])))} --depth {one['depth']}" for one in curves]
    return [
        f"cntk-bench curve {folder} --column {cell}{_asked(one)}"
        for cell, one in zip(cells, curves, strict=True)
    ]


def _asked(curve: dict) -> str:
    """The options of a learning curve: its sizes, ridge, and what it was extrapolated to."""
    sizes = ",".join(str(point["train"]) for point in curve["points"])
    ridge, beyond = number(curve.get("ridge")), curve.get("extrapolation")
    text = f" --sizes {sizes}" + ("" if ridge is None else f" --ridge {ridge!r}")
    return text + (f" --extrapolate {beyond['train']}" if beyond else "")


@cache
def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    environment.filters["number"] = _number
    environment.globals |= {"DOUBTED": DOUBTED, "MISSING": MISSING}
    return environment.get_template(name)


def _shown(value: Any) -> Any:
    """A value as put into the page: text line by line, with control characters made visible."""
    if type(value) is str:
        return "\n".join(map(visible, value.split("\n")))
    return value


def _number(text: str) -> str:
    """A number as in print: with a true minus sign, and a dash if it is missing."""
    if text == MISSING:
        return "–"
    return "−" + text[1:] if text[:1] == "-" and text[1:2].isdigit() else text


def _part(name: str) -> Any:
    """Our own style or script, marked as safe: nothing from outside is in it."""
    from markupsafe import Markup

    return Markup((TEMPLATES / name).read_text("utf-8").strip())


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy: nothing is loaded or sent; one style and one script, by their hashes."""

    def of(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"

    return (
        f"default-src 'none'; img-src data:; style-src {of(style)}; script-src {of(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
