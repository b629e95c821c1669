"""Figures: what they draw, whatever the user's settings."""

import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from records import record

from cntk_bench import report
from cntk_bench.errors import UserError
from cntk_bench.report import depth, looks, style
from cntk_bench.report.notes import title


def figure(past, **how):
    """A record's figure, with title and note."""
    return depth.figure(past, words=(title(past), depth.note(past)), **how)


def saved(past, stem, *kinds):
    """Write a record's figure; returns the files."""
    return style.save(stem, lambda: figure(past), kinds)


def test_plots_are_images_and_repeatable_alone_and_together(tmp_path):
    starts = {"png": b"\x89PNG\r\n", "svg": b"<?xml", "pdf": b"%PDF-"}
    files = saved(record(), tmp_path / "a", *starts)
    assert files == [tmp_path / f"a.{kind}" for kind in starts]
    for file, (kind, start) in zip(files, starts.items(), strict=True):
        first = file.read_bytes()
        assert first.startswith(start) and len(first) > 10_000
        (alone,) = saved(record(), tmp_path / "again", kind)
        assert alone.read_bytes() == first


def drawn(past, **how):
    """The axes of a record's figure."""
    return figure(past, **how).axes[0]


def test_the_plot_draws_what_the_table_says():
    axes = drawn(record())
    bars = {bar.get_label(): bar for bar in axes.containers}
    assert list(bars) == ["CNTK-V", "CNTK-GAP"]
    line, _, (ends,) = bars["CNTK-GAP"]
    assert line.get_xydata().tolist() == [[3, 33.0], [21, 36.4]]
    assert [segment[:, 1].tolist() for segment in ends.get_segments()] == [[32.5, 33.5], [35.9, 36.9]]
    published = {line.get_label(): line for line in axes.lines}["CNTK-V, published"]
    assert published.get_ydata().tolist() == [64.47, 64.09] and published.get_linestyle() == "--"
    assert published.get_markerfacecolor() == "white"
    assert len(drawn(record("digits")).containers) == 2


def test_without_a_standard_error_there_is_no_bar():
    solutions = record("digits")["solutions"]
    solutions[0]["standard_error"] = None
    _, _, (ends,) = drawn(record("digits", solutions=solutions)).containers[0]
    none, some = ends.get_segments()
    assert not np.isfinite(none).any() and np.isfinite(some).all()


def test_a_column_has_its_colour_whatever_else_is_drawn():
    both = drawn(record()).containers
    alone = drawn(record(solutions=record()["solutions"][2:])).containers
    assert both[1][0].get_color() == alone[0][0].get_color() != both[0][0].get_color()


def test_lines_markers_and_colours_are_those_of_the_columns():
    solutions = [
        {"column": column, "depth": depth, "accuracy": 50.0, "standard_error": 1.0, "ridge": 0.0}
        for column in ("FC-NTK", "CNTK-V-FLIP", "of another package")
        for depth in (3, 4)
    ]
    axes = drawn(record("digits", solutions=solutions))
    # With fully connected networks, depths cannot count convolutions.
    assert axes.get_xlabel() == "depth (layers of weights)"
    for bars in axes.containers:
        look, line = looks.of(bars.get_label()), bars[0]
        assert (line.get_color(), line.get_marker()) == (look.colour, look.marker)
        assert line.get_linestyle() == ("-" if look.line == "-" else "--")


def test_of_one_depth_each_column_has_a_row_of_its_own():
    solutions = [solution for solution in record()["solutions"] if solution["depth"] == 3]
    solutions.append({"column": "RBF", "depth": None, "accuracy": 20.0, "standard_error": 1.0})
    axes = drawn(record(solutions=solutions))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["CNTK-V", "CNTK-GAP", "RBF"]
    assert [bars[0].get_xydata().tolist() for bars in axes.containers] == [[[30.2, 0]], [[33, 1]], [[20, 2]]]
    published = [line for line in axes.lines if line.get_label() == "CNTK-GAP, published"]
    assert published[0].get_xydata().tolist() == [[70.47, 1]]


def test_a_doubt_is_drawn_beside_its_point():
    assert list(drawn(record()).texts) == []
    solutions = record()["solutions"]
    solutions[2]["trusted"] = False
    axes = drawn(record(solutions=solutions))
    assert [(text.get_text(), text.xy) for text in axes.texts] == [("?", (3, 33.0))]
    said = axes.figure.texts[-1].get_text()
    assert said.startswith("Bars: one standard error. ?: not to be trusted. Published (hollow): Arora")


def test_axes_say_what_they_are():
    axes = drawn(record())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("depth (3x3 convolutions + 1)", "test accuracy (%)")
    assert axes.get_xscale() == "log" and axes.get_xticks(minor=True).size == 0
    assert [label.get_text() for label in axes.get_xticklabels()] == ["3", "21"]
    assert axes.figure.texts[0].get_text().replace("\n", " ") == title(record())
    assert [name for name, spine in axes.spines.items() if spine.get_visible()] == ["left", "bottom"]
    assert [axes.containers[i][0].get_color() for i in (0, 1)] == ["#0072B2", "#D55E00"]


def test_without_words_the_axis_says_what_bars_are():
    (axes,) = depth.figure(record()).axes
    assert axes.get_ylabel() == "test accuracy ± s.e. (%)"
    assert [text.get_text() for text in axes.figure.texts] == ["", ""]


def test_figures_have_the_width_that_is_asked_for():
    for width, inches in (("column", 3.25), ("text", 5.5), ("page", 6.75), (4, 4.0), ("4.5", 4.5)):
        assert drawn(record(), width=width).figure.get_figwidth() == inches
    for width in ("wide", 1, "31", "nan", None):
        with pytest.raises(UserError, match="width .* is not possible: use column"):
            drawn(record(), width=width)


def test_a_long_title_is_on_several_lines():
    for name in ("word " * 14, "数 " * 40):
        axes = drawn(record(name=name), width="column")
        shown = axes.figure.texts[0]
        assert len(shown.get_text().splitlines()) > 1
        with style.own_settings():
            assert shown.get_window_extent().x1 < axes.figure.bbox.x1


def test_the_legend_names_each_column_and_what_is_published_once():
    figure = drawn(record()).figure
    (legend,) = figure.legends or [figure.axes[0].get_legend()]
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["CNTK-V", "CNTK-GAP", "published"]


SETTINGS = {
    "text.usetex": True,
    "font.family": ["Nowhere"],
    "savefig.dpi": 5,
    "figure.dpi": 5,
    "savefig.transparent": True,
    "axes.formatter.use_locale": True,
}


def test_other_peoples_settings_change_nothing_and_stay_as_they_were(tmp_path, monkeypatch):
    import matplotlib

    saved(record(), tmp_path / "plain", "png")
    monkeypatch.setenv("MPLBACKEND", "module://nowhere")
    monkeypatch.setattr(logging.getLogger("matplotlib"), "level", 17)
    with matplotlib.rc_context(SETTINGS):
        before = [dict(matplotlib.rcParams.copy()), dict(os.environ), warnings.filters[:]]
        assert saved(record(), tmp_path / "theirs", "png")
        assert [dict(matplotlib.rcParams.copy()), dict(os.environ), warnings.filters] == before
    assert logging.getLogger("matplotlib").level == 17
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "theirs.png").read_bytes()


def a_folder(path):
    path.mkdir()


def a_file_that_is_not_utf8(path):
    path.write_bytes(b"\xff\xfe\n")


def settings_of_all_kinds(path):
    path.write_text("savefig.dpi: 5\ntext.usetex: True\nbackend: rubbish\nrubbish: 1\nno colon\n")


DRAW = """
import json, os, sys
from cntk_bench.report import depth, style
from cntk_bench.report.notes import title
before, here = dict(os.environ), os.getcwd()
past = json.loads(sys.argv[1])
style.save(sys.argv[2], lambda: depth.figure(past, words=(title(past), depth.note(past))), ["png"])
assert (dict(os.environ), os.getcwd()) == (before, here)
"""


@pytest.mark.parametrize(
    ("variables", "make", "place"),
    [
        ({"MPLBACKEND": "module://nowhere"}, None, None),
        ({"MPLCONFIGDIR": os.devnull, "HOME": "/nowhere"}, None, None),
        ({"MATPLOTLIBRC": "settings"}, a_file_that_is_not_utf8, "settings"),
        ({}, a_file_that_is_not_utf8, "matplotlibrc"),
        ({}, settings_of_all_kinds, "matplotlibrc"),
        ({}, os.mkfifo, "matplotlibrc"),
        ({}, a_folder, "matplotlibrc"),
        ({"MPLCONFIGDIR": "."}, a_folder, "stylelib"),
        ({"MPLCONFIGDIR": "."}, a_file_that_is_not_utf8, "stylelib/a.mplstyle"),
    ],
)
def test_no_surroundings_change_the_figure(tmp_path, variables, make, place):
    saved(record(), tmp_path / "plain", "png")
    there = tmp_path / "there"
    there.mkdir()
    if place:
        (there / place).parent.mkdir(exist_ok=True)
        make(there / place)
    package = str(Path(report.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", DRAW, json.dumps(record()), str(tmp_path / "theirs")],
        cwd=there,
        env=os.environ | {"PYTHONPATH": package} | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "theirs.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def test_a_matplotlib_that_is_in_use_stays_as_it_is(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    monkeypatch.chdir(tmp_path)
    os.mkfifo("matplotlibrc")
    before = {name: module for name, module in sys.modules.items() if name.startswith("matplotlib")}
    assert saved(record(), tmp_path / "a", "svg")
    assert before.items() <= sys.modules.items() and sys.modules["matplotlib.figure"].Figure is Figure
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize(
    "name", ["$x$ and $", r"$\frac{$", r"\frac{", "数字 größe", "a" * 10**6, "\x1b]0;title\x07"]
)
def test_any_name_is_drawn_without_a_warning(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved(record(name=name), tmp_path / "a", "svg")
    assert (tmp_path / "a.svg").stat().st_size < 10**6


def test_a_matplotlib_that_fails_costs_only_the_figures(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report.write(record(), tmp_path / "report")
    assert {path.suffix for path in (tmp_path / "report").iterdir()} == {
        ".txt",
        ".md",
        ".csv",
        ".json",
        ".tex",
    }
    (message,) = caplog.messages
    assert message.startswith("no figure accuracy.png, Matplotlib cannot draw: ModuleNotFoundError: ")


def test_places_of_axes_have_no_last_bits():
    """The layout's solver varies in last bits between processes, and names in an SVG are hashes of places."""
    with style.own_settings():
        from matplotlib.figure import Figure

        made = Figure(layout="constrained")
        made.subplots(2, 2)
        style.lay_out(made)
    for axes in made.axes:
        places = np.array(axes.get_position(original=True).bounds)
        np.testing.assert_allclose(places, places.round(9), rtol=0, atol=1e-15)
