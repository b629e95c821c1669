"""Figures of confusion matrices, misclassified images and eigenvalues, from plain arrays."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from cntk_bench.errors import UserError
from cntk_bench.report import confusion, looks, misclassified, page_tables, spectrum, style
from cntk_bench.report.findings import Eigenvalues

RNG = np.random.default_rng(0)


def test_counts_are_scikit_learns():
    true, predicted = RNG.integers(0, 7, (2, 500))
    np.testing.assert_array_equal(confusion.counted(true, predicted, 7), confusion_matrix(true, predicted))
    for true, predicted, classes in (([0], [0, 1], 2), ([0.5], [0], 2), ([2], [0], 2), ([-1], [0], 2)):
        with pytest.raises(UserError):
            confusion.counted(true, predicted, classes)


def test_a_class_without_test_images_has_no_accuracy():
    counts = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 998]])
    found = page_tables.confused(counts, ["cat", "dog", "owl"])
    assert [row[1:5] for row in found.rows] == [
        ["4", "3", "75.0", "21.7"],  # the error is 100 (3/4 1/4 / 4)^(1/2)
        ["0", "0", page_tables.MISSING, page_tables.MISSING],
        ["1000", "998", "99.8", "0.1"],
    ]


def test_the_matrix_is_drawn_row_by_row_in_percent():
    counts = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 998]])
    drawn = confusion.figure(counts, ["cat", "dog & _x_$", "数字"])
    axes = drawn.axes[0]
    (picture,) = axes.get_images()
    np.testing.assert_allclose(picture.get_array(), [[75, 25, 0], [0, 0, 0], [0.2, 0, 99.8]])
    written = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    # Keys are (predicted, true).
    assert written == {(0, 0): "75.0", (1, 0): "25.0", (0, 2): "0.2", (2, 2): "99.8"}
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog & _x_$", "数字"]
    (hatched,) = axes.patches
    assert (hatched.get_y(), hatched.get_height()) == (0.5, 1)  # the second class has no test images
    counted = confusion.figure(counts, percent=False).axes[0]
    np.testing.assert_allclose(counted.get_images()[0].get_array(), counts)
    assert "998" in {text.get_text() for text in counted.texts}


def test_what_has_mistakes_is_never_100_percent():
    few = np.array([[9996, 4], [0, 1]])
    assert [row[3] for row in page_tables.confused(few, ["a", "b"]).rows] == ["99.9", "100.0"]
    assert [text.get_text() for text in confusion.figure(few).axes[0].texts] == ["99.9", "<0.1", "100.0"]
    many = np.diag([500] * 14)
    many[0, :2] = 498, 2
    drawn = confusion.figure(many, width="column")  # without room for decimals
    written = {text.get_position(): text.get_text() for text in drawn.axes[0].texts}
    assert (written[0, 0], written[1, 0], written[1, 1]) == (">99", "<1", "100")


@pytest.mark.parametrize(("k", "width"), [(2, "column"), (10, "column"), (43, "text"), (100, "page")])
def test_any_number_of_classes_can_be_read(k, width):
    counts = RNG.integers(0, 30, (k, k))
    drawn = confusion.figure(counts, [f"class number {i}" for i in range(k)], width=width)
    with style.own_settings():
        drawn.draw_without_rendering()
    axes = drawn.axes[0]
    box = axes.get_window_extent()
    assert abs(box.width / box.height - 1) < 0.02
    for place, labels in ((0, axes.get_xticklabels()), (1, axes.get_yticklabels())):
        extents = [label.get_window_extent() for label in labels]
        sides = sorted((e.intervalx if place == 0 else e.intervaly).tolist() for e in extents)
        assert all(a[1] <= b[0] + 0.5 for a, b in zip(sides, sides[1:], strict=False))
        assert all(label.get_fontsize() >= 4.5 for label in labels)
    cell = box.width / k
    assert all(text.get_window_extent().width < cell and text.get_fontsize() >= 4.5 for text in axes.texts)
    assert bool(axes.texts) == (k <= 10)


def test_impossible_matrices_are_refused():
    for counts in ([[1]], [[1, 2]], [[1, -1], [0, 0]], [[0.5, 0], [0, 0]], np.zeros((1001, 1001), int)):
        with pytest.raises(UserError):
            confusion.figure(counts)
    with pytest.raises(UserError, match="1 names for 2 classes"):
        confusion.figure(np.eye(2, dtype=int), ["a"])


def test_the_sample_goes_from_the_gravest_to_the_slightest_mistake():
    outputs = RNG.standard_normal((200, 5))
    true = RNG.integers(0, 5, 200)
    which, predicted, margins = misclassified.sample(outputs, true, 10)
    of_all = {i: outputs[i].max() - outputs[i, true[i]] for i in range(200) if outputs[i].argmax() != true[i]}
    assert len(which) == 10 == len(set(which.tolist()))
    np.testing.assert_allclose(margins, [of_all[i] for i in which])
    assert margins[0] == max(of_all.values()) and margins[-1] == min(of_all.values())
    assert (np.diff(margins) <= 0).all() and (predicted == outputs[which].argmax(1)).all()
    assert len(misclassified.sample(outputs, true, 1000)[0]) == len(of_all)
    assert len(misclassified.sample(np.eye(3), np.arange(3))[0]) == 0
    for bad in ((outputs, true[:-1]), (outputs[0], true), (outputs, true + 1), (outputs * np.nan, true)):
        with pytest.raises(UserError):
            misclassified.sample(*bad)


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 1, 8, 8), (5, 3, 8, 8)])
def test_images_are_drawn_as_they_are(shape):
    images = RNG.integers(0, 256, shape).astype(np.uint8)
    drawn = misclassified.figure(
        images, [0, 1, 0, 1, 1], [1, 0, 1, 0, 0], [2.0, 1, 0.5, 0.25, 0.1], ["cat", "dog"]
    )
    assert len(drawn.axes) == 5
    shown = np.asarray(drawn.axes[2].get_images()[0].get_array())
    expected = (
        images[2] if images.ndim == 3 else images[2, 0] if shape[1] == 1 else images[2].transpose(1, 2, 0)
    )
    np.testing.assert_allclose(shown, expected / 255)
    assert drawn.texts[1].get_text() == "dog\n→ cat\n+1.00"
    assert "minus that of the true one" in drawn.texts[-1].get_text().replace("\n", " ")
    scaled = misclassified._pictures(np.array([[[-1.0, 3.0]], [[1.0, 0.0]]]))
    np.testing.assert_allclose(scaled, [[[0, 1]], [[0.5, 0.25]]])


def test_impossible_images_are_refused():
    one = np.zeros((1, 4, 4))
    for bad in (
        (np.zeros((0, 4, 4)), [], [], []),
        (np.zeros((1, 2, 4, 4)), [0], [1], [1.0]),
        (one, [0, 1], [1], [1.0]),
        (one * np.nan, [0], [1], [1.0]),
        (one, [0], [2], [1.0], ["a", "b"]),
    ):
        with pytest.raises(UserError):
            misclassified.figure(*bad)
    with pytest.raises(UserError, match="class -1 has no name"):
        misclassified.figure(one, [-1], [1], [1.0], ["a", "b"])


def eigenvalues(column, depth, values, mean=1.0, noise=0.0, ridge=None):
    return Eigenvalues(column, depth, np.array(values, float), mean, 0, noise, ridge)


def test_eigenvalues_are_drawn_in_units_of_their_mean():
    values = np.array([1.0, 100.0, 10.0, 1e-9, -1e-9, 0.001])
    mean = values.mean()
    drawn = spectrum.figure([eigenvalues("CNTK-GAP", 3, values, mean, noise=0.01, ridge=0.1)])
    axes = drawn.axes[0]
    above, pale, ridge = axes.lines
    np.testing.assert_allclose(above.get_xydata(), [[1, 100 / mean], [2, 10 / mean], [3, 1 / mean]])
    # Negative ones are left out.
    np.testing.assert_allclose(pale.get_ydata(), np.array([1, 0.001, 1e-9]) / mean)
    assert pale.get_alpha() < 1 and above.get_color() == looks.of("CNTK-GAP").colour
    np.testing.assert_allclose(ridge.get_ydata(), 0.1)
    (band,) = axes.patches
    np.testing.assert_allclose(band.get_y() + band.get_height(), 0.01 / mean)
    assert {text.get_text() for text in axes.texts} == {"ridge", spectrum.FLOOR}
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    far = spectrum.figure([eigenvalues("RBF", None, [3.0, 2.0, 1.0], noise=1e-6)]).axes[0]
    assert not far.patches and not far.texts


def test_columns_have_colours_and_depths_dashes():
    some = [eigenvalues(c, d, np.arange(1.0, 30)) for c in ("CNTK-V", "FC-NTK") for d in (3, 6)]
    lines = spectrum.figure(some).axes[0].lines
    assert [line.get_color() for line in lines] == ["#0072B2"] * 2 + ["#882255"] * 2
    assert [line.get_linestyle() for line in lines] == ["-", "--"] * 2
    for bad in (
        [],
        [eigenvalues("a", 1, [])],
        [eigenvalues("a", 1, [np.nan])],
        [eigenvalues("a", 1, [-1.0])],
    ):
        with pytest.raises(UserError):
            spectrum.figure(bad)


def test_files_are_the_same_whatever_the_settings_and_fonts_are_embedded():
    import matplotlib

    def drawn(kind):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return style.image(confusion.figure(np.eye(2, dtype=int), ["数字 🎉", r"\frac{$"]), kind)

    before = {kind: drawn(kind) for kind in ("pdf", "svg", "png")}
    with matplotlib.rc_context(
        {"text.usetex": True, "pdf.fonttype": 3, "font.size": 30, "svg.hashsalt": "x"}
    ):
        assert {kind: drawn(kind) for kind in before} == before
    assert b"/CIDFontType2" in before["pdf"] and b"/Type3" not in before["pdf"]
    assert b"CreationDate" not in before["pdf"] and b"<dc:date>" not in before["svg"]
