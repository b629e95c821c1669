"""Columns that nobody has, told in one short line; how what columns predict is scored."""

import numpy as np
import pytest

from cntk_bench.columns import Cell, find
from cntk_bench.errors import UserError
from cntk_bench.runs import solve

KNOWN = ("CNTK-V", "CNTK-GAP", "CNTK-LAP<c>", "CNN-GP-V", "CNN-GP-GAP", "CNN-GP-LAP<c>")
KNOWN += ("RBF", "LAPLACE", "SKLEARN-GP", "GPYTORCH-GP", "LINEAR")


@pytest.mark.parametrize(
    ("column", "remedy"),
    [
        ("x" * 10**6, f"use one of {', '.join(KNOWN)}"),
        ("CNTK-LAP" + "9" * 10**6, "did you mean CNTK-LAP<c>, such as CNTK-LAP4?"),
    ],
)
def test_a_long_unknown_column_is_shown_by_its_first_40_characters(column, remedy):
    with pytest.raises(UserError) as caught:
        find(column).needs(3)[0]
    assert str(caught.value) == f"column '{column[:40]}' is unknown: {remedy}"


def test_the_widest_window_of_a_column_is_that_of_a_readout():
    assert find("CNTK-LAP9999").needs(3)[0].pooling.number == 9999
    with pytest.raises(UserError, match="did you mean CNTK-LAP<c>, such as CNTK-LAP4"):
        find("CNTK-LAP10000").needs(3)[0]


def test_repeated_predictions_are_scored_one_by_one():
    truth = np.array([0, 1, 2, 3])
    rows = np.array([[0, 1, 2, 3], [0, 1, 2, 0], [0, 0, 0, 0], [1, 0, 0, 0]])  # 100, 75, 25, 0 %
    found = solve._scored(Cell(rows, {}, repeat=(7, 7, 9, 9)), truth)
    assert found["accuracy"] == 50 and found["accuracies"] == [87.5, 12.5]
    assert found["spread"] == pytest.approx(75 / 2**0.5) and found["standard_error"] == 25
    assert solve._scored(Cell(rows, {}), truth)["accuracies"] == [100, 75, 25, 0]
    assert solve._scored(Cell(rows[:1], {}), truth)["spread"] is None  # of one repetition nobody knows it
    assert "spread" not in solve._scored(Cell(rows[0], {}), truth)
