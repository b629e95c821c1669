"""Unknown columns are refused in one short line; and how the predictions of columns are scored."""

import numpy as np
import pytest

from cntk_bench.columns import Cell, find, network
from cntk_bench.errors import UserError
from cntk_bench.networks.folder import Result
from cntk_bench.records import record
from cntk_bench.regression import prediction
from cntk_bench.runs import candidates, scoring

KNOWN = ("CNTK-V", "CNTK-GAP", "CNTK-LAP<c>", "CNN-GP-V", "CNN-GP-GAP", "CNN-GP-LAP<c>")
KNOWN += ("FC-NTK", "FC-NTK-B<b>", "FC-NNGP", "FC-NNGP-B<b>")
KNOWN += ("CNN-V", "CNN-GAP", "FC-NN", "RBF", "LAPLACE", "SKLEARN-GP", "GPYTORCH-GP", "LINEAR")


@pytest.mark.parametrize(
    ("column", "remedy"),
    [
        ("x" * 10**6, f"use one of {', '.join(KNOWN)}; or a kernel followed by -FLIP"),
        ("CNTK-LAP" + "9" * 10**6, "did you mean CNTK-LAP<c>, such as CNTK-LAP4?"),
        ("cntk_gap-flip", "did you mean CNTK-GAP-FLIP?"),
        ("CNTK-GAP-FLIPP", "did you mean CNTK-GAP-FLIP?"),
        ("FC-NTKK-FLP", "did you mean FC-NTK-FLIP?"),
        ("CNTK-LAP-FLIP", "did you mean CNTK-LAP<c>-FLIP, such as CNTK-LAP4-FLIP?"),
        ("fc-ntk", "did you mean FC-NTK?"),
        ("FC-NTK-b0.1-FLIP", "did you mean FC-NTK-B<b>-FLIP, such as FC-NTK-B0.1-FLIP?"),
        ("FC-NTK-B0", "did you mean FC-NTK?"),
        ("FC-NTK-B0.10-FLIP", "did you mean FC-NTK-B0.1-FLIP?"),
        ("CNTK-GAP-FLIP-FLIP", "did you mean CNTK-GAP-FLIP?"),
        ("RBF-FLIP", "did you mean RBF?"),
        ("cnn-gap-flip", "did you mean CNN-GAP?"),
    ],
)
def test_a_long_unknown_column_is_shown_by_its_first_40_characters(column, remedy):
    with pytest.raises(UserError) as caught:
        find(column).needs(3)[0]
    told = str(caught.value)
    assert told.startswith(f"column '{column[:40]}' is unknown: {remedy}") and len(told) < 300


def test_the_widest_window_of_a_column_is_that_of_a_readout():
    assert find("CNTK-LAP9999").needs(3)[0].pooling.number == 9999
    with pytest.raises(UserError, match="did you mean CNTK-LAP<c>, such as CNTK-LAP4"):
        find("CNTK-LAP10000").needs(3)[0]


@pytest.mark.parametrize(
    ("column", "readout"),
    [
        ("CNTK-GAP-FLIP", "ntk-gap-3-hidden-flip"),
        ("CNN-GP-LAP4-FLIP", "nngp-lap4-3-flip"),
        ("FC-NTK", "fc-ntk-3"),
        ("FC-NNGP-FLIP", "fc-nngp-3-flip"),
        ("FC-NTK-B0.1", "fc-ntk-3-b0.1"),
        ("FC-NTK-B0.1-FLIP", "fc-ntk-3-b0.1-flip"),
    ],
)
def test_a_column_reads_out(column, readout):
    assert [str(needed) for needed in find(column).needs(3)] == [readout]
    assert find(column).name == column


def test_depths_and_biases_that_are_impossible():
    with pytest.raises(UserError, match="depth 0 is not possible for fc-ntk: use an integer of at least 1"):
        find("FC-NTK").needs(0)
    with pytest.raises(UserError, match="depth 2 is not possible for ntk/gap/hidden"):
        find("CNTK-GAP-FLIP").needs(2)
    with pytest.raises(UserError, match="bias 1e-05 is not possible: use 0, or a number from 0.001 to 1000"):
        find("FC-NTK-B0.00001")


def test_repeated_predictions_are_scored_one_by_one():
    truth = np.array([0, 1, 2, 3])
    rows = np.array([[0, 1, 2, 3], [0, 1, 2, 0], [0, 0, 0, 0], [1, 0, 0, 0]])  # accuracies 100, 75, 25, 0 %
    found = scoring.scored(Cell(rows, {}, repeat=(7, 7, 9, 9)), truth)
    assert found["accuracy"] == 50 and found["accuracies"] == [87.5, 12.5]
    assert found["spread"] == pytest.approx(75 / 2**0.5) and found["standard_error"] == 25
    assert scoring.scored(Cell(rows, {}), truth)["accuracies"] == [100, 75, 25, 0]
    assert scoring.scored(Cell(rows[:1], {}), truth)["spread"] is None  # one repetition has no spread
    assert "spread" not in scoring.scored(Cell(rows[0], {}), truth)


def test_repetitions_count_alike_however_many_predictions_each_has():
    """Networks learn all images after different numbers of epochs, so some have more predictions."""
    truth = np.array([0, 1, 2, 3])
    rows = np.array([[0, 1, 2, 3], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = scoring.scored(Cell(rows, {}, repeat=(0, 1, 1, 1)), truth)
    assert found["accuracies"] == [100, 25] and found["accuracy"] == 62.5
    assert found["standard_error"] == pytest.approx(100 * (0.625 * 0.375 / 4) ** 0.5)


def test_networks_held_out_accuracies_count_alike_however_many_epochs_each_has():
    def result(rows):
        made = {"devices": ["cpu"]}
        return Result(len(rows), None, [(0.0, 1.0)], None, np.array(rows, np.int16), {}, made)

    some = {0: result([[0, 1, 7], [0, 1, 8]]), 2: result([[1, 1, 9]])}
    found = network._candidate(0.1, some, np.array([0, 1]))
    assert found["facts"]["validation_accuracy"] == 75 and found["repeat"] == (0, 0, 2)
    assert found["predicted"].tolist() == [[7], [8], [9]]


def test_the_candidate_that_is_shown():
    truth = np.array([0, 1, 2, 3])
    rows = np.array([[0, 1, 0, 0], [0, 1, 2, 0], [0, 1, 2, 9]])  # accuracies 50, 75, 75 %
    some = tuple(Cell(row[None], {"rate": rate}) for rate, row in enumerate(rows))

    def shown(**how):
        cell = Cell(np.empty((0, 0), np.int64), {"chosen_by": "x"}, candidates=some, **how)
        return candidates.shown(cell, truth, scoring.scored)

    cell, score = shown()  # of the best on the test images, the first is shown
    assert (score["accuracy"], score["rate"], score["chosen"], score["chosen_by"]) == (75, 1, 1, "x")
    assert [(c["rate"], c["accuracy"]) for c in score["candidates"]] == [(0, 50), (1, 75), (2, 75)]
    assert (cell.predicted == rows[1]).all()
    cell, score = shown(chosen=0)  # the column has chosen, so the test labels do not
    assert (score["accuracy"], score["rate"], score["chosen"]) == (50, 0, 0)
    cell, score = candidates.shown(Cell(rows[0], {}), truth, scoring.scored)
    assert score["accuracy"] == 50 and "candidates" not in score


def test_a_cell_without_any_prediction_has_no_accuracy():
    score = scoring.scored(Cell(np.empty((0, 0), np.int64), {"doubt": "all failed"}), np.array([0, 1]))
    assert (score["accuracy"], score["trusted"], score["doubt"]) == (None, False, "all failed")
    record.check_solutions("file", [{"column": "CNN-V", "depth": 3, **score}])
    with pytest.raises(UserError, match="accuracy is not between 0 and 100"):
        record.check_solutions("file", [{"column": "CNN-V", "depth": 3, "accuracy": 101}])


def test_black_test_images_are_named_as_what_they_are():
    """No ridge changes kernels that are 0, so none is advised."""
    block = np.ones((10, 3))
    block[:4] = 0
    found = prediction.predict(np.array([[1.0, 0.0]] * 3), [block], residual=1e-9)
    assert found.black == 4
    cell = Cell(found.classes, {}, found.undecided, black=found.black)
    few = scoring.doubt(0, 1.0, 1000, "raise solve.ridge", black=2)
    told = scoring.doubt(found.undecided, 1.0, 10, cell.remedy, cell.black)
    assert told.startswith("4 of 10 test images are black") and "ridge" not in told and few is None
    assert "could change the class of 90 %" in scoring.doubt(9, 1.0, 10, "raise solve.ridge", black=1)
