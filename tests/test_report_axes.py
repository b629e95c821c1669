"""Ticks, legends and text around figures never collide, whatever is drawn."""

import pytest
from records import record
from test_report_depth import figure as with_words

from cntk_bench.report import axes as shared
from cntk_bench.report import ridges
from cntk_bench.report.findings import RidgePath, Tried
from cntk_bench.report.style import own_settings


def wide(columns, depths):
    solutions = [
        {"column": column, "depth": depth, "accuracy": 40.0 + place + depth / 10, "standard_error": 1.0}
        for place, column in enumerate(columns)
        for depth in depths
    ]
    return record("digits", solutions=solutions)


COLUMNS = ["CNTK-V", "CNTK-GAP", "CNN-GP-V", "CNN-GP-GAP", "FC-NTK", "FC-NNGP", "CNTK-V-FLIP", "x" * 40]


@pytest.mark.parametrize("width", ["column", "page"])
@pytest.mark.parametrize(
    ("columns", "depths"),
    [
        (COLUMNS[:1], [3, 4]),
        (COLUMNS, [3, 4, 6, 11, 21]),
        (COLUMNS[:2], range(3, 22)),
        (COLUMNS[4:5], range(1, 41)),
    ],
)
def test_ticks_legend_and_words_do_not_collide(width, columns, depths):
    figure = with_words(wide(columns, depths), width=width)
    with own_settings():
        figure.draw_without_rendering()
    axes = figure.axes[0]
    inside = axes.get_legend()
    assert bool(inside) != bool(figure.legends)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        boxes = [label.get_window_extent() for label in labels if label.get_text()]
        assert len(boxes) >= 2
        assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))
    assert axes.get_xticklabels()[-1].get_text() == str(max(depths))
    apart = [*figure.texts, axes.xaxis.label, *figure.legends]
    apart = [one.get_window_extent() for one in apart]
    assert not any(a.overlaps(b) for i, a in enumerate(apart) for b in apart[:i])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in apart)
    if inside:
        box = inside.get_window_extent()
        for bars in axes.containers:
            assert not any(box.contains(*axes.transData.transform(xy)) for xy in bars[0].get_xydata())


def test_accuracies_of_0_and_100_have_no_impossible_ticks():
    solutions = wide(["CNTK-V"], [3, 4])["solutions"]
    for accuracies in ((0.0, 100.0), (99.9, 100.0), (0.0, 0.2)):
        for solution, accuracy in zip(solutions, accuracies, strict=True):
            solution["accuracy"] = accuracy
        axes = with_words(record("digits", solutions=solutions)).axes[0]
        assert all(0 <= tick <= 100 for tick in axes.get_yticks())
        low, high = axes.get_ylim()
        assert low < min(accuracies) and max(accuracies) < high


def test_depths_are_named_where_there_is_room():
    assert shared.apart([3, 4, 6, 11, 21], 300) == [3, 4, 6, 11, 21]
    assert shared.apart([5], 300) == [5] and shared.apart([], 300) == []
    shown = shared.apart(list(range(1, 1001)), 300)
    assert shown[:3] == [1, 2, 3] and shown[-1] == 1000 and len(shown) < 30
    assert shared.apart([10, 11], 10) == [11]


def test_powers_are_written_without_mathematics():
    found = [shared.power(x) for x in (1e-12, 1e-3, 0.1, 1, 10, 100, 1e6, 2e-5, 0)]
    assert found == ["10⁻¹²", "10⁻³", "0.1", "1", "10", "100", "10⁶", "2e-05", "0"]


def test_names_that_are_cut_are_told_apart():
    assert shared.cut(["cat", "dog"], 5) == ["cat", "dog"]
    assert shared.cut(["automobile", "dog"], 5) == ["auto…", "dog"]
    assert shared.cut(["class of one", "class of two"], 8) == ["0 class…", "1 class…"]


@pytest.mark.parametrize("width", ["column", "page"])
@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("words", [None, ("title", "note " * 40)])
def test_a_label_of_all_panels_stands_between_ticks_and_legend(width, columns, words):
    tried = [Tried(ridge, 90.0 + i, 1.0, 0.1, 99.0 - i, 2.0) for i, ridge in enumerate((0.0, 1e-6, 0.1))]
    paths = [RidgePath(f"CNTK-LAP{c}", depth, tuple(tried), 0.1) for c in range(columns) for depth in (3, 4)]
    figure = ridges.figure(paths, width=width, words=words)
    with own_settings():
        figure.draw_without_rendering()
    beneath = [*figure.texts, *figure.legends]
    beneath += [label for axes in figure.axes for label in axes.get_xticklabels() if label.get_visible()]
    boxes = {one: one.get_window_extent() for one in beneath if one in figure.legends or one.get_text()}
    for one in {*figure.texts, *figure.legends} & boxes.keys():
        assert not any(boxes[one].overlaps(box) for other, box in boxes.items() if other is not one)
    assert all(box.y0 >= 0 for box in boxes.values())
    bars = [found for axes in figure.axes for found in axes.collections]
    assert len(bars) == len(paths)  # one for each test accuracy
    (low, high), *_ = (segment[:, 1] for segment in bars[0].get_segments())
    assert (low, high) == (97.0, 101.0)
    assert max(tick for axes in figure.axes for tick in axes.get_yticks()) <= 100
