"""What the README and the configs' heads state was measured is what the records in results/ hold."""

import json
import re
from pathlib import Path

import pytest

from cntk_bench.report import published

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"(?<![\d.,])\d\d?\.\d\d?(?![\d.])")


def numbers(text):
    return NUMBER.findall(text)


def accuracies(node):
    """All accuracies of a record, in percent, wherever they stand."""
    if isinstance(node, dict):
        own = [value for key, value in node.items() if key == "accuracy" and isinstance(value, float)]
        return own + [value for item in node.values() for value in accuracies(item)]
    return [value for item in node for value in accuracies(item)] if isinstance(node, list) else []


def held(table):
    """The numbers of a record: those of its table, and the accuracies of its draws."""
    record = table.with_suffix(".json")
    found = accuracies(json.loads(record.read_text("utf-8"))) if record.exists() else []
    return [*map(float, numbers(table.read_text("utf-8"))), *found]


RECORDS = {path.stem: held(path) for path in sorted((ROOT / "results").glob("*.md")) if path.stem != "README"}
PUBLISHED = [
    number
    for table in published.TABLES
    for columns in (table.columns, table.deviations)
    for depths in columns.values()
    for number in depths.values()
]


def missing(stated, known):
    """Stated numbers that are none of the known ones, rounded as they are."""
    return [one for one in stated if not any(abs(float(one) - x) <= within(one) for x in known)]


def within(number):
    """Half a unit of a number's last digit, and a little for those rounded twice."""
    return 0.51 * 10 ** -len(number.partition(".")[2])


def rows():
    """(first cell, numbers of the others) of the tables of results in the README."""
    text = (ROOT / "README.md").read_text("utf-8")
    for line in text.partition("\n## Results")[2].partition("\n## ")[0].splitlines():
        _, *cells = line.split("|")
        if cells and (stated := numbers("|".join(cells[1:]))):
            yield cells[0].strip(), stated


@pytest.mark.parametrize(("name", "stated"), list(rows()))
def test_a_row_of_the_readme_is_in_one_record(name, stated):
    if name.startswith("*published*"):
        assert missing(stated, PUBLISHED) == []
    else:
        assert [record for record, known in RECORDS.items() if not missing(stated, known)]


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("cifar*.yaml")), ids=lambda path: path.stem)
def test_the_scores_in_a_config_are_in_its_records(config):
    """Those that begin with its name, and others that its head names."""
    head = " ".join(re.findall(r"^#(.*)", config.read_text("utf-8"), re.MULTILINE))
    named = re.findall(r"results/([\w-]+)", head)
    own = [record for record in RECORDS if record.startswith(config.stem) or record in named]
    known = [value for record in own for value in RECORDS[record]]
    assert missing(numbers(head.partition("Score:")[2]), PUBLISHED + known) == []


def test_a_wrong_digit_is_seen():
    known = RECORDS["cifar10-cntk-v-curve"]
    assert missing(["57.94", "57.9"], known) == []
    assert missing(["57.95", "56.9"], known) == ["57.95", "56.9"]
