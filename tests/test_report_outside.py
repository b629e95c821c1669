"""Records that anybody may have written: text is escaped for its destination, other files are refused."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from records import record

from cntk_bench import report
from cntk_bench.errors import UserError
from cntk_bench.report import formats
from cntk_bench.report.notes import notes, title
from cntk_bench.text import short

HOSTILE = "a|b\nc `x` <script> ![i](u) \\input{/etc/passwd} $x^2_3$ %#&~ \x1b]0;title\x07"


def hostile(text):
    past = record(name=text)
    past["data"] |= {"name": text, "preprocess": text}
    del past["solutions"][2:]  # else the text might be another column's name
    past["solutions"][0] |= {"column": text, "doubt": text, "trusted": False}
    return past


SPECIAL = st.sampled_from(["", "CNTK-V", "CNTK-GAP"]) | st.text(
    st.sampled_from("ab |`*_[]()<>&~!$#\\\n\r\t:/.-+=@'{}^%\"") | st.characters(), max_size=60
)


@given(SPECIAL | st.just(HOSTILE))
def test_text_from_outside_keeps_every_table_a_table(text):
    past = hostile(text)
    for format in report.FORMATS:
        shown = report.table(past, format)
        assert shown.replace("\n", "").isprintable() and len(shown) < 20_000
    lines = [line for line in report.table(past, "markdown").splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {
        len(re.findall(r"\|", lines[1]))
    }
    assert len(lines) == 4 and not re.search(r"<(?!/?$)[a-z]", "".join(lines))
    rows = list(csv.reader(io.StringIO(report.table(past, "csv"))))
    assert {len(row) for row in rows} == {len(rows[0])} and len(rows) == 3
    assert not any(cell[:1] in ("=", "@", "+") for row in rows for cell in row)
    latex = report.table(past, "latex")
    known = (
        "begin|end|centering|caption|label|usepackage|multicolumn|(top|mid|bottom|cmid)rule|par|(small|med)skip|"
        "footnotesize|setlength|tabcolsep|linewidth|ttfamily|char34|pm|to|"
        "text(backslash|asciigrave|ascii(circum|tilde)|less|greater|bar)"
    )
    rest = re.sub(r"\\[&%$#_{}\\]", "", re.sub(rf"\\({known})\b", "", latex))
    assert "\\" not in rest and "^" not in rest and rest.count("{") == rest.count("}")


@given(SPECIAL | st.sampled_from([HOSTILE, "https://a.example", "www.a.example", "<b>", "&lt;", "![a](b)"]))
def test_markdown_shows_every_character_of_a_name(text):
    tokens = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .parse(report.table(hostile(text), "markdown"))
    )
    assert [token.type for token in tokens].count("table_open") == 1
    shown = []
    for token in tokens:
        if token.type == "inline":
            allowed = {"text", "strong_open", "strong_close"} if not shown else {"text"}
            assert {child.type for child in token.children} <= allowed
            shown.append("".join(child.content for child in token.children))
    assert shown[0] == title(hostile(text))
    assert shown[2].removesuffix("accuracy").strip() == short(text, 40).strip()
    assert notes(hostile(text))[-1] == shown[-1]


@given(SPECIAL | st.just(HOSTILE))
def test_latex_prints_every_character_of_a_name(text):
    shown = report.table(hostile(text), "latex")
    caption = re.search(r"\\caption{(.*)}\n", shown)[1]
    below = re.search(r"\\footnotesize\n(.*)\n  \\end{minipage}", shown, re.DOTALL)[1].split("\n")
    names = {
        "backslash": "\\",
        "asciicircum": "^",
        "asciitilde": "~",
        "less": "<",
        "greater": ">",
        "bar": "|",
        "asciigrave": "`",
    }
    others = {r"{\ttfamily\char34}": '"', "-{}": "-", r"$\pm$": "±", r"$\to$": "→"}
    escaped = "|".join([r"\\text(\w+){}", *map(re.escape, others), r"{([\[\]*'])}", r"\\(.)"])

    def plain(found):
        return names.get(found[1]) or others.get(found[0]) or found[2] or found[3]

    def printed(latex):
        return re.sub(escaped, plain, latex)

    assert printed(caption) == f"{title(hostile(text))}."
    assert [printed(line.strip()) for line in below] == [note.strip() for note in notes(hostile(text))]


def test_no_address_becomes_a_link():
    past = record(name="https://a.example WWW.a.example http://b")
    assert report.table(past, "markdown").startswith(r"**https\://a.example WWW\.a.example http\://b: ")


def test_formulas_are_text_in_a_spreadsheet_and_numbers_stay_numbers():
    for formula in ("=cmd()", "+1", "-1", "@sum(1)", " =1", "＝1", "＠a"):
        first = next(csv.DictReader(io.StringIO(report.table(hostile(formula), "csv"))))
        assert first["column"] == f"'{formula}" and float(first["accuracy"]) == 30.2
    assert next(csv.DictReader(io.StringIO(report.table(hostile(""), "csv"))))["column"] == ""
    assert report.table(record(), "csv").count("-34.27") == 1


@pytest.mark.parametrize("value", [None, True, float("nan"), float("inf"), 10**400, "x", [], {}])
@pytest.mark.parametrize(
    "key", ["accuracy", "standard_error", "ridge", "jitter", "path", "doubt", "edge", "trusted"]
)
def test_any_value_in_a_cell(key, value):
    past = record()
    past["solutions"][0][key] = value
    for format in report.FORMATS:
        shown = report.table(past, format)
        assert "nan" not in shown.lower().replace("nan_", "") and len(shown) < 10_000


def test_a_record_of_too_many_cells():
    with pytest.raises(UserError, match="has 4000 cells: a table has at most 2000"):
        report.table(record(solutions=record()["solutions"] * 1000))


@pytest.mark.parametrize("value", [None, True, -1, 0, 10**400, 2.5, float("nan"), "x", "", [1], {}])
@pytest.mark.parametrize("key", ["n_train", "n_test", "depth"])
def test_impossible_numbers_are_refused(key, value):
    if key == "depth" and value is None:
        pytest.skip("a column may have no depth")
    past = record()
    (past["solutions"][0] if key == "depth" else past["data"])[key] = value
    refused(past, "an entry is missing or impossible")


@pytest.mark.parametrize(
    "past",
    [
        {},
        {"name": "a"},
        record(data=None),
        record(data=[]),
        record(name=None),
        record(name=5),
        record(solutions="abc"),
        record(solutions=5),
        record(solutions={"a": 1}),
        record(solutions=[None]),
        record(solutions=[[]]),
        record(solutions=[{"column": "CNTK-V", "depth": 3}]),
        record(solutions=[{"column": ["CNTK-V"], "depth": 3, "accuracy": 5, "ridge": 0}]),
        record(dataset=["cifar10"]),
    ],
    ids=repr,
)
def test_what_is_no_record_is_refused(past):
    refused(past, "an entry is missing or impossible")


def test_a_cell_that_stands_twice_is_refused():
    refused(record(solutions=record()["solutions"][:1] * 2), "it has a cell twice")


def refused(past, problem):
    for format in report.FORMATS:
        with pytest.raises(UserError) as found:
            report.table(past, format)
        assert str(found.value) == (f"the record cannot be shown as a table ({problem}): solve the run again")


def test_a_column_without_any_accuracy_is_still_there():
    solutions = [s | {"accuracy": None, "standard_error": None} for s in record()["solutions"]]
    text = report.table(record("digits", solutions=solutions))
    assert [line.split() for line in text.splitlines()[3:6]] == [
        ["depth", "accuracy", "accuracy"],
        ["3", "-", "-"],
        ["21", "-", "-"],
    ]
    assert text.splitlines()[7] == "Accuracies in percent; ridge relative to the mean diagonal."


def test_an_impossible_accuracy_widens_no_table():
    past = record()
    past["solutions"][0] |= {"accuracy": 1e308, "ridge": 1e-300}
    assert all(len(report.table(past, form)) < 3_000 for form in report.FORMATS)


def test_the_largest_numbers_that_are_shown():
    past = record(n_train=10**9 - 1, n_test=1)
    past["solutions"][0]["depth"] = 10**9 - 1
    assert "digits" not in report.table(past) and "999,999,999 training and 1 test" in report.table(past)
    past["data"]["n_test"] = 10**9
    refused(past, "an entry is missing or impossible")


@pytest.mark.parametrize("value", [None, True, "5", [], float("inf"), float("nan"), 10**400])
def test_what_is_no_number_is_missing(value):
    past = record("digits")
    past["solutions"][0] |= {"accuracy": value, "standard_error": value}
    assert report.table(past).splitlines()[4].split() == ["3", "-", "-", "33.00", "0.50"]
    assert report.rows(past)[0]["accuracy"] is report.rows(past)[0]["standard_error"] is None


def test_a_dash_for_what_a_row_does_not_have_is_nothing_in_csv():
    assert formats.as_csv([{"depth": "-", "x": -1.0, "y": "-1"}]).splitlines()[1] == ",-1.0,'-1"
