"""Columns that nobody has: told in one short line."""

import pytest

from cntk_bench.columns import find
from cntk_bench.errors import UserError


@pytest.mark.parametrize(
    ("column", "remedy"),
    [
        ("x" * 10**6, "use one of CNTK-V, CNTK-GAP, CNTK-LAP<c>, CNN-GP-V, CNN-GP-GAP, CNN-GP-LAP<c>"),
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
