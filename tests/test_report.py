"""Tables: the exact text for a small record; other formats are parsed back."""

import csv
import io
import json
import re
import sys

import pytest
from records import record

from cntk_bench import report
from cntk_bench.errors import UserError
from cntk_bench.report import depth, formats, grids, page_tables, style
from cntk_bench.report.published import Published
from cntk_bench.runs import draws

# The package's function `rows` hides the module of the same name.
rows = sys.modules["cntk_bench.report.rows"]

TEXT = """\
a_run: cifar10, 50,000 training and 10,000 test images, preprocess standardize, ridge 0

                        CNTK-V                                 CNTK-GAP                 published only
depth   accuracy  s.e.  published  difference   accuracy  s.e.  published  difference   CNN-V  CNN-GAP
    3      30.20  0.50      64.47      -34.27      33.00  0.50      70.47      -37.47   59.97    63.81
   21      64.50  0.50      64.09       +0.41      36.40  0.50      77.08      -40.68   75.57    83.30

Accuracies in percent; s.e.: their binomial standard errors over 10,000 test images, in percentage points. \
Ridge relative to the mean diagonal.
Published for the same numbers of images: Arora et al. 2019, arXiv:1904.11955v2 (NeurIPS). \
difference = accuracy - published. Both accuracies are for the same test images, so their errors are \
correlated: s.e. alone does not say whether a difference is significant.
CNN-V and CNN-GAP: trained finite networks, published only, not computed here.
"""

MARKDOWN = """\
**a\\_run: digits, 200 training and 500 test images, preprocess standardize, ridge 0**

| depth | CNTK-V accuracy | CNTK-V s.e. | CNTK-GAP accuracy | CNTK-GAP s.e. |
| ---: | ---: | ---: | ---: | ---: |
| 3 | 30.20 | 0.50 | 33.00 | 0.50 |
| 21 | 64.50 | 0.50 | 36.40 | 0.50 |

- Accuracies in percent; s.e.: their binomial standard errors over 500 test images, in percentage points. \
Ridge relative to the mean diagonal.
"""

# Published numbers appear only beside runs on the same data and sizes


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
    for classes in ([0, 1], [1, 0]):
        whole["data"]["classes_used"] = classes
        assert [row["published"] for row in report.rows(whole)] == [92.15, 91.95, 71.05, 95.70]
    for classes in ([0, 2], [False, True], [0.0, 1.0], "01", [], {}, [[]]):
        whole["data"]["classes_used"] = classes
        assert all(row["published"] is None for row in report.rows(whole))


def test_the_classes_used_are_told():
    some = record(n_train=10_000, n_test=2_000)
    for classes, shown in (
        ([0, 1], "cifar10 (classes 0, 1), 10,000 training"),
        (None, "cifar10, 10,000 training"),
    ):
        some["data"]["classes_used"] = classes
        assert all(shown in report.table(some, format) for format in ("text", "markdown", "latex"))
    some["data"]["classes_used"] = ["\x1b[2J\n" * 90] * 90
    assert "\x1b" not in report.table(some, "text")


def test_classes_that_are_not_known_are_like_nothing():
    whole = record()
    whole["data"] |= {"classes": 10, "classes_used": list(range(10))}
    assert report.rows(whole)[0]["published"] == 64.47
    whole["data"]["classes_used"] = "all"
    assert report.rows(whole)[0]["published"] is None
    whole["data"] |= {"classes": 9, "classes_used": None}
    assert report.rows(whole)[0]["published"] is None


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


@pytest.mark.parametrize("value", [None, 0, 1, "true", [], float("nan")])
def test_only_true_is_trusted(value):
    solutions = record()["solutions"]
    solutions[0]["trusted"] = value
    text = report.table(record(solutions=solutions))
    assert "30.20?" in text and "CNTK-V at depth 3: no reason given." in text


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
        "spread": None,
        "repeats": None,
        "train_accuracy": None,
        "rate": None,
        "published_spread": None,
        "lowest_ridge": None,
        "highest_ridge": None,
    }
    assert {row["published"] for row in json.loads(report.table(record("digits"), "json"))} == {None}


LATEX = r"""% \usepackage{booktabs}
\begin{table}[tbp]
  \centering
  \caption{a\_run: digits, 200 training and 500 test images, preprocess standardize, ridge 0.}
  \label{tab:a-run}
  \smallskip
  \begin{tabular}{@{}rrrrrr@{}}
    \toprule
     & \multicolumn{3}{c}{CNTK-V} & \multicolumn{2}{c}{published only} \\
    \cmidrule(lr){2-4} \cmidrule(lr){5-6}
    depth & accuracy & s.e. & difference & CNN-V & CNN-GAP \\
    \midrule
    3 & 30.20 & 0.50 & $-0.10$ & -- & 63.81 \\
    21 & 64.50? & 0.50 & $+0.41$ & 75.57 & 83.30 \\
    \bottomrule
  \end{tabular}
  \par\smallskip
  \begin{minipage}{\linewidth}
    \footnotesize
    NOTE
  \end{minipage}
\end{table}
"""


def test_latex(monkeypatch):
    columns = {"accuracy": ["30.20", "64.50?"], "s.e.": ["0.50"] * 2, "difference": ["-0.10", "+0.41"]}
    finite = {"CNN-V": ["-", "75.57"], "CNN-GAP": ["63.81", "83.30"]}
    groups = [("", {"depth": ["3", "21"]}), ("CNTK-V", columns), ("published only", finite)]
    monkeypatch.setattr(formats, "grids", lambda _: [groups])
    monkeypatch.setattr(formats, "notes", lambda _: ["NOTE"])
    assert report.table(record("digits", 200, 500), "latex") == LATEX


CSV = """\
column,depth,accuracy,standard_error,trusted,published,difference,source,n_train,n_test,ridge,spread,repeats,train_accuracy,rate,published_spread,lowest_ridge,highest_ridge
CNTK-V,3,30.2,0.5,True,64.47,-34.27,SOURCE,50000,10000,0.0,,,,,,,
CNTK-V,21,64.5,0.5,True,64.09,0.41,SOURCE,50000,10000,0.0,,,,,,,
CNTK-GAP,3,33.0,0.5,True,70.47,-37.47,SOURCE,50000,10000,0.0,,,,,,,
CNTK-GAP,21,36.4,0.5,True,77.08,-40.68,SOURCE,50000,10000,0.0,,,,,,,
""".replace("SOURCE", '"Arora et al. 2019, arXiv:1904.11955v2 (NeurIPS)"')


def test_csv():
    assert report.table(record(), "csv") == CSV


def test_repetitions_and_training_accuracies_are_shown():
    past = record("digits", 200, 500)
    past["solutions"][0] |= {"accuracies": [30.0, 30.4], "spread": 0.28, "train_accuracy": 100.0}
    first = report.rows(past)[0]
    assert (first["spread"], first["repeats"], first["train_accuracy"]) == (0.28, 2, 100.0)
    shown = report.table(past)
    head, line = shown.splitlines()[3:5]
    assert head.split()[1:6] == ["accuracy", "s.e.", "spread", "repeats", "train"]
    assert line.split()[1:6] == ["30.20", "0.50", "0.28", "2", "100.00"]
    assert (
        "spread: standard deviation" in shown
        and "train: accuracy on the training images at the last epoch" in shown
    )
    past["solutions"][0] |= {"accuracies": [30.0], "spread": None}  # of one repetition there is none
    assert report.rows(past)[0]["repeats"] == 1 and "spread" not in report.table(past)


def test_a_difference_of_nothing_has_no_sign():
    """round(40.94 - 40.94...) may be -0.0."""
    (row, *_) = report.rows(past := record(n_train=2_000, solutions=[
        record()["solutions"][0] | {"accuracy": 40.94 - 1e-9}]))  # fmt: skip
    assert str(row["difference"]) == "0.0" and "+0.00" in (text := report.table(past)) and "-0.00" not in text


@pytest.mark.parametrize("data, words", [
    ({"unseen_classes": [6], "seen_test_images": [37.5]},
     "6 of 10 classes have no training image; the others have 37.5 % of the test images, and of the rest a"),
    ({"unseen_classes": [1], "seen_test_images": [90.0]}, "\n1 of 10 classes has no training image"),
    ({"unseen_classes": [6, 7], "seen_test_images": [40.0, 30.0]},
     "In each draw, 6 to 7 of 10 classes have no training image; the others have 35 % of the test images on"),
    ({"unseen_classes": "x", "seen_test_images": [1.0]}, ""), ({"unseen_classes": [6]}, ""),
    ({"unseen_classes": [None], "seen_test_images": [1.0]}, ""), ({}, ""),
    ({"unseen_classes": [6], "seen_test_images": [None]}, ""),
])  # fmt: skip
def test_classes_without_a_training_image_are_told(data, words):
    past = record("digits", 4, 40)
    past["data"] |= {"classes": 10} | data
    text = report.table(past)
    assert words in text and ("no training image" in text) == bool(words)


@pytest.mark.parametrize("data, words", [
    ({"repeated_test_images": 10}, "10 of 40 test images are training images, too"),
    ({"repeated_test_images": 1}, "1 of 40 test images is a training image, too"),
    ({"largest_pixels": [255.0, 1.0]}, "255 in training and 1 in test images, as if they had"),
    ({"repeated_test_images": "x", "largest_pixels": [None, 1.0]}, ""), ({"largest_pixels": 3}, ""),
])  # fmt: skip
def test_test_images_that_are_suspect_are_told(data, words):
    past = record("digits", 4, 40)
    past["data"] |= data
    text = report.table(past)
    assert words in text and ("training image, too" in text or "different units" in text
                              or "training images, too" in text) == bool(words)  # fmt: skip


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
    pieces = re.findall(r"\\(begin|end){(\w+)}", text)
    # Two tabulars, as one would be too wide.
    nested = ["table", *["tabular"] * 4, "minipage", "minipage", "table"]
    assert [name for _, name in pieces] == nested
    assert [way for way, _ in pieces] == ["begin", *["begin", "end"] * 3, "end"]
    assert r"a\_run: cifar10" in text and not re.search(r"(?<!\\)[_%#]", text.split("\n", 1)[1])
    widths = [len(found) for found in re.findall(r"\\begin{tabular}{@{}(r+)@{}}", text)]
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 8 and widths == [9, 3]  # both have the column of depths
    for columns, part in zip(widths, (lines[:4], lines[4:]), strict=True):
        assert 1 + sum(map(int, re.findall(r"\\multicolumn{(\d+)}", part[0]))) == columns
        assert [line.count("&") for line in part[1:]] == [columns - 1] * 3
    assert "$+0.41$" in lines[3] and lines[7].startswith("    21 & 75.57")


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
    solutions[0]["jitter"] = 1e-8
    assert "of CNTK-V at depth 3, CNTK-V at depth 21, 1e-08 at most." in report.table(
        record("digits", solutions=solutions)
    )


def _drawn(column, depth, ridges):
    """A cell of several draws with these ridges, as `runs.draws.merged` makes it."""
    each = [{"accuracy": 40.0, "standard_error": 0.5, "undecided": 0.0, "trusted": True, "doubt": None,
             "ridge": ridge, "path": [{"ridge": 0.0}, {"ridge": 0.1}]} for ridge in ridges]  # fmt: skip
    return {"column": column, "depth": depth, **draws.merged(each, 10_000)}


def test_draws_that_chose_other_ridges_are_told_with_their_range():
    """One cell's single ridge is not that of all."""
    cells = [_drawn("CNTK-V", 3, [0.0, 0.1, 1.0]), _drawn("CNTK-GAP", 3, [0.0, 0.0, 0.0])]
    past = record("digits", 20, 40, solutions=cells)
    past["data"]["draws"] = 3
    text = report.table(past)
    assert ", ridge" not in text.splitlines()[0] and "best of 2 by leave-one-out" in text.splitlines()[0]
    line = next(line for line in text.splitlines() if line.lstrip().startswith("3 "))
    assert line.split()[5:8] == ["0", "to", "1"] and line.split()[-1] == "0"
    assert "A range of ridges: each draw has its own." in text
    first, second = report.rows(past)
    assert (first["ridge"], first["lowest_ridge"], first["highest_ridge"]) == (None, 0.0, 1.0)
    assert (second["ridge"], second["lowest_ridge"], second["highest_ridge"]) == (0.0, None, None)
    assert [line[1] for line in page_tables.details(past).rows] == ["0 to 1", "0"]
    past["solutions"] = [cells[0], _drawn("CNTK-GAP", 3, [1.0, 0.0, 0.0])]
    assert ", ridge 0 to 1, each draw with its own" in report.table(past).splitlines()[0]


@pytest.mark.parametrize("ridges, told", [([1e-4, 1e-2], True), ([0.0, 1e-2], True), ([0.0, 0.0], False)])
def test_published_kernels_without_a_ridge_beside_draws_that_have_one(ridges, told):
    past = record(n_train=2_000, solutions=[_drawn("CNTK-GAP", 3, ridges)])
    past["data"]["draws"] = 2
    assert ("Published kernels are solved without a ridge." in report.table(past)) == told


WHOLE_CIFAR10 = [125.306918046875, 122.950394140625, 113.86538318359375,
                 62.993219278136934, 62.08870764001416, 66.70489964063094]  # fmt: skip


@pytest.mark.parametrize(
    ("statistics", "published"),
    [("full", 40.94), ("subset", None), ([0.0, 0.0, 0.0, 255.0, 255.0, 255.0], None), ([], None),
     (WHOLE_CIFAR10, 40.94), (WHOLE_CIFAR10[::-1], None), ([None] * 6, None), (7, None)],
)  # fmt: skip
def test_only_images_prepared_in_the_same_way_are_compared(statistics, published):
    past = record(n_train=2_000)
    assert report.rows(past)[0]["published"] == 40.94  # old records do not say: it was always the whole set
    past["data"]["statistics"] = statistics
    assert report.rows(past)[0]["published"] == published
    assert ("difference" in report.table(past)) == (published is not None)


def test_the_title_says_how_many_ridges_were_tried():
    solutions = record("digits")["solutions"]
    for tried, said in [(0, ""), (1, ""), (2, " (best of 2 by leave-one-out)")]:
        solutions[1]["path"] = [{}] * tried
        first = report.table(record("digits", 200, 500, solutions=solutions)).splitlines()[0]
        assert first == MARKDOWN.splitlines()[0].strip("*").replace("\\", "") + said


def test_every_source_is_named(monkeypatch):
    sizes = (50_000, 10_000)
    known = {"CNTK-V": Published(64.0, "One", sizes), "CNTK-GAP": Published(70.0, "Two", sizes)}
    for module in (rows, grids):
        monkeypatch.setattr(module, "published", lambda _run, column, _depth: known.get(column))
    lines = report.table(record()).splitlines()
    assert lines[-1].startswith(
        "Published for the same numbers of images: One; Two. difference = accuracy - published. Both"
    )
    assert [row["source"] for row in report.rows(record())] == ["One", "One", "Two", "Two"]


def test_where_nothing_alike_was_published_a_note_says_what_was():
    note = report.table(record(n_train=7)).splitlines()[-1]
    start = "Published for other numbers of training / test images, not comparable: "
    assert note == f"{start}2,000 / 10,000, 50,000 / 10,000."
    drawn = record(n_train=7)
    drawn["data"]["draws"] = 3  # then means over draws are comparable in kind
    note = report.table(drawn).splitlines()[-1]
    assert note.startswith(f"{start}10 / 10,000,") and note.endswith(", 2,000 / 10,000, 50,000 / 10,000.")


def test_depths_ascend_whatever_their_order_in_the_record():
    solutions = record()["solutions"]
    assert report.table(record(solutions=[solutions[i] for i in (1, 0, 3, 2)])) == TEXT


def test_nothing_solved_yet():
    for format in report.FORMATS:
        with pytest.raises(UserError, match="^run a_run has no accuracies yet: solve it first$"):
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


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*use another output directory"):
        report.write(record(), tmp_path / "file")
    with pytest.raises(UserError, match="cannot write .*a.png.*No such file or directory"):
        style.save(tmp_path / "missing" / "a", lambda: depth.figure(record()))


def test_draws_are_compared_with_means_over_draws():
    """A mean over draws has published mean and deviation beside it; a single training set has neither."""
    solution = {"column": "CNTK-GAP", "depth": 6, "accuracy": 30.0, "standard_error": 0.5, "ridge": 0.0}
    repeated = solution | {"accuracies": [29.0, 31.0], "spread": 1.41, "draws": [solution, solution]}
    drawn = record(n_train=160, solutions=[repeated])
    drawn["data"] |= {"draws": 2}
    (row,) = report.rows(drawn)
    assert (row["published"], row["published_spread"], row["difference"]) == (29.63, 1.13, 0.37)
    text = report.table(drawn)
    assert "2 draws of 160 training" in text and "its spread" in text and "means over draws" in text
    alone = record(n_train=160, solutions=[solution])
    (row,) = report.rows(alone)
    assert row["published"] is row["published_spread"] is None and "its spread" not in report.table(alone)
    drawn["data"] |= {"draws": "many"}  # anybody may have written the record
    assert "draws of" not in report.table(drawn).splitlines()[0]


@pytest.mark.parametrize("ridge, published", [(5e-5, 80.11), (0.0, None)])
def test_a_unit_diagonal_is_compared_with_the_paper_that_solves_such(ridge, published):
    solution = {"column": "CNTK-LAP12", "depth": 6, "accuracy": 80.0, "ridge": ridge}
    (row,) = report.rows(record(solutions=[solution | {"normalize": "unit_diagonal"}]))
    assert row["published"] == published
    (row,) = report.rows(record(solutions=[solution]))
    assert row["published"] is None  # published for another setting
