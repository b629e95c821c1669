"""Studies of pooling windows: a line for each window, with the numbers of Li et al. beside it."""

import numpy as np
import pytest
from records import record

from cntk_bench import report
from cntk_bench.report import grids, looks, pooling, windows
from cntk_bench.report.published import ENHANCED, Run, elsewhere, published

HALVES = (0, 4, 8, 12, 31)
KERNELS = ("CNTK", "CNN-GP", "CNTK-FLIP", "CNN-GP-FLIP")


def name(kernel, c):
    plain = kernel.removesuffix("-FLIP")
    return f"{plain}-{f'LAP{c}' if c else 'V'}{kernel.removeprefix(plain)}"


def study(kernels=KERNELS, depths=(6,), halves=HALVES, more=(), setting=None, **changes):
    """A record whose accuracies identify their cells: 10 for each kernel, c / 10, and depth / 100."""
    how = {"ridge": 5e-5, "normalize": "unit_diagonal"} if setting is None else setting
    solutions = [
        {"column": name(kernel, c), "depth": depth, "accuracy": 10.0 * place + c / 10 + depth / 100}
        for place, kernel in enumerate(kernels, 1)
        for c in halves
        for depth in depths
    ] + [{"column": column, "depth": depth, "accuracy": 5.0} for column in more for depth in depths]
    solutions = [{"standard_error": 1.0} | one | how for one in solutions]
    return record(**({"n_train": 100, "n_test": 200} | changes), solutions=solutions)


def test_a_line_for_each_window_and_a_group_for_each_kernel():
    (table,) = grids.grids(study())
    first, *groups = table
    assert first == ("depth 6", {"c": [str(c) for c in HALVES]})
    assert [title for title, _ in groups] == [*KERNELS, "published, 50,000 / 10,000"]
    for place, kernel in enumerate(KERNELS, 1):
        assert dict(groups)[kernel]["accuracy"] == [f"{10 * place + c / 10 + 0.06:.2f}" for c in HALVES]
    theirs = dict(groups)["published, 50,000 / 10,000"]
    assert theirs["CNTK"] == ["66.55", "77.06", "79.24", "80.11", "76.79"]
    assert theirs["CNN-GP-FLIP"] == ["67.90", "78.79", "81.32", "82.13", "78.49"]


def test_every_cell_is_shown_once_whatever_else_there_is():
    past = study(KERNELS[:2], depths=(3, 6), more=("CNTK-GAP", "RBF", "CNTK-LAP0"))
    by_depth, three, six = grids.grids(past)
    assert [title for title, _ in by_depth] == [
        "",
        "CNTK-GAP",
        "RBF",
        "CNTK-LAP0",
    ]  # window 0 is already shown as V
    assert [table[0][0] for table in (three, six)] == ["depth 3", "depth 6"]
    assert [title for title, _ in three] == ["depth 3", "CNTK", "CNN-GP"]  # nothing was published for depth 3
    assert six[-1][0] == "published, 50,000 / 10,000"
    text = report.table(past)
    for row in report.rows(past):
        assert f"{row['accuracy']:.2f}" in text


def test_few_windows_stand_beside_the_depths():
    past = study(("CNTK",), halves=(0, 4, 8))
    assert windows.studied(row["column"] for row in report.rows(past)) == {}
    (table,) = grids.grids(past)
    assert [title for title, _ in table] == ["", "CNTK-V", "CNTK-LAP4", "CNTK-LAP8"]
    assert "half-width" not in report.table(past)


def test_windows_that_a_kernel_lacks_are_missing():
    past = study(("CNTK",), halves=(4, 8, 12))
    past["solutions"] += study(("CNN-GP",), halves=(4, 8, 16))["solutions"]
    (table,) = grids.grids(past)
    assert dict(table)["CNTK"]["accuracy"][-1] == "-" == dict(table)["CNN-GP"]["accuracy"][2]


def test_as_many_images_are_compared_and_differences_shown():
    past = study(n_train=50_000, n_test=10_000)
    (table,) = grids.grids(past)
    assert [title for title, _ in table] == ["depth 6", *KERNELS]  # published numbers are inside the groups
    assert dict(table)["CNTK"]["published"] == ["66.55", "77.06", "79.24", "80.11", "76.79"]
    assert dict(table)["CNTK"]["difference"][0] == f"{10.06 - 66.55:+.2f}"
    assert "Published for the same numbers of images: Li et al. 2019" in report.table(past)


@pytest.mark.parametrize(
    "changes",
    [
        {"setting": {"ridge": 0.0}},  # the paper uses a unit diagonal
        {"setting": {"ridge": 1e-3, "normalize": "unit_diagonal"}},
        {"dataset": "digits"},
        {"depths": (4,)},
    ],
)
def test_what_was_solved_otherwise_has_nothing_beside_it(changes):
    (table,) = grids.grids(study(**changes))
    assert not [title for title, _ in table if title.startswith("published")]
    assert ENHANCED not in report.table(study(**changes))


def test_notes_say_what_c_and_the_published_numbers_are():
    text = report.table(study())
    assert f"published, for other numbers of training / test images: {ENHANCED}. Only how accuracy" in text
    assert "c: half-width of the pooling window" in text and "0: no pooling (V)" in text
    assert "2,000 / 10,000" not in text  # these sizes have another setting
    assert max(map(len, text.splitlines()[:9])) < 130
    plain = report.table(study(setting={"ridge": 0.0}))
    assert "not comparable: 2,000 / 10,000, 50,000 / 10,000" in plain  # published for CNTK-V


@pytest.mark.parametrize("form", ["markdown", "latex", "csv", "json"])
def test_every_format_has_every_number(form):
    past = study(depths=(3, 6))
    text = report.table(past, form)
    for row in report.rows(past):
        assert (f"{row['accuracy']:.2f}" if form in ("markdown", "latex") else str(row["accuracy"])) in text
    assert ("66.55" in text) == (form in ("markdown", "latex"))  # csv and json have only comparable numbers


def test_doubts_are_marked():
    past = study()
    past["solutions"][2] |= {"trusted": False, "doubt": "not solved"}
    (table,) = grids.grids(past)
    assert dict(table)["CNTK"]["accuracy"][2] == "10.86?" and "CNTK-LAP8 at depth 6" in report.table(past)


def test_what_was_published_elsewhere():
    here = Run("cifar10", 100, 200)
    found = elsewhere(here, "CNTK-V", 3)
    assert (found.accuracy, found.sizes) == (64.47, (50_000, 10_000))
    assert elsewhere(Run("cifar10", 50_000, 10_000), "CNTK-V", 3).sizes == (2_000, 10_000)
    assert published(here, "CNTK-V", 3) is None is elsewhere(here, "CNTK-V", 5)
    assert elsewhere(Run("cifar10", 100, 200, (0, 2)), "CNTK-V", 3) is None
    # The published ones are means over draws.
    assert elsewhere(Run("cifar10", 30, 10_000), "CNTK-GAP", 15) is None


def test_the_figure_draws_what_the_table_says(monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    past = study(depths=(3, 6))
    past["solutions"][2] |= {"trusted": False, "doubt": "not solved"}
    report.write(past, tmp_path)
    assert {"windows.png", "windows.svg"} <= {file.name for file in tmp_path.iterdir()}
    measured, theirs = figures[-1].axes
    bars = {bar.get_label(): bar for bar in measured.containers}
    assert list(bars) == [f"{kernel}, depth {depth}" for kernel in KERNELS for depth in (3, 6)]
    for place, kernel in enumerate(KERNELS, 1):
        line = bars[f"{kernel}, depth 6"][0]
        expected = [(c, 10 * place + c / 10 + 0.06) for c in HALVES]
        np.testing.assert_allclose(line.get_xydata(), expected)
        assert line.get_color() == looks.of(name(kernel, 0)).colour
    known = {bar.get_label(): bar[0] for bar in theirs.containers}
    assert known["CNTK, depth 6"].get_ydata().tolist() == [66.55, 77.06, 79.24, 80.11, 76.79]
    assert [(text.get_text(), text.xy) for text in measured.texts] == [
        ("?", (4, past["solutions"][2]["accuracy"]))
    ]
    assert ENHANCED in figures[-1].texts[-1].get_text().replace("\n", " ")
    (alone,) = pooling.figure(study(n_train=50_000, n_test=10_000)).axes
    labels = [bar.get_label() for bar in alone.containers]
    assert "CNTK, depth 6, published" in labels and len(labels) == 8


def test_other_records_have_no_such_figure(tmp_path):
    report.write(record(), tmp_path)
    assert not list(tmp_path.glob("windows.*"))
