"""Results of an acceptance run, as JSON and as a Markdown table."""

from pathlib import Path

from cntk_bench.records import record
from cntk_bench.system.files import writing

RATES = {  # a column's heading: the finding, and its form
    "error": ("error", ".1e"),
    "pairs/s": ("pairs_per_second", ",.0f"),
    "of the backend alone": ("of_the_backend_alone", ".1%"),
    "kernel alone": ("kernel_pairs_per_second", ",.0f"),
    "instructions": ("instructions", ".1f"),
    "share of issue limit": ("share", ".1%"),
}
WORDS = {True: "yes", False: "NO", None: "no verdict"}


def verdict(results: dict) -> str:
    """ "passed", "failed: ..", or "incomplete: .." with the sections without a verdict."""
    found = {name: results["sections"].get(name, {}).get("passed") for name in results["planned"]}
    failed = [name for name, passed in found.items() if passed is False]
    if failed:
        return f"failed: {', '.join(failed)}"
    unknown = [name for name, passed in found.items() if passed is None and name not in results["optional"]]
    return f"incomplete: {', '.join(unknown)}" if unknown else "passed"


def table(results: dict) -> str:
    """Markdown: the rates first, then every other finding."""
    machine = results["machine"]
    lines = [
        f"# {machine['gpu']}, {results['date']}",
        "",
        f"Commit {results['commit']}; {machine['multiprocessors']} multiprocessors, "
        f"{machine['clock'] / 1e9:.2f} GHz; {results['seconds']:.0f} s"
        f"{', the quick selection' if results['quick'] else ''}; {results['verdict']}.",
        "",
        f"| section | checked | {' | '.join(RATES)} |",
        f"|---|---|{'---|' * len(RATES)}",
    ]
    for name, found in results["sections"].items():
        if "pairs_per_second" in found:
            values = ((found.get(key), form) for key, form in RATES.values())
            cells = ("-" if value is None else format(value, form) for value, form in values)
            lines.append(f"| {name} | {WORDS[found['passed']]} | {' | '.join(cells)} |")
    lines += ["", "| section | passed | seconds | found |", "|---|---|---|---|"]
    shown = {"passed", "seconds", *(key for key, _ in RATES.values())}
    for name, found in results["sections"].items():
        text = "; ".join(f"{key}: {value}" for key, value in found.items() if key not in shown)
        text = " ".join(text.replace("|", "/").split())
        lines.append(f"| {name} | {WORDS[found['passed']]} | {found['seconds']:.1f} | {text} |")
    return "\n".join(lines) + "\n"


def write(results: dict, folder: Path) -> None:
    """Write gpu-acceptance.json and .md, or gpu-acceptance-quick, each atomically."""
    stem = "gpu-acceptance-quick" if results["quick"] else "gpu-acceptance"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f"{stem}.md.new"
        new.write_text(table(results))
        new.replace(folder / f"{stem}.md")
    record.save(record.plain(results), folder / f"{stem}.json")
