"""Figures: what they draw, whatever the surroundings."""

import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from records import record

from cntk_bench import report
from cntk_bench.report.style import style

plotting = sys.modules["cntk_bench.report.plot"]  # its function has the module's name


def test_plots_are_images_and_repeatable(tmp_path):
    for name, start in [("a.png", b"\x89PNG\r\n"), ("a.svg", b"<?xml")]:
        report.plot(record(), tmp_path / name)
        first = (tmp_path / name).read_bytes()
        assert first.startswith(start) and len(first) > 10_000
        report.plot(record(), tmp_path / name)
        assert (tmp_path / name).read_bytes() == first


def drawn(past, monkeypatch, headline="title"):
    """The axes of a record's figure."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    with plotting._own_settings():
        plotting._drawn(report.rows(past), headline, "png")
    monkeypatch.undo()
    return figures[0].axes[0]


def test_the_plot_draws_what_the_table_says(monkeypatch):
    axes = drawn(record(), monkeypatch)
    bars = {bar.get_label(): bar for bar in axes.containers}
    assert list(bars) == ["CNTK-V, n = 50,000", "CNTK-GAP, n = 50,000"]
    line, _, (ends,) = bars["CNTK-GAP, n = 50,000"]
    assert line.get_xydata().tolist() == [[3, 33.0], [21, 36.4]]
    assert [segment[:, 1].tolist() for segment in ends.get_segments()] == [[32.5, 33.5], [35.9, 36.9]]
    published = {line.get_label(): line for line in axes.lines}["CNTK-V, published"]
    assert published.get_ydata().tolist() == [64.47, 64.09] and published.get_linestyle() == "--"
    assert len(drawn(record("digits"), monkeypatch).containers) == 2


def test_a_column_has_its_colour_whatever_else_is_drawn(monkeypatch):
    both = drawn(record(), monkeypatch).containers
    alone = drawn(record(solutions=record()["solutions"][2:]), monkeypatch).containers
    assert both[1][0].get_color() == alone[0][0].get_color() != both[0][0].get_color()


def test_lines_markers_and_colours_are_those_of_the_columns(monkeypatch):
    solutions = [
        {"column": column, "depth": depth, "accuracy": 50.0, "standard_error": 1.0, "ridge": 0.0}
        for column in ("FC-NTK", "CNTK-V-FLIP", "of another package")
        for depth in (3, 4)
    ]
    axes = drawn(record("digits", solutions=solutions), monkeypatch)
    assert axes.get_xlabel() == "depth (layers of weights)"  # fully connected networks have no convolutions
    for bars in axes.containers:
        look, line = style(bars.get_label().removesuffix(", n = 50,000")), bars[0]
        assert (line.get_color(), line.get_marker()) == (look.colour, look.marker)
        assert line.get_linestyle() == ("-" if look.line == "-" else "--")


def test_a_doubt_is_drawn_beside_its_point(monkeypatch):
    assert list(drawn(record(), monkeypatch).texts) == []
    solutions = record()["solutions"]
    solutions[2]["trusted"] = False
    axes = drawn(record(solutions=solutions), monkeypatch)
    assert [(text.get_text(), text.xy) for text in axes.texts] == [("?", (3, 33.0))]
    said = axes.figure.get_supxlabel()
    assert said.startswith("Bars: one standard error. ?: not to be trusted. Published: Arora")


def test_depths_are_named_where_there_is_room():
    assert plotting._apart([3, 4, 6, 11, 21]) == [3, 4, 6, 11, 21]
    assert plotting._apart([5]) == [5]
    shown = plotting._apart(list(range(1, 1001)))
    assert shown[:3] == [1, 2, 3] and len(shown) < 30
    assert all(b / a >= 1000**0.035 for a, b in zip(shown, shown[1:], strict=False))


def test_axes_say_what_they_are(monkeypatch):
    axes = drawn(record(), monkeypatch)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("depth (3x3 convolutions + 1)", "test accuracy (%)")
    assert axes.get_xscale() == "log" and axes.get_xticks(minor=True).size == 0
    assert [label.get_text() for label in axes.get_xticklabels()] == ["3", "21"]
    assert axes.figure.get_suptitle() == "title"
    assert [name for name, spine in axes.spines.items() if spine.get_visible()] == ["left", "bottom"]
    assert [axes.containers[i][0].get_color() for i in (0, 1)] == ["#0072B2", "#D55E00"]


def test_a_long_title_is_on_several_lines(monkeypatch):
    for headline in ("word " * 40, "数 " * 80):
        axes = drawn(record(), monkeypatch, headline)
        lines = axes.figure.get_suptitle().splitlines()
        assert len(lines) > 1 and " ".join(lines) == headline.strip()
        box = axes.figure.texts[0].get_window_extent()
        assert box.x1 < axes.figure.bbox.x1


def test_the_legend_names_each_column_before_its_published_line(monkeypatch):
    (legend,) = drawn(record(), monkeypatch).figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "CNTK-V, n = 50,000",
        "CNTK-V, published",
        "CNTK-GAP, n = 50,000",
        "CNTK-GAP, published",
    ]


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

    report.plot(record(), tmp_path / "plain.png")
    monkeypatch.setenv("MPLBACKEND", "module://nowhere")
    monkeypatch.setattr(logging.getLogger("matplotlib"), "level", 17)
    with matplotlib.rc_context(SETTINGS):
        before = [dict(matplotlib.rcParams.copy()), dict(os.environ), warnings.filters[:]]
        assert report.plot(record(), tmp_path / "theirs.png")
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
from cntk_bench import report
before, here = dict(os.environ), os.getcwd()
report.plot(json.loads(sys.argv[1]), sys.argv[2])
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
    report.plot(record(), tmp_path / "plain.png")
    there = tmp_path / "there"
    there.mkdir()
    if place:
        (there / place).parent.mkdir(exist_ok=True)
        make(there / place)
    package = str(Path(report.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", DRAW, json.dumps(record()), str(tmp_path / "theirs.png")],
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
    assert report.plot(record(), tmp_path / "a.svg")
    assert before.items() <= sys.modules.items() and sys.modules["matplotlib.figure"].Figure is Figure
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize(
    "name", ["$x$ and $", r"$\frac{$", r"\frac{", "数字 größe", "a" * 10**6, "\x1b]0;title\x07"]
)
def test_any_name_is_drawn_without_a_warning(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.plot(record(name=name), tmp_path / "a.svg")
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
