"""Columns without depths: a single cell, shown once, apart from the rows by depth, in every format."""

import csv
import io
import json

import numpy as np
import pytest
from records import record
from test_report_depth import drawn, saved

from cntk_bench import columns, report
from cntk_bench.columns import Request, kernel
from cntk_bench.errors import UserError
from cntk_bench.records import record as records
from cntk_bench.report import page_figures
from cntk_bench.report.findings import Eigenvalues, Findings

LEVEL = {"column": "RBF", "depth": None, "accuracy": 44.0, "standard_error": 0.5, "ridge": 0.01}
TEXT = """
            CNTK-V          CNTK-GAP
depth   accuracy  s.e.   accuracy  s.e.
    3      30.20  0.50      33.00  0.50
   21      64.50  0.50      36.40  0.50

        without depths
column  accuracy  s.e.  ridge
   RBF     44.00  0.50   0.01

"""


class Flat:
    name = "flat"
    has_depth = False

    def needs(self, depth):
        assert depth is None
        return ()

    def require(self, asked):
        if asked.n_train > 5:
            raise UserError("too many")


@pytest.fixture
def flat(monkeypatch):
    made = (lambda name: Flat() if name == "flat" else None, ("flat",))
    monkeypatch.setattr(columns, "FAMILIES", ((kernel.column, kernel.NAMES), made))


def mixed(**changes):
    past = record("digits", **changes)
    return past | {"solutions": [*past["solutions"], LEVEL]}


def test_it_has_one_cell_whatever_the_depths(flat):
    cells = columns.cells(["flat", "CNTK-V"], (3, 4))
    assert cells == (("flat", None), ("CNTK-V", 3), ("CNTK-V", 4))
    assert [str(readout) for readout in columns.readouts(cells)] == ["ntk-v-3-all", "ntk-v-4-all"]


def test_a_column_says_beforehand_that_it_cannot_be_filled(flat):
    asked = [Request(n, 4, 2, None, lambda name: None) for n in (5, 6)]
    columns.require(["CNTK-V", "flat"], lambda: asked[0])
    with pytest.raises(UserError, match="too many"):
        columns.require(["CNTK-V", "flat"], lambda: asked[1])
    columns.require(["CNTK-V"], lambda: pytest.fail("nobody wants to know"))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("CNTK-V", ["solve.ridge", "solve.precision"]),
        ("LINEAR", ["baseline.ridge"]),
        ("RBF", ["solve.precision", "baseline.ridge"]),
        ("GPYTORCH-GP", ["baseline.adam_steps"]),
        ("CNN-V", ["network.width"]),
        (
            "not-installed",
            ["solve.ridge", "solve.precision", "baseline.ridge", "baseline.adam_steps", "network.width"],
        ),
    ],
)
def test_which_keys_decide_a_column(name, keys):
    asked = [
        "solve.ridge",
        "solve.precision",
        "baseline.ridge",
        "baseline.adam_steps",
        "network.width",
        "dataset.train",
    ]
    assert [key for key in asked if columns.decides(key, name)] == keys


def test_text():
    shown = report.table(mixed())
    assert TEXT in shown and shown.splitlines()[0].endswith("preprocess standardize, ridge 0")


def test_markdown_and_latex_have_a_second_table():
    lines = report.table(mixed(), "markdown").splitlines()
    start = lines.index("**without depths**")
    assert lines[start + 2] == "| column | accuracy | s.e. | ridge |"
    assert lines[start + 4] == "| RBF | 44.00 | 0.50 | 0.01 |"
    latex = report.table(mixed(), "latex")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert r"\multicolumn{4}{c}{without depths} \\" in latex and r"RBF & 44.00 & 0.50 & 0.01 \\" in latex
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 1


def test_eigenvalues_of_such_a_column_name_it_alone():
    some = Eigenvalues("RBF", None, np.array([2.0, 1.0]), 1.5, 0, 0.0)
    sketch = page_figures.spectra(Findings(spectra=(some,)))
    assert ": RBF falls from" in sketch.alt and sketch.tables[0].rows[0][0] == "RBF"


def test_csv_and_json_have_no_depth_there():
    found = list(csv.DictReader(io.StringIO(report.table(mixed(), "csv"))))
    assert [row["depth"] for row in found] == ["3", "21", "3", "21", ""]
    last = json.loads(report.table(mixed(), "json"))[-1]
    assert (last["depth"], last["accuracy"], last["published"]) == (None, 44.0, None)


def test_alone_it_is_the_only_table(tmp_path):
    past = record("digits", solutions=[LEVEL])
    for form in report.FORMATS:
        assert "44.0" in report.table(past, form)
    assert "depth   " not in report.table(past) and "ridge" in report.table(past).splitlines()[3]
    assert saved(past, tmp_path / "a", "png", "svg") == [tmp_path / "a.png", tmp_path / "a.svg"]


def test_the_plot_has_a_level_line():
    axes = drawn(mixed())
    line = {line.get_label(): line for line in axes.lines}["RBF"]
    assert set(line.get_ydata()) == {44.0} and line.get_linestyle() == ":"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["3", "21"]
    assert [43.5, 44.5] in [list(line.get_ydata()) for line in axes.lines]  # its error bar


def test_what_a_reader_must_know_names_the_column_alone():
    past = mixed()
    past["solutions"][-1] = LEVEL | {"trusted": False, "doubt": "not solved", "note": "the first sentence"}
    shown = report.table(past)
    assert "RBF: the first sentence.\n" in shown and "? Not to be trusted: RBF: not solved.\n" in shown
    assert "44.00?" in shown and report.name_of(past["solutions"][0]) == "CNTK-V at depth 3"
    past["solutions"][-1]["note"] = ["no text"]
    assert "no text" not in report.table(past)


@pytest.mark.parametrize(
    ("depth", "sound"), [(None, True), (3, True), ("3", False), (3.0, False), (True, False)]
)
def test_a_record_reads_back_with_it(tmp_path, depth, sound):
    data = {"name": "a", "fingerprint": "f", "n_train": 2, "n_test": 2, "classes": 2, "preprocess": "none"}
    past = records.with_solutions(records.start("a", data), 1, [LEVEL | {"depth": depth}])
    records.save(past, tmp_path / "record.json")
    if sound:
        assert records.load(tmp_path / "record.json")["solutions"][0]["depth"] == depth
    else:
        with pytest.raises(UserError, match="solutions.0.depth is missing or of a wrong type"):
            records.load(tmp_path / "record.json")
