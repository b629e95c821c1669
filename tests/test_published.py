"""Published numbers belong to a version, a data set and sizes."""

import pytest

from cntk_bench.published import BLOG, FINITE, FIRST, LOW_DATA, NEURIPS, TABLES, Run, published, sizes

WHOLE = Run("cifar10", 50_000, 10_000)


@pytest.mark.parametrize(
    ("source", "sums"),
    [  # of each row of the printed table, so that no digit is changed by mistake
        (NEURIPS, {3: 258.72, 4: 282.58, 6: 290.62, 11: 295.73, 21: 300.04}),
        (FIRST, {3: 254.87, 4: 284.15, 6: 287.76, 11: 289.75, 21: 302.96}),
        (BLOG, {3: 255.07, 4: 284.15, 6: 287.76, 11: 289.75, 21: 302.96}),
    ],
)
def test_the_tables_of_the_whole_data_set(source, sums):
    columns = ("CNTK-V", "CNTK-GAP", *FINITE)
    for depth, total in sums.items():
        found = [published(WHOLE, column, depth, source) for column in columns]
        assert sum(accuracy for accuracy, _ in found) == pytest.approx(total)
        assert {where for _, where in found} == {source}


def test_the_version_of_the_conference_comes_first():
    assert published(WHOLE, "CNTK-V", 3) == (64.47, NEURIPS)
    assert published(WHOLE, "CNTK-V", 3, BLOG) == (64.67, BLOG)
    assert published(WHOLE, "CNN-GAP", 3) == (63.81, NEURIPS)


@pytest.mark.parametrize(
    ("run", "column", "depth", "accuracy"),
    [
        (Run("cifar10", 2_000, 10_000), "CNTK-GAP", 21, 52.22),
        (Run("cifar10", 2_000, 10_000), "CNN-GAP", 21, None),
        (Run("cifar10", 10_000, 2_000, (0, 1)), "CNTK-GAP", 3, 71.05),
        (Run("cifar10", 10_000, 2_000), "CNTK-GAP", 3, None),
        (Run("cifar10", 160, 10_000), "CNTK-GAP", 15, 30.48),
        (Run("cifar10", 160, 10_000), "CNTK-GAP", 6, 29.63),
        (Run("cifar10", 160, 200), "CNTK-GAP", 15, None),
        (WHOLE, "CNTK-GAP", 5, None),
        (WHOLE, "CNTK-LAP4", 3, None),
        (Run("svhn", 50_000, 10_000), "CNTK-V", 3, None),
        (Run("npz", 50_000, 10_000), "CNTK-V", 3, None),
        (Run("cifar10", 50_000, 9_999), "CNTK-V", 3, None),
    ],
)
def test_only_what_is_alike(run, column, depth, accuracy):
    found = published(run, column, depth)
    assert (found and found[0]) == accuracy


def test_sizes_are_those_of_the_columns_asked_for():
    assert sizes(WHOLE, ("CNTK-V",)) == [(2_000, 10_000), (50_000, 10_000)]
    assert sizes(WHOLE, ("CNN-V",)) == [(50_000, 10_000)]
    assert sizes(Run("cifar10", 5, 5, (0, 1)), ("CNTK-V",)) == [(10_000, 2_000)]
    assert len([table for table in TABLES if table.source == LOW_DATA]) == 8
    assert sizes(Run("digits", 5, 5), ("CNTK-V",)) == []
