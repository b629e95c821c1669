"""A run's page has everything that is in the table; it obeys nothing from outside, and loads nothing."""

import base64
import json
import logging
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from records import record
from scipy.linalg import eigvalsh

from cntk_bench.analyses import spectrum
from cntk_bench.analyses.findings import configuration, matrices
from cntk_bench.cli.program import call
from cntk_bench.config import config, yaml12
from cntk_bench.errors import UserError
from cntk_bench.grams import store
from cntk_bench.records import record as records
from cntk_bench.records import sealed
from cntk_bench.records.directory import Run
from cntk_bench.regression import eigen
from cntk_bench.report import page, page_figures, rows
from cntk_bench.report.findings import Eigenvalues, Findings, Mistakes, RidgePath, Tried
from cntk_bench.runs import solve as stages

CONFIG = """
name: small
dataset: {name: digits, train: 40, test: 30, seed: 3}
kernel: {columns: [CNTK-V, RBF], depths: [3, 4]}
compute: {tile: 16, backend: cpu}
solve: {ridge: [0.0, 0.1]}
"""
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Read(HTMLParser):
    """A page's elements with their attributes, its text, and the rows of its tables."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.cells, self.open = [], "", [], []
        self.feed(text)
        self.close()
        assert not self.open  # every element is closed

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.cells += [[]] if tag == "tr" else [] if tag not in ("td", "th") else []
        if tag in ("td", "th"):
            self.cells[-1].append("")
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data
            if {"td", "th"} & set(self.open):
                self.cells[-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "small.yaml").write_text(CONFIG)
    assert call(["run", str(folder / "small.yaml"), "--output", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def run(solved, tmp_path):
    return Run(shutil.copytree(solved, tmp_path / "run"))


def written(run):
    return (run.report / "index.html").read_text("utf-8")


def test_every_number_of_the_table_stands_on_the_page(run):
    found, table = Read(written(run)), rows(records.load(run.record))
    shown = [[cell.strip().replace("−", "-") for cell in line] for line in found.cells]
    for row in table:
        numbers = [f"{row['accuracy']:.2f}", f"{row['standard_error']:.2f}"]
        head = row["column"] if row["depth"] is None else str(row["depth"])
        assert any(line[0] == head and all(n in line for n in numbers) for line in shown), row
    assert all(key in found.text for key in ("pairs per second", "Energy was not measured", "numpy"))
    assert records.load(run.record)["data"]["fingerprint"] in found.text
    sources = [image["src"] for image in found.all("img")]
    # The figure of learning curves is missing.
    assert len(sources) == 5 and all(image["alt"] for image in found.all("img"))


def test_nothing_is_loaded_and_nothing_runs_but_what_the_policy_names(run):
    text = written(run)
    found = Read(text)
    for tag, attributes in found.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name, "#")
            assert value.startswith("#") or value.startswith("data:"), (tag, value)
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    (policy,) = [m["content"] for m in found.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for image in found.all("img"):  # images load nothing, either
        content = base64.b64decode(image["src"].partition(",")[2])
        hosts = set(re.findall(rb"(?:href|src)=\"(?!#|data:)([^\"]*)", content))
        assert not hosts and b"<script" not in content
    assert len(text) < 2_000_000 and str(run.path.parent) not in text


def test_headings_landmarks_and_tables_are_in_order(run):
    found = Read(written(run))
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    assert found.all("html")[0]["lang"] == "en" and len(found.all("main")) == 1 and len(found.all("nav")) == 1
    assert len(found.all("caption")) == len(found.all("table")) > 5
    assert all(head["scope"] in ("row", "col", "colgroup") for head in found.all("th"))
    names = [a["id"] for _, a in found.elements if "id" in a]
    assert len(names) == len(set(names))
    for attributes in found.all("a"):
        assert attributes["href"][1:] in names
    boxes = [a for a in found.all("section") if a.get("class") in ("scroll", "paper")]
    assert boxes and all(a["tabindex"] == "0" for a in boxes)


@pytest.mark.drawn
def test_the_page_of_the_same_record_is_the_same(run):
    first = written(run)
    assert call(["page", str(run.path)]) == 0
    assert written(run) == first
    assert call(["page", str(run.path), "--output", str(run.path / "a" / "p.html")]) == 0
    assert (run.path / "a" / "p.html").read_text("utf-8") == first


def test_the_configuration_tells_no_secret(run):
    found = records.load(run.record)
    lines = ["export HF_TOKEN=hunter2", "module load cuda"]
    for stage in found["stages"]:
        if stage["stage"] == "compute":
            stage["settings"]["compute"] |= {"store": "s3://ada:hunter2@b/k", "slurm": {"environment": lines}}
    told = yaml12.read(configuration(found), "page")["compute"]
    assert told["store"] == "s3://...@b/k"
    assert told["slurm"]["environment"] == ["export HF_TOKEN=...", "module load cuda"]


def test_the_configuration_does_the_run_again(run, tmp_path):
    shown = records.load(run.record)
    text = written(run)
    (tmp_path / "again.yaml").write_text(re.search(r'id="config"[^>]*><code>(.*?)</code>', text, re.S)[1])
    again, asked = config.load(tmp_path / "again.yaml"), run.config()
    assert again.model_dump(exclude={"dataset"}) == asked.model_dump(exclude={"dataset"})
    assert again.dataset == asked.dataset and shown["name"] == again.name


@pytest.mark.drawn
def test_text_from_outside_is_text():
    evil = "</title><script>alert(1)</script>\u202e\x1b[31m"
    hostile = record(name=evil, dataset="<b>data</b>")
    hostile["solutions"][0] |= {"column": "<img src=x>", "note": "a & <i>b</i>", "trusted": False,
                                "doubt": "<script>alert(2)</script>"}  # fmt: skip
    hostile["stages"] = [
        {"stage": "<u>s", "started": "<u>", "seconds": 1.0, "machine": {"cpu": "<u>cpu", "gpus": ["<u>g"]},
         "versions": {"<u>": "<u>"}, "settings": {}, "tool": "<u>", "commit": "<u>", "process": "1 on host"}
    ]  # fmt: skip
    curves = ({"points": [], "column": "x"},)
    found = Findings("a: '</code><script>'\n", curves=curves, absent={"mistakes": "<script>x</script>"})
    text = page.html(hostile, found)
    tags = [tag for tag, _ in Read(text).elements]
    assert tags.count("script") == 1 and not {"b", "i", "u"} & set(tags)
    assert not any(image["src"] == "x" for image in Read(text).all("img"))
    assert "\u202e" not in text and "\x1b" not in text and "on host" not in text
    assert "&lt;img src=x&gt;" in text and "&lt;script&gt;alert(2)&lt;/script&gt;" in text


@pytest.mark.drawn
def test_doubt_is_marked_explained_and_never_the_best():
    doubted = record(name="doubted")
    doubted["solutions"][1] |= {"accuracy": 99.0, "trusted": False, "doubt": "its residual is large"}
    text = page.html(doubted)
    found = Read(text)
    assert ["21", "99.00?"] == next(line for line in found.cells if "99.00?" in line)[:2]
    links = [a["href"] for a in found.all("a") if a.get("class") == "doubt"]
    assert set(links) == {"#notes"} and "its residual is large" in found.text
    summary = text[text.index('class="summary"') : text.index("<nav")]
    assert "99.00" not in summary and "36.40 ± 0.50 %" in summary and "1 marked ?" in summary
    assert "failed" in found.text and "1 of 4 are marked ?" in found.text


def test_published_values_and_differences_stand_only_where_like_meets_like():
    alike, other = page.html(record()), page.html(record(n_train=1000))
    assert ["3", "30.20", "0.50", "64.47", "−34.27"] in [line[:5] for line in Read(alike).cells]
    assert "published" not in [head for line in Read(other).cells for head in line]
    assert "not comparable" in other


@pytest.mark.drawn
def test_a_page_without_figures_or_stages_says_what_is_missing(caplog, monkeypatch):
    monkeypatch.setattr("cntk_bench.report.sketch.image", lambda *_: 1 / 0)
    text = page.html(record(), Findings(absent={"spectra": "too many images", "mistakes": "no data"}))
    found = Read(text)
    assert not found.all("img") and "could not draw this figure. Test accuracy: CNTK-V from" in text
    assert "too many images. To compute and show them: cntk-bench page runs/a_run --spectrum" in found.text
    assert "Misclassified images are not shown: no data." in found.text
    assert "verify was not run" in found.text and "configuration is not recorded" in found.text
    assert "no figure accuracy on the page" in caplog.text


def test_the_counts_outputs_and_ridges_shown_are_those_of_the_solve(run, caplog):
    from cntk_bench.analyses import findings

    caplog.set_level(logging.WARNING)
    shown = records.load(run.record)
    found = findings.gather(run, run.config(), shown, run.solves / "1")
    assert not found.absent and not caplog.records
    cell = found.cell
    kept = np.load(run.solves / "1" / f"{cell['column']}-{cell['depth']}.npz")
    y, predicted = kept["y_test"], kept["predicted"]
    assert (kept["outputs"].argmax(1) == predicted).all()
    assert found.counts.sum() == 30 and 100 * found.counts.trace() / 30 == pytest.approx(cell["accuracy"])
    assert found.counts[y[0], predicted[0]] >= 1
    # The images shown are misclassified ones of the data set, in their original pixels.
    from sklearn.datasets import load_digits

    from cntk_bench.data import load

    some, whole = found.mistakes, load("digits", train=40, test=30, seed=3, preprocess="none")
    assert some.wrong == int((predicted != y).sum()) and (some.true != some.predicted).all()
    for place, pixels in zip(some.places, some.pixels, strict=True):
        at = int(np.flatnonzero(whole.test_index == place)[0])
        assert (pixels == whole.x_test[at]).all() and y[at] != predicted[at]
        assert any((16 * pixels[0] == image).all() for image in load_digits().images)
    assert (np.diff(some.margins) <= 0).all()
    # Each ridge's test accuracy, by a direct solve of the same matrix.
    (path, _) = found.paths
    K = _gram(run, path.depth)
    alphas = [
        np.linalg.solve(K[0] + one.ridge * np.trace(K[0]) / 40 * np.eye(40), K[2]) for one in path.tried
    ]
    for one, alpha in zip(path.tried, alphas, strict=True):
        assert one.accuracy == pytest.approx(100 * np.mean((K[1] @ alpha).argmax(1) == y))
        # Leave-one-out accuracy, by really fitting without each image in turn.
        shift = one.ridge * np.trace(K[0]) / 40
        right = [_left_out(K[0], K[2], shift, i) for i in range(40)]
        assert one.loo_accuracy == pytest.approx(100 * np.mean(right))
        assert one.loo_standard_error == pytest.approx(100 * np.std(right) / 40**0.5)
        assert one.standard_error == pytest.approx(100 * np.std((K[1] @ alpha).argmax(1) == y) / 30**0.5)
    assert path.chosen in [one.ridge for one in path.tried]


def _left_out(K, Y, shift, i):
    """Whether the other images, fitted with the same ridge, predict image i."""
    others = np.flatnonzero(np.arange(len(K)) != i)
    fitted = K[np.ix_(others, others)] + shift * np.eye(len(others))
    return (K[i, others] @ np.linalg.solve(fitted, Y[others])).argmax() == Y[i].argmax()


def _gram(run, depth):
    from cntk_bench.runs.access import open_run

    gram = open_run(run.path).gram("CNTK-V", depth)
    return gram.train, gram.test, np.eye(10)[gram.y_train] - 0.1


def test_eigenvalues_are_those_of_the_matrix_kept_and_told_where_they_cost_too_much(run, monkeypatch):
    shown = records.load(run.record)
    data, solutions = shown["data"], shown["solutions"]
    found, missing = spectrum.of_solve(run, data, solutions)
    assert missing is None and [(one.column, one.depth) for one in found] == [("CNTK-V", 3), ("CNTK-V", 4)]
    for one in found:
        K = _gram(run, one.depth)[0]
        np.testing.assert_allclose(one.values, eigvalsh(K)[::-1], rtol=1e-9, atol=1e-12 * np.trace(K))
        assert one.mean_diagonal == pytest.approx(np.trace(K) / 40)
    monkeypatch.setattr(spectrum, "WORK", 1.0)
    none, why = spectrum.of_solve(run, data, solutions)
    assert none == [] and "2 kernels of 40 training images are not computed" in why
    assert call(["page", str(run.path)]) == 0 and "--spectrum" in written(run)
    assert call(["page", str(run.path), "--spectrum"]) == 0
    kept, why = spectrum.of_solve(run, data, solutions)
    assert why is None and all((a.values == b.values).all() for a, b in zip(kept, found, strict=True))
    assert 'id="figure-spectra"' in written(run) and "page runs/small --spectrum" in written(run)
    others = data | {"images": "of others", "fingerprint": "of others"}
    assert spectrum.of_solve(run, others, solutions)[0] == []
    file = run.path / "spectrum" / "CNTK-V-3.json"
    told = json.loads(file.read_text())
    told["values"][0] *= 2
    file.write_text(json.dumps(told))  # with a changed digit, it counts as another solve's spectrum
    assert [one.depth for one in spectrum.of_solve(run, data, solutions)[0]] == [4]


def test_eigenvalues_of_another_computation_are_not_shown_as_those_of_a_solve(run, capsys):
    shutil.rmtree(run.gram)
    other = run.path.parent / "other.yaml"
    other.write_text(CONFIG.replace("seed: 3", "seed: 5"))
    assert call(["run", str(other), "--output", str(run.path)]) == 0
    for solve, there in (1, False), (2, True):
        assert call(["page", str(run.path), "--solve", str(solve)]) == 0
        text = (run.solves / str(solve) / "report" / "index.html").read_text("utf-8")
        assert ('id="figure-spectra"' in text) == there
        assert ("holds another computation" in Read(text).text) != there
        assert there or "--spectrum" not in text  # which would be refused
        code = call(["figures", str(run.path), "--solve", str(solve), "--only", "spectra"])
        assert code == (0 if there else 2)
    capsys.readouterr()
    assert call(["page", str(run.path), "--solve", "1", "--spectrum"]) == 2
    assert "holds another computation" in capsys.readouterr().err and not (run.path / "spectrum").exists()
    shown = records.load(run.record)
    data, solutions = shown["data"], shown["solutions"]
    made = dict.fromkeys(matrices(shown), "0" * 64)  # the same images, other numbers
    found, why = spectrum.of_solve(run, data, solutions, made)
    assert found == [] and "solve again" in why
    assert len(spectrum.of_solve(run, data, solutions, matrices(shown))[0]) == 2


def test_a_store_that_has_grown_still_has_an_earlier_solve_s_eigenvalues(run):
    before, _ = spectrum.of_solve(run, *(records.load(run.record)[key] for key in ("data", "solutions")))
    larger = run.path.parent / "larger.yaml"
    larger.write_text(CONFIG.replace("train: 40", "train: 45"))
    assert call(["run", str(larger), "--output", str(run.path)]) == 0
    first = stages.solved(run, 1)
    after, why = spectrum.of_solve(run, first["data"], first["solutions"], matrices(first))
    assert why is None and all((a.values == b.values).all() for a, b in zip(before, after, strict=True))


def test_effective_dimension_is_the_trace_of_the_smoother(run):
    K = _gram(run, 3)[0]
    values, mean = eigvalsh(K)[::-1], np.trace(K) / 40
    found = Findings(spectra=(Eigenvalues("CNTK-V", 3, values, mean, 0, 0.0, 0.1),))
    trace = np.trace(K @ np.linalg.inv(K + 0.1 * mean * np.eye(40)))
    line = next(line for line in Read(page.html(record(), found)).cells if f"{trace:.1f}" in line)
    assert line[0].strip() == "CNTK-V at depth 3" and f"{values[0] / mean:.3g}" in line


@pytest.mark.parametrize("ridge, jitter", [(0.0, 0.0), (0.0, 1e-5), (1e-4, 1e-5)])
def test_effective_dimension_counts_no_rounding_and_knows_the_jitter(run, ridge, jitter):
    """Of a matrix of rank 12 with the rounding errors of float32."""
    x = np.random.default_rng(0).standard_normal((40, 12))
    x /= np.linalg.norm(x, axis=1)[:, None]
    K = (x @ x.T).astype(np.float32).astype(np.float64)
    found = eigen.eigenvalues(K)
    one = Eigenvalues(
        "FC-NTK", 1, found.values[::-1], found.mean_diagonal, 0, found.noise, ridge, 1, False, jitter
    )
    shift = ridge + jitter  # the diagonal is 1
    expected = np.trace(K @ np.linalg.inv(K + shift * np.eye(40))) if shift else 12.0
    line = next(
        line for line in Read(page.html(record(), Findings(spectra=(one,)))).cells if "FC-NTK" in line[0]
    )
    assert line[-1] == f"{expected:.1f}"
    told = {"column": "CNTK-V", "depth": 3, "ridge": 0.1, "draws": [{"jitter": jitter}, {"jitter": 1e-4}]}
    shown = records.load(run.record)
    of_solve, _ = spectrum.of_solve(run, shown["data"], [told])
    assert of_solve[0].jitter == jitter


def test_what_verify_found_is_recorded_and_shown_until_the_run_changes(run):
    assert call(["verify", str(run.path), "--sample", "2"]) == 0
    stage = records.load(run.record)["stages"][-1]
    counted = len(store.open(run.gram).plan.tiles())
    assert stage["stage"] == "verify" and stage["checked"] == counted and stage["damaged"] == 0
    assert stage["entries"] == 4 and 0 <= stage["largest_error"] < 1e-6 and stage["seconds"] > 0
    assert call(["page", str(run.path)]) == 0
    assert f"{counted} tiles checked, 0 damaged" in Read(written(run)).text
    chunk = max((run.gram / "train").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 255
    chunk.write_bytes(content)
    assert call(["verify", str(run.path), "--sample", "0"]) == 1
    assert call(["page", str(run.path)]) == 0
    text = Read(written(run)).text
    assert "1 damaged" in text and "failed" in text and "verify sampled none" in text
    past = records.load(run.record)
    later = past["stages"][0] | {"call": "later"}
    changed = past | {"stages": [*past["stages"], later]}
    assert "the run was changed since" in Read(page.html(changed)).text


def test_gram_fingerprints_tell_matrices_apart(run, solved):
    stage = records.load(run.record)["stages"][-1]
    assert len(set(stage["grams"].values())) == 2 and all(len(one) == 64 for one in stage["grams"].values())
    assert all(one in written(run) for one in stage["grams"].values())
    assert call(["solve", str(run.path)]) == 0
    assert records.load(run.record)["stages"][-1]["grams"] == stage["grams"]
    assert call(["solve", str(run.path), "--set", "dataset.train=20"]) == 0
    assert records.load(run.record)["stages"][-1]["grams"] != stage["grams"]


def test_the_page_of_an_earlier_solve_is_its_own(run):
    assert call(["solve", str(run.path), "--set", "solve.ridge=10.0"]) == 0
    last = written(run)
    assert call(["page", str(run.path), "--solve", "1"]) == 0
    first = (run.solves / "1" / "report" / "index.html").read_text("utf-8")
    assert written(run) == last != first and "solve 1" in Read(first).text
    assert (run.solves / "2" / "report" / "index.html").read_text("utf-8") == last


def test_bad_input_is_told_in_a_line(run, tmp_path, capsys):
    for arguments, said in [
        (["--set", "solve.ridge=1"], "only dataset.path and dataset.labels can change"),
        (["--output", str(tmp_path)], "is a folder"),
        (["--solve", "7"], "has no solve 7"),
    ]:
        assert call(["page", str(run.path), *arguments]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(UserError, match="no accuracies yet"):
        page.html(record(solutions=[]))


def test_a_set_that_has_moved_is_said_and_found_again(tmp_path):
    whole = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 20), ("test", 10)):
        arrays |= {f"x_{part}": whole.integers(0, 255, (n, 4, 4, 3), np.uint8), f"y_{part}": np.arange(n) % 2}
    np.savez(tmp_path / "x.npz", **arrays)
    (tmp_path / "c.yaml").write_text(
        f"{{dataset: {{name: npz, path: {tmp_path / 'x.npz'}}}, kernel: {{columns: [FC-NTK], depths: [2]}},"
        " compute: {backend: cpu}}"
    )
    output = tmp_path / "run"
    assert call(["run", str(tmp_path / "c.yaml"), "--output", str(output)]) == 0
    (tmp_path / "x.npz").rename(tmp_path / "y.npz")
    assert call(["page", str(output)]) == 0
    text = Read(written(Run(output))).text
    assert "Misclassified images are not shown" in text and str(tmp_path) not in text.replace("\n", "")
    assert call(["page", str(output), "--set", f"dataset.path={tmp_path / 'y.npz'}"]) == 0
    assert "Misclassified images are not shown" not in written(Run(output))


@pytest.mark.drawn
def test_curves_of_the_same_images_are_shown_in_the_table_s_order(run):
    assert call(["curve", str(run.path), "--ridge", "0.1", "--sizes", "20,40"]) == 0
    assert call(["page", str(run.path)]) == 0
    text = written(run)
    assert 'id="figure-curves"' in text and "cntk-bench curve runs/small --sizes 20,40 --ridge 0.1\n" in text
    assert call(["curve", str(run.path), "--ridge", "0.0", "--depth", "4", "--sizes", "10,40"]) == 0
    assert call(["page", str(run.path)]) == 0
    apart = [" --column CNTK-V --depth 3 --sizes 20,40 --ridge 0.1\n",
             " --column CNTK-V --depth 4 --sizes 10,40 --ridge 0.0\n"]  # fmt: skip
    assert all(f"cntk-bench curve runs/small{options}" in written(run) for options in apart)
    assert (
        call(["curve", str(run.path), "--depth", "4", "--sizes", "10,20", "--train", "20", "--ridge", "0.1"])
        == 0
    )
    assert call(["page", str(run.path)]) == 0
    text = Read(written(run)).text
    assert "Learning curves of CNTK-V at depth 4 are not shown: they are of fewer images" in text
    assert "--sizes 10,20" not in text and "--sizes 20,40" in text
    facts = sealed.read(run.path / "curve" / "CNTK-V-3.json")
    facts["data"]["images"] = "others"
    for file in (run.path / "curve").glob("*.json"):
        sealed.write(file, facts)
    assert call(["page", str(run.path)]) == 0
    assert 'id="figure-curves"' not in written(run) and "are of other images" in written(run)
    file.write_text(file.read_text().replace('"images": "others"', '"images": "other"'))
    assert call(["page", str(run.path)]) == 0
    assert f"damaged, or of another version ({file.name}): run `curve` again" in Read(written(run)).text


@pytest.mark.drawn
def test_mistakes_and_counts_stand_in_tables_too():
    some = Mistakes(
        np.zeros((1, 3, 4, 4)), *(np.array([i]) for i in (0, 1)), np.array([0.5]), np.array([7]), 1, 9
    )
    found = Findings(cell=record()["solutions"][0], counts=np.array([[3, 1], [0, 5]]), mistakes=some)
    lines = Read(page.html(record() | {"data": record()["data"] | {"classes": 2}}, found)).cells
    assert ["7", "0", "1", "0.500"] in lines and ["0", "4", "3", "75.0", "21.7", "1 (1)"] in lines


NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
PROBE = """<script>addEventListener("load", () => {
  const d = document.documentElement, buttons = document.querySelectorAll("button:not([hidden])").length;
  parent.postMessage(`wide ${d.scrollWidth} of ${d.clientWidth}, buttons ${buttons}`, "*");
})</script>"""
FRAME = """<!doctype html><title>waiting</title><iframe width="%d" height="800" src="page.html"></iframe>
<script>addEventListener("message", (said) => { document.title = said.data; })</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_nothing_overflows_and_nothing_is_complained_of(run, tmp_path):
    """Frames report how wide their page is; complaints go to standard error."""

    def browse(name):
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += [f"--user-data-dir={tmp_path}/user", "--window-size=1400,900", "--enable-logging=stderr"]
        ended = subprocess.run(
            [*command, "--virtual-time-budget=10000", f"file://{tmp_path}/{name}"],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert "CONSOLE" not in ended.stderr, ended.stderr[-2000:]
        return ended.stdout

    text = written(run)
    (tmp_path / "real.html").write_text(text)
    assert 'id="table-costs"' in browse("real.html")
    # The test adds the probe itself, so the policy must let it run.
    policy = re.search(r'content="(default-src[^"]*)"', text)[1]
    (tmp_path / "page.html").write_text(text.replace(policy, "img-src data:") + PROBE)
    for width in (360, 1280):
        (tmp_path / "frame.html").write_text(FRAME % width)
        told = re.search(r"<title>wide (\d+) of (\d+), buttons (\d+)</title>", browse("frame.html"))
        assert told and int(told[1]) <= int(told[2]) <= width and int(told[3]) == 2


def test_templates_are_beside_the_code():
    names = {"page.html", "macros.html", "page.css", "page.js"}
    assert names <= {file.name for file in page.TEMPLATES.iterdir()}
    assert Path(page.__file__).parent in page.TEMPLATES.parents


def test_captions_say_of_which_cells_and_draw_the_mistakes_are(run):
    """A more accurate baseline is passed over, as it keeps no outputs; images are the first draw's."""
    from cntk_bench.analyses import findings

    shown = records.load(run.record)
    found = findings.gather(run, run.config(), shown, run.solves / "1", ("confusion",))
    better = [one | {"accuracy": 100.0} if one["depth"] is None else one for one in shown["solutions"]]
    same = findings.gather(run, run.config(), shown | {"solutions": better}, run.solves / "1", ("confusion",))
    assert found.among == same.among == "kernels that are trusted" and same.cell == found.cell
    doubted = [one | {"trusted": False} for one in shown["solutions"]]
    none = findings.gather(
        run, run.config(), shown | {"solutions": doubted}, run.solves / "1", ("confusion",)
    )
    assert none.among == "cells, none of which is trusted"
    draws = {"draws": [{}, {}], "accuracies": [60.0, 70.0]}
    some = Mistakes(np.zeros((1, 3, 4, 4)), *map(np.array, ([0], [1], [0.5], [7])), 1, 9)
    of_draws = Findings(
        cell=record()["solutions"][0] | draws, counts=np.array([[6, 2], [0, 10]]), repeats=2, mistakes=some,
        spectra=(Eigenvalues("CNTK-V", 3, np.ones(3), 1.0, 0, 0.0, 0.0, 2),),
    )  # fmt: skip
    text = Read(page.html(record() | {"data": record()["data"] | {"classes": 2}}, of_draws)).text
    assert "Over 2 predictions of each test image" in text and "trained on the first draw" in text
    assert "on the 3 training images of the first draw" in text
    lines = Read(page.html(record() | {"data": record()["data"] | {"classes": 2}}, of_draws)).cells
    assert ["0", "8", "6", "75.0", "21.7", "1 (2)"] in lines  # four images, each predicted twice


def test_a_solve_that_was_removed_is_told_and_halves_of_pages_are_not_kept(run):
    half = run.report / f".index.html-{'0' * 32}.partial"
    half.write_text("half")
    assert call(["page", str(run.path)]) == 0 and not half.exists()
    (run.solves / "1").rename(run.solves / "7")
    from cntk_bench.analyses import page as analysis

    with pytest.raises(UserError, match="has no folder solves/1 any more: run `cntk-bench solve` on it"):
        analysis.write(run, run.config())


@pytest.mark.parametrize(("chosen", "said"), [(0.1, "ringed one need not"), (None, "Each draw chooses")])
def test_the_caption_of_ridges_says_whose_choice_it_is(chosen, said):
    tried = [Tried(ridge, 50.0, 1.0, 0.1, 52.0, 1.0) for ridge in (0.0, 0.1)]
    found = Findings(paths=(RidgePath("CNTK-V", 3, tuple(tried), chosen),))
    caption = page_figures.paths(found).caption
    assert said in caption and ("ringed" in caption) == (chosen is not None)


def test_jitter_stands_beside_the_ridge_that_it_was_added_to():
    """The leave-one-out error of a matrix that is singular in float64 is that of its jitter."""
    tried = tuple(
        Tried(ridge, 50.0, 1.0, 0.1, 52.0, 1.0, jitter=jitter) for ridge, jitter in ((0.0, 1e-5), (0.1, 0.0))
    )
    paths = (RidgePath("CNTK-V", 3, tried, 0.1), RidgePath("CNTK-V", 4, tried[1:] * 2, 0.1))
    shown = page_figures.paths(Findings(paths=paths))
    jittered, plain = shown.tables
    assert jittered.heads[:2] == ["ridge", "jitter"] and "jitter" not in plain.heads
    assert [line[:2] for line in jittered.rows] == [["0", "1e-05"], ["0.1", "0"]]
    assert all(len(line) == len(one.heads) for one in shown.tables for line in one.rows)
    assert "Hollow: the solver had to add jitter to this ridge" in shown.caption
    assert "Hollow" not in page_figures.paths(Findings(paths=paths[1:])).caption
    figure = shown.make()
    (hollow,) = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert hollow.get_xydata().tolist() == [[0, 52.0]]
    assert "with jitter" in [text.get_text() for text in figure.legends[0].texts]


def test_every_accuracy_has_its_error_and_what_it_is_worth():
    """The highest of several is biased; leave-one-out has an error, too; an error of 0 says nothing."""
    solutions = [one | {"loo_accuracy": 0.9, "condition": 7.0} for one in record()["solutions"]]
    found = Read(page.html(record(n_train=100, solutions=solutions)))
    assert "the highest of 4, so biased upwards" in found.text
    heads = next(line for line in found.cells if "condition number, 1-norm" in line)
    line = next(line for line in found.cells if line[0] == "CNTK-V at depth 3")
    assert dict(zip(heads, line, strict=True))["its s.e."] == "3.00"
    assert "An s.e. of 0 is uninformative" not in found.text
    certain = [one | {"accuracy": 100.0, "standard_error": 0.0} for one in record()["solutions"]]
    text = Read(page.html(record(n_test=50, solutions=certain))).text
    assert "if all of 50 test images are right, up to 5.8 % of others may be wrong" in text
