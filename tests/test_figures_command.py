"""The command `figures`, and captions and labels of LaTeX tables, on a small run."""

import io
import json
import re
import shutil
import subprocess
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from test_cli import QUICKSTART, call, fail, succeed

from cntk_bench import open_run
from cntk_bench.analyses import figures, findings
from cntk_bench.cli import figures as command
from cntk_bench.records import sealed
from cntk_bench.records.directory import Run
from cntk_bench.report import latex, looks, page
from cntk_bench.report.listing import Listing, written

FOUND = ("accuracy", "ridges", "confusion", "mistakes", "spectra", "curve")  # the figures that this run has


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of digits with fully connected kernels of two depths and two ridges, and its learning curves."""
    output = tmp_path_factory.mktemp("runs") / "small"
    sizes = ("--set", "dataset.train=30", "--set", "dataset.test=20", "--set", "kernel.depths=[2,3]")
    more = ("--set", "kernel.columns=[FC-NTK]", "--set", "solve.ridge=[0.0,0.1]")
    succeed("run", QUICKSTART, *sizes, *more, "--output", output)
    succeed("curve", run_of := output, "--sizes", "20,30", "--ridge", "0.1")
    return run_of


@pytest.fixture
def renamed(run, tmp_path):
    """A copy of the run with an odd name and odd class names, whose images cannot be read."""
    copy = shutil.copytree(run, tmp_path / "copy")
    facts = {"class_names": ["<b>zero</b>", "$1$", "数字 🎉", "\x1b[2J", "\u202eevil", *"56789"]}
    for file in (copy / "record.json", copy / "solves" / "1" / "solve.json"):
        found = json.loads(file.read_text())
        found["data"] |= facts
        file.write_text(json.dumps(found | ({"name": "数字 🎉 \\frac{$"} if "name" in found else {})))
    config = copy / "config.yaml"
    text = config.read_text().replace("name: digits\n  path: null", f"name: npz\n  path: {tmp_path}/gone.npz")
    config.write_text(text)
    return copy


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def strokes(pdf):
    """The colours of lines in a PDF file, components from 0 to 1."""
    packed = re.findall(rb"FlateDecode.*?stream\r?\n(.*?)endstream", pdf, re.DOTALL)
    found = re.findall(rb"([\d.]+) ([\d.]+) ([\d.]+) RG", b"\n".join(map(zlib.decompress, packed)))
    return np.array(found, float)


@pytest.fixture(scope="module")
def drawn(run, tmp_path_factory):
    """A folder with all figures of the run and one from an earlier call; and the command's output."""
    folder = tmp_path_factory.mktemp("paper") / "figures"
    succeed("figures", run, "--only", "ridges", "--format", "png", "--output", folder)
    kinds = "--format", "pdf", "--format", "svg"
    return folder, succeed("figures", run, *kinds, "--width", "column", "-o", folder)


def test_all_figures_of_a_run_are_written_and_can_be_read(drawn):
    folder, told = drawn
    names = {f"{name}.{kind}" for name in FOUND for kind in ("pdf", "svg")} | {"captions.txt"}
    found = contents(folder)
    assert set(found) == names | {"ridges.png"} and all(str(folder / name) in told for name in names)
    colour = looks.of("FC-NTK").colour
    parts = np.array(bytearray.fromhex(colour[1:]))
    for name in FOUND:
        pdf, svg = found[f"{name}.pdf"], found[f"{name}.svg"].decode()
        assert pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF")
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf
        ElementTree.fromstring(svg)
        if name not in ("confusion", "mistakes"):
            assert any(np.allclose(stroke, parts / 255, atol=1e-4) for stroke in strokes(pdf)), name
            assert f"stroke: {colour.lower()}" in svg
    with Image.open(io.BytesIO(found["ridges.png"])) as picture:
        assert (np.asarray(picture.convert("RGB")) == parts).all(-1).any()
    assert b'width="234pt"' in found["accuracy.svg"]  # 3.25 inches
    for name, words in {"ridges": "leave-one-out", "confusion": "true class", "spectra": "FC-NTK, depth 3",
                        "accuracy": "FC-NTK", "curve": "FC-NTK, depth 2"}.items():  # fmt: skip
        assert f"<!-- {words}" in found[f"{name}.svg"].decode(), name
    captions = found["captions.txt"].decode()
    assert captions.startswith("accuracy\nquickstart: digits, 30 training and 20 test images")
    assert "\ncurve\nquickstart: learning curves" in captions and captions.count("Bars: one standard") == 3
    assert (
        captions.count("\n\n") == len(FOUND) - 1 and "test images choose it, so this is no model" in captions
    )


def test_the_same_run_gives_the_same_files_whatever_the_readers_settings(run, drawn, tmp_path):
    import matplotlib

    with_words = "figures", run, "--only", "accuracy", "--format", "svg", "--words", "--output"
    succeed(*with_words, tmp_path / "words")
    theirs = {
        "font.family": "cursive", "axes.facecolor": "red", "lines.linewidth": 9, "svg.fonttype": "none",
        "figure.autolayout": True, "savefig.bbox": "tight", "axes.prop_cycle": "cycler('color', ['y'])",
    }  # fmt: skip
    with matplotlib.rc_context(theirs):
        succeed("figures", run, "--format", "svg", "--width", "column", "--output", tmp_path / "other")
        succeed(*with_words, tmp_path / "other words")
        assert matplotlib.rcParams["axes.facecolor"] == "red"
    before = {name: file for name, file in contents(drawn[0]).items() if name.endswith((".svg", ".txt"))}
    assert contents(tmp_path / "other") == before
    assert contents(tmp_path / "other words") == contents(tmp_path / "words")


def test_curves_of_other_sizes_have_a_figure_of_their_own(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    succeed("curve", copy, "--depth", "3", "--sizes", "10,20", "--train", "20", "--ridge", "0.0")
    succeed("figures", copy, "--only", "curve", "--output", tmp_path / "out")
    captions = (tmp_path / "out" / "captions.txt").read_text()
    assert (
        "curve-1\n" in captions
        and "first n of 30 training images, digits, 20 test images, ridge 0.1." in captions
    )
    assert (
        "curve-2\n" in captions
        and "first n of 20 training images, digits, 20 test images, ridge 0." in captions
    )
    assert {file.stem for file in (tmp_path / "out").iterdir()} == {"captions", "curve-1", "curve-2"}


def test_curves_of_one_size_and_several_ridges_say_which_is_which(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    succeed("curve", copy, "--depth", "3", "--sizes", "20,30", "--ridge", "0.0")
    (drawing,) = figures.found(Run(copy), only=["curve"])[0]
    assert drawing.name == "curve" and drawing.words[0].endswith("20 test images, ridge 0 or 0.1")
    made = drawing.make(width="page", words=drawing.words)
    labels = [text.get_text() for legend in made.legends for text in legend.get_texts()]
    labels += [text.get_text() for text in (made.axes[0].get_legend() or made).texts]
    assert {"FC-NTK, depth 2, ridge 0.1", "FC-NTK, depth 3, ridge 0"} <= set(labels)


def test_of_a_run_that_has_grown_since_it_is_told_that_solves_are_there(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    more = ("--set", "dataset.train=40", "--set", "kernel.depths=[2,3]", "--set", "kernel.columns=[FC-NTK]")
    succeed("compute", QUICKSTART, *more, "--set", "dataset.test=20", "--output", copy)
    for what in ("table", "page", "compare"):
        said = fail(what, copy)
        assert "was computed again since its last solve" in said and "name a solve of before (1)" in said
    assert "FC-NTK" in succeed("table", copy, "--solve", "1") and "1  " in succeed("solves", copy)
    assert "was computed again" in fail("figures", copy, "--only", "accuracy", "-o", tmp_path / "none")
    drawings, absent = figures.found(Run(copy))
    assert [one.name for one in drawings] == ["curve"]
    assert set(absent) == {"accuracy", "ridges", "confusion", "mistakes", "spectra"}
    shutil.rmtree(copy / "solves")
    assert "has no solves yet" in fail("page", copy)


def test_only_some_figures_are_written_and_nothing_is_computed_for_others(run, tmp_path, monkeypatch):
    assert command.NAMES == figures.NAMES

    def never(*_):
        raise AssertionError("computed")

    for name in ("of_solve", "compute"):
        monkeypatch.setattr(f"cntk_bench.analyses.spectrum.{name}", never)
    monkeypatch.setattr("cntk_bench.runs.images.load", never)
    succeed("figures", run, "--only", "curve", "--only", "confusion", "--output", tmp_path)
    assert set(contents(tmp_path)) == {"confusion.pdf", "curve.pdf", "captions.txt"}
    assert "has no figure flow: run `flow` first" in fail("figures", run, "--only", "flow")
    assert "has no figure windows: it is of three LAP columns" in fail("figures", run, "--only", "windows")
    assert "'nothing' is not one of" in fail("figures", run, "--only", "nothing")


@pytest.fixture(scope="module")
def of_draws(tmp_path_factory):
    """A run of four draws; for one of them, "loo" tries more ridges than for the others."""
    output = tmp_path_factory.mktemp("runs") / "draws"
    sizes = ("--set", "dataset.train=16", "--set", "dataset.draws=4", "--set", "dataset.test=50")
    more = ("--set", "kernel.columns=[FC-NTK]", "--set", "kernel.depths=[1,2]", "--set", "solve.ridge=loo")
    assert call("run", QUICKSTART, *sizes, *more, "--output", output).returncode in (0, 2)
    return output


def test_ridges_of_draws_are_those_that_all_tried_and_each_is_a_mean_over_them(of_draws, tmp_path):
    solved = json.loads((of_draws / "record.json").read_text())
    (path, _) = gathered(of_draws, solved).paths
    draws = solved["solutions"][0]["draws"]
    tried = [{fit["ridge"]: fit for fit in draw["path"]} for draw in draws]
    assert len({len(each) for each in tried}) > 1  # otherwise the test shows nothing
    assert [one.ridge for one in path.tried] == sorted(set.intersection(*map(set, tried)))
    opened = open_run(of_draws)
    for one in path.tried:
        right = []
        for draw in range(1, 5):
            gram = opened.gram("FC-NTK", 1, draw)
            shift = one.ridge * np.trace(gram.train) / 16 * np.eye(16)
            alpha = np.linalg.solve(gram.train + shift, np.eye(10)[gram.y_train] - 0.1)
            right.append((gram.test @ alpha).argmax(1) == gram.y_test)
        # Rounding may decide a tie either way.
        assert one.accuracy == pytest.approx(100 * np.mean(right), abs=0.6)
        assert one.error == pytest.approx(np.mean([each[one.ridge]["loo_error"] for each in tried]))
    tried[2][path.tried[-1].ridge]["jitter"] = 1e-5  # as `draws` has it, too
    (path, _) = gathered(of_draws, solved).paths
    assert path.tried[-1].jitter == 1e-5
    succeed("figures", of_draws, "--only", "ridges", "--format", "svg", "--output", tmp_path)
    assert set(contents(tmp_path)) == {"ridges.svg", "captions.txt"}


def test_ridges_of_draws_that_share_none_are_not_shown_and_the_reason_is_told(of_draws, tmp_path):
    copy = shutil.copytree(of_draws, tmp_path / "copy")
    told = (
        "Ridges of FC-NTK at depth 1 are not shown: fewer than two could be solved for every draw; add larger"
    )
    for cells, names in (((0,), "FC-NTK at depth 1"), ((0, 1), "FC-NTK at depth 1, FC-NTK at depth 2")):
        for file in (copy / "record.json", copy / "solves" / "1" / "solve.json"):
            found = {"digest": ""} | json.loads(file.read_text())
            for cell in cells:
                draw = found["solutions"][cell]["draws"][2]
                draw["path"] = draw["path"][-1:]
            del found["digest"]  # as in records of earlier versions
            file.write_text(json.dumps(found))
        solved = json.loads((copy / "record.json").read_text())
        found = gathered(copy, solved)
        assert found.absent["ridges"].startswith(told.replace("FC-NTK at depth 1", names))
        assert [path.depth for path in found.paths] == ([2] if len(cells) == 1 else [])
        text = page.html(solved, found)
        assert told.partition(" ")[0] in text and f"{names} are not shown: fewer than two" in text
        assert text.count('id="ridges"') == 1
    said = fail("figures", copy, "--only", "ridges")
    assert "has no figure ridges: Ridges of" in said and "add larger ones to solve.ridge" in said


def gathered(folder, solved):
    run = Run(folder)
    return findings.gather(run, run.config(), solved, run.solves / "1", ("ridges",))


def test_odd_names_are_text_without_images_and_without_warnings(renamed, tmp_path, caplog):
    told = succeed("figures", renamed, "--format", "svg", "--words", "--output", tmp_path / "figures")
    found = contents(tmp_path / "figures")
    assert set(found) == {f"{name}.svg" for name in FOUND if name != "mistakes"} | {"captions.txt"}
    assert "mistakes" not in told and "Glyph" not in caplog.text and "findfont" not in caplog.text
    svg = found["confusion.svg"].decode()
    ElementTree.fromstring(svg)
    for words in ("&lt;b&gt;zero&lt;/b&gt;", "$1$", "数字 🎉", r"\x1b[2J", r"\u202eevil"):
        assert f"<!-- {words} -->" in svg, words
    assert "\x1b" not in svg + found["captions.txt"].decode() and "\u202e" not in svg
    assert "gone.npz" in fail("figures", renamed, "--only", "mistakes")
    assert "only dataset.path" in fail("figures", renamed, "--set", "solve.ridge=1")


def test_what_cannot_be_drawn_is_refused_before_anything_is_written(run, tmp_path):
    assert "width wide is not possible: use column (3.25)" in fail("figures", run, "--width", "wide")
    assert "has no solve 9" in fail("figures", run, "--solve", 9)
    assert "nothing to draw yet" in fail("figures", tmp_path, "--output", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("said", ['{"a": 1}', "[1]", "null", "{", '{"a": 1, "sha256": 5}', "sealed"])
def test_a_result_that_is_none_is_named(run, said):
    file = run / "flow" / "FC-NTK-2.json"
    file.parent.mkdir(exist_ok=True)
    # Sealed, but with another version's content.
    sealed.write(file, {"a": 1}) if said == "sealed" else file.write_text(said)
    assert "FC-NTK-2.json is damaged, or of another version" in fail("figures", run)
    file.unlink()


def test_a_latex_table_has_the_users_caption_and_label(run):
    given = succeed(
        "table", run, "--format", "latex", "--caption", r"My \emph{words}.", "--label", "tab:mine"
    )
    assert r"\caption{My \emph{words}.}" in given and r"\label{tab:mine}" in given
    assert r"\label{tab:quickstart}" in succeed("table", run, "--format", "latex")
    assert "use letters, digits" in fail("table", run, "--format", "latex", "--label", "a}b")
    assert "is for the format latex" in fail("table", run, "--caption", "words")


def test_latex_keeps_what_would_have_a_meaning_apart():
    groups = [("", {"depth": ["3"]})]
    groups += [(f"[c{i}]", {"accuracy": ["1.00"], "s.e.": ["-"]}) for i in range(7)]
    text = latex.floating([groups], "100 % of 数字", ["a -- b +- c"], "数字")
    assert text.splitlines()[:2] == [latex.PREAMBLE, latex.OTHER_LETTERS]
    assert r"\caption{100 \% of 数字.}" in text and r"\label{tab:table}" in text
    assert text.count(r"\begin{tabular}{@{}rrrrrrrrrrr@{}}") == 1 and text.count(r"\begin{tabular}") == 2
    assert r"\multicolumn{2}{c}{{[}c6{]}}" in text and "3 & 1.00 & -- &" in text
    assert "a -{}- b +-{} c" in text


def wide():
    """A table like those of long comparisons: long texts, and more columns than fit on a line."""
    settings = "CNTK-V dataset.test=50 dataset.train=60 solve.ridge=[0, 1e-06, 0.0001]"
    heads = [f"column {i}" for i in range(14)]
    rows = [{"run": f"run@{i}", "settings": settings} | dict.fromkeys(heads, i / 7) for i in range(5)]
    return Listing("Title", {"run": "s", "settings": "s"} | dict.fromkeys(heads, "+.2f"), rows)


def test_a_table_wider_than_a_line_is_in_parts_whose_rows_have_numbers():
    text = written(wide(), "latex")
    parts = text.split(r"\begin{tabular}")[1:]
    assert len(parts) > 2 and all(re.search(r"^    5 & ", part, re.MULTILINE) for part in parts)
    assert sorted(re.findall(r"column \d+", text)) == sorted(f"column {i}" for i in range(14))
    few = written(Listing("Title", {"run": "s", "n": "d"}, [{"run": "a", "n": 1}]), "latex")
    assert few.count(r"\begin{tabular}") == 1 and "row" not in few


def long(rows, text="a"):
    found = [{"run": f"run@{i}", "settings": text, "n": i} for i in range(rows)]
    return Listing("Title", {"run": "s", "settings": "s", "n": "d"}, found, ("A note.",))


@pytest.mark.parametrize(("text", "each"), [("a", 33), ("words " * 8, 16)])
def test_a_table_longer_than_a_page_goes_on_in_another_float(text, each):
    """A page holds 33 rows of one line, or 16 of two, and a head of three lines."""
    floats = written(long(100, text), "latex").split(r"\begin{table}")[1:]
    rows = [re.findall(r"run@(\d+) &", one) for one in floats]
    assert [int(row) for some in rows for row in some] == list(range(100))
    assert list(map(len, rows[:-1])) == [each] * (len(rows) - 1) and len(rows[-1]) <= each
    assert [r"\label{tab:title}" in one for one in floats] == [True] + [False] * (len(floats) - 1)
    assert [r"\addtocounter{table}{-1}" in one for one in floats] == [False] + [True] * (len(floats) - 1)
    assert ["A note." in one for one in floats] == [False] * (len(floats) - 1) + [True]
    assert written(long(each, text), "latex").count(r"\begin{table}") == 1


def test_floats_that_wait_for_a_page_are_cleared():
    text = written(long(33 * 31), "latex")
    assert text.count(r"\begin{table}") == 31 and text.count(r"\clearpage") == 2
    waiting = [part.count(r"\begin{table}") for part in text.split(r"\clearpage")]
    assert waiting == [15, 15, 1]


def test_short_tables_share_floats_and_none_is_left_out():
    tables = [[("", {"run": [f"run@{i}-{row}" for row in range(10)]})] for i in range(7)]
    floats = latex.floating(tables, "Title", [], "t").split(r"\begin{table}")[1:]
    assert [one.count(r"\begin{tabular}") for one in floats] == [2, 2, 2, 1]
    assert len(re.findall(r"run@\d-\d", "".join(floats))) == 70


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="without LaTeX")
def test_latex_sets_tables_within_a_line(run, tmp_path):
    (tmp_path / "wide.tex").write_text(written(wide(), "latex"))
    (tmp_path / "long.tex").write_text(
        written(long(100), "latex") + written(long(100, "words " * 8), "latex")
    )
    (tmp_path / "run.tex").write_text(succeed("table", run, "--format", "latex"))
    inputs = "".join(rf"\input{{{name}}}" for name in ("wide", "long", "run"))
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}\end{{document}}"
    (tmp_path / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout
    assert not any(words in said.stdout for words in ("Overfull", "Underfull", "Float too large"))
