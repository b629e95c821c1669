"""The tables in docs/faults.md: counted by tests while they run, and written by pytest --faults-table FILE.

What a test injects is stored in the properties of its report. pytest-xdist sends these to the process that
writes the file, so it does not matter which process runs which test. Kinds that were injected now replace
their rows in the file; other rows stay. Each row names the commit at which it was counted.
"""

import re
import subprocess
from collections import defaultdict
from pathlib import Path

PROPERTY = "fault"
HEAD = "| kind of fault | injected | survived | commit |\n|---|---:|---:|---|\n"
ROW = re.compile(r"\| (.+) \| (\d+) \| (\d+) \| (\S+) \|")
SECTION = re.compile(r"(<!-- faults: ([^\n]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def note(node, section, kind, injected, survived=None):
    """Note the faults of a kind that a test injects; by default all count as survived if it passes."""
    node.user_properties.append((PROPERTY, [section, kind, injected, survived]))


class Counted:
    """A pytest plugin that adds up what all tests note, and finally writes it to a file."""

    def __init__(self, file):
        self.file, self.counts = Path(file), defaultdict(lambda: [0, 0])

    def pytest_runtest_logreport(self, report):
        if report.when != "call" or report.skipped:
            return
        for name, value in report.user_properties:
            if name == PROPERTY:
                section, kind, injected, survived = value
                told = injected * report.passed if survived is None else survived
                row = self.counts[section, kind]
                row[0], row[1] = row[0] + injected, row[1] + told

    def pytest_sessionfinish(self):
        commit = _git("rev-parse", "--short=7", "HEAD") or "unknown"
        commit += "-dirty" * bool(
            _git("status", "--porcelain", "--untracked-files=no", "cntk_bench", "tests")
        )
        self.file.write_text(updated(self.file.read_text("utf-8"), self.counts, commit), "utf-8")


def updated(text, counts, commit):
    """The text with new rows in its sections: {(section, kind): (injected, survived)}."""

    def section(found):
        begin, name, old, end = found.groups()
        rows = {kind: row for kind, *row in map(_cells, old.split("\n")) if kind}
        rows |= {kind: [*map(str, row), commit] for (where, kind), row in counts.items() if where == name}
        table = "".join(f"| {' | '.join((kind, *row))} |\n" for kind, row in sorted(rows.items()))
        injected, survived = (sum(int(row[place]) for row in rows.values()) for place in (0, 1))
        all_of_them = "all" if injected == survived else f"{survived:,}"
        return f"{begin}{injected:,} faults, {all_of_them} survived.\n\n{HEAD}{table}{end}"

    return SECTION.sub(section, text)


def _cells(line):
    found = ROW.fullmatch(line)
    return found.groups() if found and found[1] != "kind of fault" else ("",)


def _git(*arguments):
    done = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent.parent, capture_output=True, text=True
    )
    return done.stdout.strip()
