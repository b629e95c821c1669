"""Tables and plots: exact text for a small record, other formats parsed back, hostile text escaped."""

import csv
import io
import json
import os
import re
import sys
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cntk_bench import report
from cntk_bench.errors import UserError

plotting = sys.modules["cntk_bench.report.plot"]  # its function has the module's name


def record(dataset="cifar10", n_train=50_000, n_test=10_000, **changes):
    solutions = [
        {"column": column, "depth": depth, "accuracy": accuracy, "standard_error": 0.5, "ridge": 0.0}
        for column, depth, accuracy in [
            ("CNTK-V", 3, 30.2),
            ("CNTK-V", 21, 64.5),
            ("CNTK-GAP", 3, 33.0),
            ("CNTK-GAP", 21, 36.4),
        ]
    ]
    data = {"name": dataset, "n_train": n_train, "n_test": n_test, "preprocess": "standardize"}
    return {"name": "a_run", "data": data, "solutions": solutions} | changes


TEXT = """\
a_run: cifar10, 50,000 training and 10,000 test images, preprocess standardize, ridge 0

                        CNTK-V                                 CNTK-GAP                 published only
depth   accuracy  s.e.  published  difference   accuracy  s.e.  published  difference   CNN-V  CNN-GAP
    3      30.20  0.50      64.47      -34.27      33.00  0.50      70.47      -37.47   59.97    63.81
   21      64.50  0.50      64.09       +0.41      36.40  0.50      77.08      -40.68   75.57    83.30

Accuracies in percent, with the standard error of a share of 10,000 test images; ridge relative to the \
mean diagonal.
Published, for as many training and test images: Arora et al. 2019, arXiv:1904.11955v2 (NeurIPS). \
difference = accuracy - published; both were measured on the same test images, so it varies less than two \
independent accuracies would.
CNN-V and CNN-GAP: trained finite networks, published only, not computed here.
"""

MARKDOWN = """\
**a\\_run: digits, 200 training and 500 test images, preprocess standardize, ridge 0**

| depth | CNTK-V accuracy | CNTK-V s.e. | CNTK-GAP accuracy | CNTK-GAP s.e. |
| ---: | ---: | ---: | ---: | ---: |
| 3 | 30.20 | 0.50 | 33.00 | 0.50 |
| 21 | 64.50 | 0.50 | 36.40 | 0.50 |

- Accuracies in percent, with the standard error of a share of 500 test images; ridge relative to the \
mean diagonal.
"""

# Published numbers stand only beside runs of the same data and sizes


@pytest.mark.parametrize(
    ("n_train", "n_test", "alike"),
    [(50_000, 10_000, True), (2_000, 10_000, True), (2_000, 2_000, False), (4_000, 2_000, False),
     (50_000, 9_999, False), (49_999, 10_000, False), (160, 200, False)],
)  # fmt: skip
def test_only_like_is_compared_with_like(n_train, n_test, alike):
    for format in report.FORMATS:
        shown = report.table(record(n_train=n_train, n_test=n_test), format)
        for number in ("64.47", "64.67", "70.47", "40.94", "49.71", "-24.", "-34."):
            if not alike:
                assert number not in shown
    text = report.table(record(n_train=n_train, n_test=n_test))
    assert ("difference" in text) == alike
    assert ("CNN-GAP" in text) == (n_train == 50_000 and alike)
    at = "Published for other numbers of training / test images, not comparable: "
    assert (at in text) != alike
    if not alike:
        assert "2,000 / 10,000, 50,000 / 10,000" in text


def test_two_thousand_images_are_compared_with_the_column_of_two_thousand():
    shown = [(row["column"], row["depth"], row["published"]) for row in report.rows(record(n_train=2_000))]
    assert shown == [
        ("CNTK-V", 3, 40.94),
        ("CNTK-V", 21, 42.53),
        ("CNTK-GAP", 3, 49.71),
        ("CNTK-GAP", 21, 52.22),
    ]


def test_two_classes_are_another_data_set():
    whole = record(n_train=10_000, n_test=2_000)
    assert all(row["published"] is None for row in report.rows(whole))
    whole["data"]["classes_used"] = [0, 1]
    assert [row["published"] for row in report.rows(whole)] == [92.15, 91.95, 71.05, 95.70]
    whole["data"]["classes_used"] = [0, 2]
    assert all(row["published"] is None for row in report.rows(whole))


def test_an_accuracy_that_is_not_trusted_is_marked_and_not_compared():
    solutions = record()["solutions"]
    solutions[1] |= {"trusted": False, "doubt": "not solved: residuals of up to 0.4 of a target"}
    for format, mark in [("text", "64.50?"), ("markdown", "64.50?"), ("latex", "64.50?")]:
        shown = report.table(record(solutions=solutions), format)
        assert mark in shown and "+0.41" not in shown
        assert "Not to be trusted: CNTK-V at depth 21: not solved: residuals of up to 0.4" in shown
    rows = list(csv.DictReader(io.StringIO(report.table(record(solutions=solutions), "csv"))))
    assert [row["trusted"] for row in rows] == ["True", "False", "True", "True"]
    assert rows[1]["difference"] == ""
    assert json.loads(report.table(record(solutions=solutions), "json"))[1]["trusted"] is False


def test_an_edge_of_the_ridges_is_noted():
    solutions = record("digits")["solutions"]
    solutions[0]["edge"], solutions[3]["edge"] = "largest", "smallest"
    text = report.table(record("digits", solutions=solutions))
    assert "The largest ridge tried is the best for CNTK-V at depth 3: add larger ones" in text
    assert "The smallest ridge tried is the best for CNTK-GAP at depth 21: add smaller ones" in text


def test_text():
    assert report.table(record()) == TEXT


def test_markdown_without_published_numbers():
    assert report.table(record("digits", 200, 500), "markdown") == MARKDOWN


def test_markdown_has_the_cells_of_the_text():
    lines = [line for line in report.table(record(), "markdown").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][5:] == [
        "CNTK-GAP accuracy",
        "CNTK-GAP s.e.",
        "CNTK-GAP published",
        "CNTK-GAP difference",
        "published only CNN-V",
        "published only CNN-GAP",
    ]
    assert cells[2:] == [line.split() for line in TEXT.splitlines()[4:6]]


def test_json_is_a_list_of_objects_with_these_keys():
    found = json.loads(report.table(record(), "json"))
    assert found == report.rows(record())
    assert found[1] == {
        "column": "CNTK-V",
        "depth": 21,
        "accuracy": 64.5,
        "standard_error": 0.5,
        "trusted": True,
        "published": 64.09,
        "difference": 0.41,
        "source": "Arora et al. 2019, arXiv:1904.11955v2 (NeurIPS)",
        "n_train": 50_000,
        "n_test": 10_000,
        "ridge": 0.0,
    }
    assert {row["published"] for row in json.loads(report.table(record("digits"), "json"))} == {None}


def test_csv_reads_back():
    found = list(csv.DictReader(io.StringIO(report.table(record(), "csv"))))
    assert [(row["column"], int(row["depth"]), float(row["accuracy"])) for row in found] == [
        (row["column"], row["depth"], row["accuracy"]) for row in report.rows(record())
    ]
    assert [row["difference"] for row in found] == ["-34.27", "0.41", "-37.47", "-40.68"]
    assert next(csv.DictReader(io.StringIO(report.table(record("digits"), "csv"))))["published"] == ""


def test_latex_is_balanced_escaped_and_rectangular():
    text = report.table(record(), "latex")
    assert text.count("{") == text.count("}")
    assert re.findall(r"\\begin{(\w+)}", text) == re.findall(r"\\end{(\w+)}", text)[::-1]
    assert r"a\_run: cifar10" in text and not re.search(r"(?<!\\)[_%#]", text)
    columns = re.search(r"\\begin{tabular}{([r|]+)}", text)[1].count("r")
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 4
    assert sum(map(int, re.findall(r"\\multicolumn{(\d+)}", lines[0]))) == columns == 11
    assert [line.count("&") for line in lines[1:]] == [columns - 1] * 3
    assert "$+0.41$" in lines[3]


def test_ridges_that_differ_get_their_own_column_and_jitter_a_note():
    solutions = record("digits")["solutions"]
    solutions[1] |= {"ridge": 1e-4, "jitter": 1e-9}
    del solutions[3]
    text = report.table(record("digits", solutions=solutions))
    assert [line.split() for line in text.splitlines()[3:6]] == [
        ["depth", "accuracy", "s.e.", "ridge", "accuracy", "s.e.", "ridge"],
        ["3", "30.20", "0.50", "0", "33.00", "0.50", "0"],
        ["21", "64.50", "0.50", "0.0001", "-", "-", "-"],
    ]
    assert "ridge 0" not in text
    assert text.endswith(
        "The solver had to add jitter to the diagonal of CNTK-V at depth 21, 1e-09 at most.\n"
    )


def test_depths_ascend_whatever_their_order_in_the_record():
    solutions = record()["solutions"]
    assert report.table(record(solutions=[solutions[i] for i in (1, 0, 3, 2)])) == TEXT


def test_nothing_solved_yet():
    for format in report.FORMATS:
        with pytest.raises(UserError, match="run a_run has no accuracies yet: solve it first"):
            report.table(record(solutions=[]), format)


def test_an_unknown_format():
    with pytest.raises(
        UserError, match="format html is unknown: use one of text, markdown, csv, json, latex"
    ):
        report.table(record(), "html")


def test_write_makes_every_file(tmp_path):
    report.write(record(), tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        *(f"table.{suffix}" for suffix in ("txt", "md", "csv", "json", "tex")),
        "accuracy.png",
        "accuracy.svg",
    }
    assert (tmp_path / "report" / "table.txt").read_text() == TEXT


def test_plots_are_images_and_repeatable(tmp_path):
    for name, start in [("a.png", b"\x89PNG\r\n"), ("a.svg", b"<?xml")]:
        report.plot(record(), tmp_path / name)
        first = (tmp_path / name).read_bytes()
        assert first.startswith(start) and len(first) > 10_000
        report.plot(record(), tmp_path / name)
        assert (tmp_path / name).read_bytes() == first


def drawn(past, monkeypatch):
    """The axes of a record's figure."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    with plotting._own_settings():
        plotting._drawn(report.rows(past), "title", "png")
    monkeypatch.undo()
    return figures[0].axes[0]


def test_the_plot_draws_what_the_table_says(monkeypatch):
    axes = drawn(record(), monkeypatch)
    bars = {bar.get_label(): bar for bar in axes.containers}
    assert list(bars) == ["CNTK-V, n = 50,000", "CNTK-GAP, n = 50,000"]
    line, _, (ends,) = bars["CNTK-GAP, n = 50,000"]
    assert line.get_xydata().tolist() == [[3, 33.0], [21, 36.4]]
    assert [segment[:, 1].tolist() for segment in ends.get_segments()] == [[32.5, 33.5], [35.9, 36.9]]
    published = {line.get_label(): line for line in axes.lines}["CNTK-V, published"]
    assert published.get_ydata().tolist() == [64.47, 64.09] and published.get_linestyle() == "--"
    assert len(drawn(record("digits"), monkeypatch).containers) == 2


def test_a_column_has_its_colour_whatever_else_is_drawn(monkeypatch):
    both = drawn(record(), monkeypatch).containers
    alone = drawn(record(solutions=record()["solutions"][2:]), monkeypatch).containers
    assert both[1][0].get_color() == alone[0][0].get_color() != both[0][0].get_color()


SETTINGS = {
    "text.usetex": True,
    "font.family": ["Nowhere"],
    "savefig.dpi": 5,
    "figure.dpi": 5,
    "savefig.transparent": True,
    "axes.formatter.use_locale": True,
}


def test_other_peoples_settings_change_nothing_and_stay_as_they_were(tmp_path, monkeypatch):
    import matplotlib

    report.plot(record(), tmp_path / "plain.png")
    monkeypatch.setenv("MPLBACKEND", "module://nowhere")
    with matplotlib.rc_context(SETTINGS):
        report.plot(record(), tmp_path / "theirs.png")
        assert {key: matplotlib.rcParams[key] for key in SETTINGS} == SETTINGS
    assert os.environ["MPLBACKEND"] == "module://nowhere"
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "theirs.png").read_bytes()


@pytest.mark.parametrize("name", ["$x$ and $", r"\frac{", "数字 größe", "a" * 10**6, "\x1b]0;title\x07"])
def test_any_name_is_drawn_without_a_warning(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.plot(record(name=name), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size < 10**6


def test_a_matplotlib_that_fails_costs_only_the_figures(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report.write(record(), tmp_path / "report")
    assert {path.suffix for path in (tmp_path / "report").iterdir()} == {
        ".txt",
        ".md",
        ".csv",
        ".json",
        ".tex",
    }
    assert [message.split(":")[0] for message in caplog.messages] == [
        "no figure accuracy.png", "no figure accuracy.svg",
    ]  # fmt: skip


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*use another output directory"):
        report.write(record(), tmp_path / "file")
    with pytest.raises(UserError, match="cannot write .*a.png.*No such file or directory"):
        report.plot(record(), tmp_path / "missing" / "a.png")
    with pytest.raises(UserError, match="cannot plot to .*a.pdf: use a name that ends in .png or .svg"):
        report.plot(record(), tmp_path / "a.pdf")


# Text from outside

HOSTILE = "a|b\nc `x` <script> ![i](u) \\input{/etc/passwd} $x^2_3$ %#&~ \x1b]0;title\x07"


def hostile(text):
    past = record(name=text)
    past["data"] |= {"name": text, "preprocess": text}
    past["solutions"][0] |= {"column": text, "doubt": text, "trusted": False}
    return past


@given(st.text(max_size=200) | st.just(HOSTILE))
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
    assert {len(row) for row in rows} == {len(rows[0])} and len(rows) == 5
    assert not any(cell[:1] in ("=", "@", "+") for row in rows for cell in row)
    latex = report.table(past, "latex")
    known = (
        r"\\(begin|end|centering|caption|multicolumn|hline|textbackslash|textasciicircum|textasciitilde)\b"
    )
    rest = re.sub(r"\\[&%$#_{}\\]", "", re.sub(known, "", latex))
    assert "\\" not in rest and "^" not in rest and rest.count("{") == rest.count("}")


def test_formulas_are_text_in_a_spreadsheet_and_numbers_stay_numbers():
    past = hostile("=cmd()")
    first = next(csv.DictReader(io.StringIO(report.table(past, "csv"))))
    assert first["column"] == "'=cmd()" and float(first["accuracy"]) == 30.2
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
    with pytest.raises(UserError, match="has 4000 cells: a table has at most 1000"):
        report.table(record(solutions=record()["solutions"] * 1000))
