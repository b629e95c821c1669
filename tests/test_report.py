"""Tables and plots: exact text for a small record, the other formats parsed back."""

import csv
import io
import json
import re

import pytest

from cntk_bench import report
from cntk_bench.errors import UserError
from cntk_bench.published import FINITE, published


def record(dataset="cifar10", n_train=200, n_test=500, **changes):
    solutions = [
        {"column": column, "depth": depth, "accuracy": accuracy, "ridge": 0.0}
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
a_run: cifar10, 200 training and 500 test images, preprocess standardize, ridge 0

                     CNTK-V                           CNTK-GAP              published only
depth   accuracy  published  difference   accuracy  published  difference   CNN-V  CNN-GAP
    3      30.20      64.67      -34.47      33.00      70.47      -37.47   61.97    57.96
   21      64.50      64.09       +0.41      36.40      77.08      -40.68   80.56    81.23

Accuracies in percent; ridge relative to the mean diagonal.
Published: Arora et al. 2019, CIFAR-10, the version of the table on the authors' blog; \
difference = accuracy - published.
Published numbers are for 50,000 training and 10,000 test images, not for the 200 and 500 of this run.
CNN-V and CNN-GAP: trained finite networks, published only, not computed here.
"""

MARKDOWN = """\
**a_run: digits, 200 training and 500 test images, preprocess standardize, ridge 0**

| depth | CNTK-V accuracy | CNTK-GAP accuracy |
| ---: | ---: | ---: |
| 3 | 30.20 | 33.00 |
| 21 | 64.50 | 36.40 |

- Accuracies in percent; ridge relative to the mean diagonal.
"""


def test_text():
    assert report.table(record()) == TEXT


def test_markdown_without_published_numbers():
    assert report.table(record("digits"), "markdown") == MARKDOWN


def test_markdown_has_the_cells_of_the_text():
    lines = [line for line in report.table(record(), "markdown").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][4:] == [
        "CNTK-GAP accuracy",
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
        "published": 64.09,
        "n_train": 200,
        "n_test": 500,
        "ridge": 0.0,
    }
    assert {row["published"] for row in json.loads(report.table(record("digits"), "json"))} == {None}


def test_csv_reads_back():
    found = list(csv.DictReader(io.StringIO(report.table(record(), "csv"))))
    assert [(row["column"], int(row["depth"]), float(row["accuracy"])) for row in found] == [
        (row["column"], row["depth"], row["accuracy"]) for row in report.rows(record())
    ]
    assert [row["difference"] for row in found] == ["-34.47", "0.41", "-37.47", "-40.68"]
    assert next(csv.DictReader(io.StringIO(report.table(record("digits"), "csv"))))["published"] == ""


def test_latex_is_balanced_escaped_and_rectangular():
    text = report.table(record(), "latex")
    assert text.count("{") == text.count("}")
    assert re.findall(r"\\begin{(\w+)}", text) == re.findall(r"\\end{(\w+)}", text)[::-1]
    assert r"a\_run: cifar10" in text and not re.search(r"(?<!\\)[_%#]", text)
    columns = re.search(r"\\begin{tabular}{([r|]+)}", text)[1].count("r")
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 4
    assert sum(map(int, re.findall(r"\\multicolumn{(\d+)}", lines[0]))) == columns == 9
    assert [line.count("&") for line in lines[1:]] == [columns - 1] * 3
    assert "$+0.41$" in lines[3]


def test_a_full_run_is_not_called_small():
    assert "not for the" not in report.table(record(n_train=50_000, n_test=10_000))
    assert "not for the 50,000 and 500" in report.table(record(n_train=50_000))
    assert "authors' blog" in report.table(record(n_train=50_000, n_test=10_000))


def test_ridges_that_differ_get_their_own_column_and_jitter_a_note():
    solutions = record("digits")["solutions"]
    solutions[1] |= {"ridge": 1e-4, "jitter": 1e-9}
    del solutions[3]
    text = report.table(record("digits", solutions=solutions))
    assert [line.split() for line in text.splitlines()[3:6]] == [
        ["depth", "accuracy", "ridge", "accuracy", "ridge"],
        ["3", "30.20", "0", "33.00", "0"],
        ["21", "64.50", "0.0001", "-", "-"],
    ]
    assert "ridge 0" not in text
    assert text.endswith("The solver had to add jitter to the diagonal of CNTK-V at depth 21.\n")


def test_depths_ascend_whatever_their_order_in_the_record():
    solutions = record()["solutions"]
    assert report.table(record(solutions=[solutions[i] for i in (1, 0, 3, 2)])) == TEXT


def test_nothing_solved_yet():
    for format in report.FORMATS:
        with pytest.raises(UserError, match="run 'a_run' has no accuracies yet: solve it first"):
            report.table(record(solutions=[]), format)


def test_an_unknown_format():
    with pytest.raises(
        UserError, match="format 'html' is unknown: use one of text, markdown, csv, json, latex"
    ):
        report.table(record(), "html")


def test_published_numbers():
    # The sum of each row of the published table, so that no digit is changed by mistake.
    sums = {3: 255.07, 4: 284.15, 6: 287.76, 11: 289.75, 21: 302.96}
    columns = ("CNTK-V", "CNTK-GAP", *FINITE)
    for depth, total in sums.items():
        assert sum(published("cifar10", column, depth) for column in columns) == pytest.approx(total)
    assert published("cifar10", "CNTK-GAP", 11) == 77.43
    assert published("cifar10", "CNTK-GAP", 5) is None
    assert published("cifar10", "CNTK-LAP4", 3) is None
    assert published("svhn", "CNTK-V", 3) is None


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


def test_the_plot_draws_what_the_table_says(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    report.plot(record(), tmp_path / "a.png")
    report.plot(record("digits"), tmp_path / "a.png")
    with_published, without = ({line.get_label(): line for line in f.axes[0].lines} for f in figures)
    assert list(with_published) == [
        "CNTK-V, n = 200",
        "CNTK-V, n = 50,000, published",
        "CNTK-GAP, n = 200",
        "CNTK-GAP, n = 50,000, published",
    ]
    assert list(without) == ["CNTK-V, n = 200", "CNTK-GAP, n = 200"]
    assert with_published["CNTK-GAP, n = 200"].get_xydata().tolist() == [[3, 33.0], [21, 36.4]]
    assert with_published["CNTK-V, n = 50,000, published"].get_ydata().tolist() == [64.67, 64.09]
    assert with_published["CNTK-V, n = 50,000, published"].get_linestyle() == "--"


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*; free space there, or choose another folder"):
        report.write(record(), tmp_path / "file")
    with pytest.raises(UserError, match="cannot write .*a.png: No such file or directory"):
        report.plot(record(), tmp_path / "missing" / "a.png")
    with pytest.raises(UserError, match="cannot plot to .*a.pdf: use a name that ends in .png or .svg"):
        report.plot(record(), tmp_path / "a.pdf")
