"""The commands flow, posterior and curve, as a user meets them, on a small run."""

import csv
import io
import json
import re
import shutil
import sys
from functools import partial

import figures
import numpy as np
import pytest
from figures import as_json, network
from test_cli import QUICKSTART, call, fail, succeed

import cntk_bench
from cntk_bench.analyses import analysis
from cntk_bench.analyses import flow as stage
from cntk_bench.analyses import posterior as posteriors
from cntk_bench.errors import UserError
from cntk_bench.regression import ridge
from cntk_bench.report import curve as report_of_curve
from cntk_bench.report import flow as report_of_flow
from cntk_bench.report import listing as listings
from cntk_bench.report import posterior as report_of_posterior
from cntk_bench.runs import images

COLUMNS = ("CNTK-V", "CNN-GP-V", "CNN-GP-GAP", "FC-NNGP-B0.1", "FC-NNGP-FLIP")
CELL = ("--column", "CNTK-V", "--depth", "3")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of digits: 60 training and 50 test images, three columns."""
    output = tmp_path_factory.mktemp("runs") / "small"
    sizes = ("--set", "dataset.train=60", "--set", "dataset.test=50", "--set", "compute.tile=16")
    kernel = ("--set", f"kernel.columns=[{','.join(COLUMNS)}]", "--set", "kernel.depths=[3]")
    succeed("run", QUICKSTART, *sizes, *kernel, "--output", output)
    return output


@pytest.fixture(autouse=True)
def saved(request, monkeypatch):
    """The saved figures, for tests that ask for them; other tests draw none, as that takes seconds."""
    return figures.watched(request, monkeypatch)


@pytest.mark.parametrize("name", ["flow", "posterior", "curve"])
def test_results_that_cannot_be_kept_are_printed(run, tmp_path, name):
    """A full disk, or a run of somebody else: the table is the same, and the exit code tells of it."""
    copy, cell = tmp_path / "run", ("--column", "CNN-GP-V", "--depth", "3")
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(name))
    expected = succeed(name, copy, *cell)
    shutil.rmtree(copy / name)
    (copy / name).write_text("in the way")
    done = call(name, copy, *cell)
    (problem,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert problem.startswith("results are printed, but not all are kept: cannot write /")
    assert f"{name} (File exists): make it writable" in problem  # a long path loses its middle
    assert done.stdout == expected.replace(f"All results are in {copy / name}\n", "")
    assert (copy / name).read_text() == "in the way"


class TestFlow:
    def test_infinite_time_is_the_table(self, run):
        found = as_json("flow", run, "--stop", "none")
        table = {row["column"]: row for row in as_json("table", run)}
        assert [facts["column"] for facts in found] == list(COLUMNS)
        for facts in found:
            limit, row = facts["limit"], table[facts["column"]]
            assert limit["test_accuracy"] == pytest.approx(row["accuracy"])
            assert limit["standard_error"] == pytest.approx(row["standard_error"])
            assert (limit["time"], limit["train_accuracy"], facts["stopped"]) == (None, 100, None)
            assert facts["curve"][-1]["test_loss"] == pytest.approx(limit["test_loss"], rel=1e-3)

    def test_says_what_the_matrices_say(self, run):
        (facts,) = as_json("flow", run, *CELL, "--times", "1,0.5,1", "--stop", "loo", "--ridge", "0.1")
        gram = cntk_bench.open_run(run).gram("CNTK-V", 3)
        n, unit = 60, 60 / np.trace(gram.train)
        y, y_test = (np.eye(10)[labels] - 0.1 for labels in (gram.y_train, gram.y_test))
        assert facts["unit"] == pytest.approx(unit)
        assert [point["relative_time"] for point in facts["curve"]] == pytest.approx([0.5, 1])
        A, t = gram.train + 0.1 / unit * np.eye(n), facts["curve"][1]["time"]
        assert t == pytest.approx(unit)
        values, vectors = np.linalg.eigh(A)
        alpha = (vectors * ((1 - np.exp(-values * t)) / values)) @ (vectors.T @ y)
        for name, kernel, goal in (("train", gram.train, y), ("test", gram.test, y_test)):
            scores = kernel @ alpha
            assert facts["curve"][1][f"{name}_loss"] == pytest.approx(((scores - goal) ** 2).mean())
            right = scores.argmax(1) == goal.argmax(1)
            assert facts["curve"][1][f"{name}_accuracy"] == pytest.approx(100 * right.mean())

    def test_stops_where_images_left_out_fit_best(self, run):
        (facts,) = as_json("flow", run, *CELL)
        errors = [point["stop_error"] for point in facts["curve"]]
        assert facts["stopped"]["stop_error"] == min(errors)
        gram = cntk_bench.open_run(run).gram("CNTK-V", 3)
        chosen = ridge.solve(gram.train, gram.y_train, classes=10).chosen
        assert errors[-1] == pytest.approx(chosen.loo_error, rel=1e-3)

    def test_stops_where_images_held_out_fit_best(self, run):
        (facts,) = as_json("flow", run, *CELL, "--stop", "validation")
        gram = cntk_bench.open_run(run).gram("CNTK-V", 3)
        y = np.eye(10)[gram.y_train] - 0.1
        values, vectors = np.linalg.eigh(gram.train[:48, :48])
        assert facts["held_out"] == 12
        for point in facts["curve"]:
            weights = -np.expm1(-values * point["time"]) / values
            missed = gram.train[48:, :48] @ ((vectors * weights) @ (vectors.T @ y[:48])) - y[48:]
            assert point["stop_error"] == pytest.approx((missed**2).mean(), rel=1e-9)
        best = min(facts["curve"], key=lambda point: point["stop_error"])
        assert facts["stopped"]["time"] == best["time"]

    @pytest.mark.parametrize(
        ("times", "edge", "words"),
        [
            ("0.01,0.1", "last", "The last time listed is the best: later ones may be better (--times)."),
            ("0.1", "only", "The only time listed is the best: other ones may be better (--times)."),
            ("1e4,1e5", None, None),
            ("0.01,1e5", "last", "Stopping early gains nothing: the last time listed is the best."),
        ],
    )
    def test_an_edge_of_the_times_listed_says_what_is_known(self, run, times, edge, words):
        """As long as the flow has not ended, nothing is known about later times."""
        (facts,) = as_json("flow", run, *CELL, "--times", times)
        assert facts["ended"] == (times[-3:] == "1e5")
        last = -np.expm1(-facts["smallest"] * facts["curve"][-1]["time"])
        assert (last > 0.99) == facts["ended"]
        if words is not None:
            assert facts["stopped"]["edge"] == edge and words in " ".join(report_of_flow.notes(facts))

    @pytest.mark.parametrize("ridge, told", [("0.1", True), ("0", False)])
    def test_published_kernels_have_no_ridge(self, run, ridge, told):
        (facts,) = as_json("flow", run, *CELL, "--times", "1", "--ridge", ridge)
        facts["published"] = {"accuracy": 50.0, "source": "Somebody 2020"}
        assert ("Published kernels are solved without a ridge." in report_of_flow.notes(facts)) == told

    def test_test_labels_choose_nothing(self, run, monkeypatch):
        opened = cntk_bench.open_run(run)
        first = stage.follow(opened, "CNTK-V", 3)
        truth = analysis.truth

        def shuffled(opened):
            y, y_test, classes = truth(opened)
            return y, (y_test + 1) % classes, classes

        monkeypatch.setattr(analysis, "truth", shuffled)
        second = stage.follow(opened, "CNTK-V", 3)
        assert first["limit"]["test_accuracy"] != second["limit"]["test_accuracy"]
        assert first["stopped"]["time"] == second["stopped"]["time"]

    def test_prints_a_table_and_keeps_everything(self, run, saved):
        text = succeed("flow", run, *CELL)
        assert "<- stop" in text and "by leave-one-out: test accuracy" in text and "t = inf" in text
        kept = json.loads((run / "flow" / "CNTK-V-3.json").read_text())
        assert (kept["analysis"], kept["format"], kept["data"]["n_train"]) == ("flow", 1, 60)
        assert kept["made"]["versions"] and kept["made"]["seconds"] > 0
        for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
            assert (run / "flow" / f"CNTK-V-3{suffix}").read_bytes().startswith(start)

    def test_other_formats_hold_the_same_numbers(self, run):
        (facts,) = as_json("flow", run, *CELL, "--times", "1,2")
        listing = report_of_flow.listing(facts)
        written = {form: listings.written(listing, form) for form in ("text", "markdown", "csv", "latex")}
        for form, text in written.items():
            for point in facts["curve"]:
                loss = repr(point["test_loss"]) if form == "csv" else f"{point['test_loss']:.5f}"
                assert f"{point['test_accuracy']:.1f}" in text and loss in text, form
        assert len({line.count("|") for line in written["markdown"].splitlines()[2:6]}) == 1
        assert written["csv"].splitlines()[0].startswith("t tr(K)/n,t,train loss,train,test loss,test,s.e.")
        with pytest.raises(UserError, match="format word is unknown"):
            listings.written(listing, "word")

    def test_several_cells_are_one_csv_and_have_labels_of_their_own(self, run):
        text = succeed("flow", run, "--depth", "3", "--times", "1", "--format", "csv")
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["column"] for row in rows[::2]] == list(COLUMNS) and all(rows[0])
        assert {row["depth"] for row in rows} == {"3"} and rows[1]["mark"] == "t = inf"
        (facts,) = as_json("flow", run, *CELL, "--times", "1")
        deeper = [report_of_flow.listing(facts | {"depth": depth}) for depth in (3, 4)]
        labels = [re.findall(r"\\label{(.*)}", listings.written(one, "latex")) for one in deeper]
        assert labels[0] != labels[1]

    def test_a_finite_networks_curve_is_drawn_over_it(self, run, tmp_path, saved):
        curve = {"time": [0, 1.5, 30.0], "train_loss": [0.09, 0.05, None], "test_loss": [0.09, 0.06, 0.04],
                 "test_accuracy": [10, 50.0, 80.0], "label": "CNN, width 64", "more": 1,
                 "train_accuracy": [10, 60.0, 100.0]}  # fmt: skip
        (tmp_path / "net.json").write_text(json.dumps(curve))
        succeed("flow", run, *CELL, "--network", tmp_path / "net.json")
        unit = json.loads((run / "flow" / "CNTK-V-3.json").read_text())["unit"]
        lines = {line.get_label(): line for line in saved[0].axes[0].lines}
        shown = lines["CNN, width 64, test"].get_xydata()
        np.testing.assert_allclose(shown, [[1.5 / unit, 50], [30 / unit, 80]])
        shown = lines["CNN, width 64, training"].get_xydata()
        np.testing.assert_allclose(shown, [[1.5 / unit, 60], [30 / unit, 100]])
        losses = {line.get_label(): line for line in saved[0].axes[1].lines}
        np.testing.assert_allclose(losses["CNN, width 64, training"].get_xydata(), [[1.5 / unit, 0.05]])
        # The flow is kept, so `figures` can draw it again, beside other tests' cells.
        before = len(saved)
        succeed("figures", run, "--only", "flow", "--output", tmp_path)
        drawn = [{line.get_label(): line for line in figure.axes[0].lines} for figure in saved[before:]]
        lines = next(found for found in drawn if "CNN, width 64, test" in found)
        np.testing.assert_allclose(
            lines["CNN, width 64, test"].get_xydata(), [[1.5 / unit, 50], [30 / unit, 80]]
        )

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("{", "is not JSON"),
            ("[]", "it must be an object with a label"),
            ('{"label": "a", "time": [1]}', "train_loss must be a list, as long as time"),
            (json.dumps(network([2, 1])), "ascending numbers"),
            (json.dumps(network(["x"])), "time must hold finite numbers"),
            (json.dumps(network([1]) | {"train_accuracy": [1, 2]}), "train_accuracy must be a list, as long"),
        ],
    )
    def test_what_is_no_networks_curve_is_refused(self, run, tmp_path, content, words):
        (tmp_path / "net.json").write_text(content)
        assert words in fail("flow", run, *CELL, "--network", tmp_path / "net.json")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--times", "0"), "--times 0: give positive numbers"),
            (("--times", "1,x"), "--times 1,x: give positive numbers"),
            (("--times", "inf"), "--times inf: give positive numbers"),
            (("--times", "1,1e-310"), "a time is not within 1e-30 to 1e+30"),
            (("--times", "1e308,1"), "a time is not within 1e-30 to 1e+30"),
            (("--ridge", "nan"), "Invalid value for '--ridge': nan is not a finite number"),
            (("--ridge", "1e99"), "--ridge 1e+99: give a number from 0 to"),
            (("--train", "61"), "61 training images: use 2 to 60"),
            (("--train", "4", "--stop", "validation"), "too few to hold some out: use --stop loo"),
            (("--column", "CNTK-X"), "column 'CNTK-X' is unknown"),
            (("--column", "CNTK-GAP"), "ntk-gap-3"),
            (("--depth", "4"), "ntk-v-4"),
            (("--network", "missing.json"), "cannot read --network missing.json"),
        ],
    )
    def test_bad_input_is_one_line(self, run, arguments, words):
        assert words in fail("flow", run, *arguments)

    def test_a_network_needs_one_cell(self, run, tmp_path):
        (tmp_path / "net.json").write_text(json.dumps(network([1])))
        assert "add --column and --depth" in fail("flow", run, "--network", tmp_path / "net.json")

    def test_what_does_not_fit_into_memory_is_refused(self, run, monkeypatch):
        from cntk_bench.system import memory

        monkeypatch.setattr(memory, "available", lambda device="cpu": 1000)
        assert "an eigendecomposition of 60 training images needs" in fail("flow", run, *CELL)

    def test_a_doubt_is_told_and_is_the_exit_code(self, run, monkeypatch):
        prediction = sys.modules["cntk_bench.regression.prediction"]
        monkeypatch.setattr(prediction, "unsure", partial(prediction.unsure, error=1.0))
        assert "1 of 1 results are not to be trusted: CNTK-V at depth 3" in fail("flow", run, *CELL)

    def test_a_link_is_not_written_through(self, run, tmp_path):
        folder = run / "curve"
        assert not folder.exists()
        folder.symlink_to(tmp_path)
        try:
            assert "is a link" in fail("curve", run, *CELL)
            assert list(tmp_path.iterdir()) == []
        finally:
            folder.unlink()


LEFT_OUT = ("The kernel is analysed as it is: solve.normalize concerns the table alone.",
            "Only the first of 2 draws of training images is analysed.")  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two draws of 10 images, whose solve scales the kernel."""
    output = tmp_path_factory.mktemp("runs") / "drawn"
    changed = ("dataset.train=10", "dataset.test=12", "dataset.draws=2", "kernel.columns=[FC-NNGP]",
               "kernel.depths=[1]", "solve.normalize=unit_diagonal")  # fmt: skip
    succeed("compute", QUICKSTART, *(word for one in changed for word in ("--set", one)), "--output", output)
    return output


@pytest.mark.parametrize(
    ("command", "more", "of_draws"),
    [("flow", ("--times", "1"), {"draws": 2}), ("posterior", ("--ridge", "0.1"), {"draws": 2}),
     ("curve", ("--ridge", "0.1", "--sizes", "8", "--train", "9"), {"draws": 2}),
     ("curve", ("--ridge", "0.1", "--sizes", "8"), {})],
)  # fmt: skip
def test_what_an_analysis_leaves_out_is_kept_and_told_wherever_its_numbers_are(
    drawn, tmp_path, command, more, of_draws
):
    left_out = {"normalize": "unit_diagonal"} | of_draws
    said = call(command, drawn, *more)
    kept = json.loads((drawn / command / "FC-NNGP-1.json").read_text())
    assert kept["ignored"] == left_out
    call("figures", drawn, "--only", command, "--format", "png", "--output", tmp_path)
    caption = (tmp_path / "captions.txt").read_text()
    for words, known in zip(LEFT_OUT, ("normalize", "draws"), strict=True):
        for text in (said.stdout, caption):
            assert (words in text) == (known in left_out)
        assert (words[1:-1] in said.stderr) == (known in left_out)


def test_a_doubt_is_marked_on_the_accuracy(run):
    """As `docs/how-to/trust.md` says of every table."""
    (facts,) = as_json("flow", run, *CELL, "--times", "1")
    facts["limit"]["doubt"] = "none"
    flow = report_of_flow.listing(facts)
    assert [line for line in flow.cells() if line[5].endswith("?")] == flow.cells()[1:]
    assert "?" not in "".join(flow.cells()[1][6:])
    results = as_json("posterior", run, "--column", "CNN-GP-V")
    results[0]["doubt"] = "none"
    (line,) = report_of_posterior.listing(results).cells()
    assert line[5] == f"{results[0]['accuracy']:.2f}?" and "?" not in "".join(line[:5] + line[6:])


def test_a_standard_error_of_0_is_worth_nothing_in_any_analysis(run):
    """If all of 50 images are right, a rate of errors below 1 - 0.05^(1/50), 5.8 %, is compatible with it."""
    words = "An s.e. of 0 is uninformative: if all of 50 test images are right, up to 5.8 % of others"
    (flow,) = as_json("flow", run, *CELL, "--times", "1", "--stop", "none")
    posterior = as_json("posterior", run, "--column", "CNN-GP-V")
    curve = as_json("curve", run, *CELL, "--sizes", "30,60")
    places = (
        (flow["curve"][0], "test_accuracy"),
        (posterior[0], "accuracy"),
        (curve[0]["points"][1], "accuracy"),
    )
    for accuracy, error, told in ((99.0, 0.1, False), (100.0, 0.0, True), (0.0, 0.0, True)):
        for place, key in places:
            place |= {key: accuracy, "standard_error": error}
        shown = (
            report_of_flow.notes(flow),
            report_of_posterior.notes(posterior),
            report_of_curve.notes(curve),
        )
        assert [words in " ".join(notes) for notes in shown] == [told] * 3


def test_zero_eigenvalues_may_be_of_a_low_rank(run):
    (facts,) = as_json("flow", run, *CELL, "--times", "1")
    assert "eigenvalue" not in " ".join(report_of_flow.notes(facts))
    for zeros, words in (
        (1, "1 eigenvalue of K is zero within rounding"),
        (130, "130 eigenvalues of K are zero"),
    ):
        said = " ".join(report_of_flow.notes(facts | {"zeros": zeros}))
        assert words in said and "as of equal images or of a kernel of low rank, and left out." in said


@pytest.mark.parametrize(
    ("command", "remedy"),
    [("flow", "stop earlier, or raise --ridge"), ("curve", "raise --ridge"), ("posterior", "raise --ridge")],
)
def test_a_doubt_says_what_can_be_done(run, monkeypatch, command, remedy):
    monkeypatch.setattr(stage.prediction, "unsure", lambda scores, *_: np.ones(len(scores), bool))
    column = "CNN-GP-V" if command == "posterior" else "CNTK-V"
    said = fail(command, run, "--column", column, "--depth", "3")
    assert f"change the class of 100 % of the test images; {remedy}" in said and "solve.ridge" not in said


@pytest.mark.parametrize("near", [True, False], ids=["almost equal", "equal"])
def test_two_labels_of_an_image_decide_nothing(tmp_path, near):
    """If only rounding tells two images apart, the flow's end is doubted; others raise the jitter."""
    digits = cntk_bench.load_images("digits", train=60, test=50, preprocess="none")
    x, y = digits.x_train[:, 0].astype("f8"), digits.y_train.copy()
    for again, first in ((40, 3), (47, 10)):
        x[again], y[again] = x[first], (y[first] + 1) % 10
        x[again, 4, 4] += 1e-5 * near
    arrays = {"x_train": x, "y_train": y, "x_test": digits.x_test[:, 0].astype("f8"), "y_test": digits.y_test}
    np.savez(tmp_path / "two.npz", **arrays)
    data = ("--set", "dataset.name=npz", "--set", f"dataset.path={tmp_path / 'two.npz'}")
    of = ("--set", "dataset.train=60", "--set", "dataset.test=50", "--set", "dataset.order=random")
    cells = ("--set", "kernel.columns=[CNN-GP-V]", "--set", "kernel.depths=[3]")
    succeed("run", QUICKSTART, *data, *of, *cells, "--output", tmp_path / "run")
    (row,) = as_json("table", tmp_path / "run")
    (curve,) = as_json("curve", tmp_path / "run", "--sizes", "60")
    assert curve["jitter"] > 1e-8 if near else curve["jitter"] == 1e-10
    assert curve["points"][0]["accuracy"] == pytest.approx(row["accuracy"], abs=4) and row["accuracy"] > 60
    end = fail if near else succeed
    end("flow", tmp_path / "run", "--stop", "none")
    flow = json.loads((tmp_path / "run" / "flow" / "CNN-GP-V-3.json").read_text())
    assert ("move what is fitted" in (flow["limit"]["doubt"] or "")) == near
    assert not near or any(point["doubt"] is None and point["test_accuracy"] > 60 for point in flow["curve"])
    succeed("posterior", tmp_path / "run")
    assert "within the errors of stored kernels" in fail("posterior", tmp_path / "run", "--ridge", "1e-9")


class TestCurve:
    def test_agrees_with_a_solve_of_each_size(self, run):
        found = as_json("curve", run, "--sizes", "20,35,60")
        assert [[point["train"] for point in facts["points"]] for facts in found] == [[20, 35, 60]] * len(
            COLUMNS
        )
        for place, size in enumerate((20, 35, 60)):
            succeed("solve", run, "--set", f"dataset.train={size}")
            table = {row["column"]: row["accuracy"] for row in as_json("table", run)}
            assert table == {
                facts["column"]: pytest.approx(facts["points"][place]["accuracy"]) for facts in found
            }

    def test_says_what_it_holds(self, run, saved):
        text = succeed("curve", run, "--train", "40", "--ridge", "0.1")
        assert len(saved) == 2 and "learning curves on the first n of 40 training images" in text
        assert "The absolute ridge is that of all images" in text
        rows = [line.split() for line in text.splitlines() if line.lstrip().startswith("CNTK-V")]
        assert [row[2] for row in rows] == ["20", "40"] and rows[1][-1] == "0.1"
        assert {path.name for path in (run / "curve").iterdir()} == {
            "accuracy.png",
            "accuracy.svg",
            *(f"{column}-3.json" for column in COLUMNS),
        }

    def test_draws_accuracy_against_size(self, run, saved):
        (facts,) = as_json("curve", run, *CELL, "--sizes", "10,60")
        (bars,) = saved[0].axes[0].containers
        expected = [[point["train"], point["accuracy"]] for point in facts["points"]]
        assert bars[0].get_xydata().tolist() == expected
        assert saved[0].axes[0].get_xscale() == "log"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--sizes", "1.5"), "--sizes 1.5: give integers above 0"),
            (("--sizes", "1"), "size 1 is not possible: use numbers of training images from 2 to 60"),
            (("--sizes", "30,100"), "size 100 is not possible"),
        ],
    )
    def test_bad_input_is_one_line(self, run, arguments, words):
        assert words in fail("curve", run, *arguments)


class TestPosterior:
    def test_says_what_the_matrices_say(self, run):
        found = as_json("posterior", run, "--ridge", "0.05")
        # COLUMNS without the first are the Gaussian processes
        assert [facts["column"] for facts in found] == list(COLUMNS[1:])
        for facts in found:
            gram = cntk_bench.open_run(run).gram(facts["column"], 3)
            kept = np.load(run / "posterior" / f"{facts['column']}-3.npz")
            y, y_test = (np.eye(10)[labels] - 0.1 for labels in (gram.y_train, gram.y_test))
            A = gram.train + 0.05 * np.trace(gram.train) / 60 * np.eye(60)
            mean = gram.test @ np.linalg.solve(A, y)
            np.testing.assert_allclose(kept["mean"], mean, atol=1e-8)
            scale = (y * np.linalg.solve(A, y)).sum() / y.size
            assert facts["scale"] == pytest.approx(scale)
            explained = scale * (gram.test * np.linalg.solve(A, gram.test.T).T).sum(axis=1)
            own = kept["variance"] + explained  # kernels of test images with themselves, which no store holds
            x = images.load(cntk_bench.open_run(run).run.config()).x_test
            readout = cntk_bench.open_run(run).readout(facts["column"], 3)
            expected = cntk_bench.gram(x, readouts=[readout])[0].diagonal()
            np.testing.assert_allclose(own, scale * expected, rtol=1e-6)
            spread = (kept["variance"] + facts["noise"])[:, None]
            nll = ((y_test - mean) ** 2 / spread + np.log(2 * np.pi * spread)).mean() / 2
            assert facts["nll"] == pytest.approx(nll, rel=1e-6)
            assert facts["accuracy"] == pytest.approx(100 * (mean.argmax(1) == gram.y_test).mean())
            assert kept["probabilities"].shape == (50, 10)
            assert sum(one["count"] for one in facts["reliability"]) == 50

    def test_the_likelihood_chooses_the_ridge(self, run):
        (best,) = as_json("posterior", run, "--column", "CNN-GP-V")
        for factor in (0.5, 2):
            value = str(factor * best["ridge"] + 1e-6)
            (other,) = as_json("posterior", run, "--column", "CNN-GP-V", "--ridge", value)
            assert other["log_likelihood"] <= best["log_likelihood"] + 1e-12
        assert (best["chosen"], other["chosen"]) == ("likelihood", "given")

    @pytest.mark.parametrize("edited", [{"test": 1}, {"test": 20, "train": 30}, {"draws": 2, "train": 5}])
    def test_is_of_the_images_computed_whatever_numbers_the_config_has_now(self, run, edited):
        opened = cntk_bench.open_run(run)
        config = opened.run.config()
        asked = config.dataset.model_copy(update=edited)
        changed = config.model_copy(update={"dataset": asked})
        cells = [("CNN-GP-V", 3)]
        (own,), (expected,) = (
            posteriors.own_kernels(opened, settings, cells).values() for settings in (changed, config)
        )
        np.testing.assert_array_equal(own, expected)

    def test_is_of_images_prepared_as_they_were_computed(self, tmp_path):
        """With the statistics of all training images computed, also where some are left out now."""
        sizes = ("dataset.train=20", "dataset.test=15", "kernel.depths=[3]")
        more = (*sizes, "preprocess.statistics=subset", "kernel.columns=[CNN-GP-V]")
        changes = [word for one in more for word in ("--set", one)]
        succeed("compute", QUICKSTART, *changes, "--output", tmp_path / "run")
        opened, cells = cntk_bench.open_run(tmp_path / "run"), [("CNN-GP-V", 3)]
        (own,), (of_fewer,) = (
            posteriors.own_kernels(one, one.run.config(), cells).values()
            for one in (opened, opened.first(12))
        )
        np.testing.assert_array_equal(of_fewer, own)
        (facts,) = as_json("posterior", tmp_path / "run", "--train", "12")
        assert facts["data"]["n_train"] == 12

    def test_a_black_test_image_has_a_class_as_likely_as_any(self, tmp_path):
        digits = cntk_bench.load_images("digits", train=40, test=30, preprocess="none")
        arrays = {"y_train": digits.y_train, "y_test": digits.y_test, "x_train": digits.x_train[:, 0]}
        x_test = digits.x_test[:, 0].copy()
        x_test[7] = 0
        np.savez(tmp_path / "black.npz", x_test=x_test, **arrays)
        more = ("dataset.name=npz", f"dataset.path={tmp_path / 'black.npz'}", "dataset.train=40",
                "dataset.test=30", "dataset.order=random", "dataset.preprocess=none",
                "kernel.columns=[CNN-GP-V]", "kernel.depths=[3]")  # fmt: skip
        changes = [word for one in more for word in ("--set", one)]
        succeed("run", QUICKSTART, *changes, "--output", tmp_path / "run")
        for given in ("0.05", "0"):
            (facts,) = as_json("posterior", tmp_path / "run", "--ridge", given)
            kept = np.load(tmp_path / "run" / "posterior" / "CNN-GP-V-3.npz")
            (black,) = np.flatnonzero(kept["variance"] == 0)
            np.testing.assert_allclose(kept["probabilities"][black], 0.1)
            assert np.isfinite(kept["probabilities"]).all() and facts["doubt"] is None
            assert sum(one["count"] for one in facts["reliability"]) == 30
            assert 0 < facts["ece"] < 1 and facts["log_loss"] > 0
            assert (facts["nll"] is None) == (given == "0")  # of a certain error it is infinite
            report_of_posterior.figure(facts)

    def test_a_kernel_to_which_targets_are_noise_is_said_to_be_one(self, run, monkeypatch):
        monkeypatch.setattr(posteriors.gp, "likeliest", lambda *_: posteriors.gp.MOST)
        text = succeed("posterior", run, "--column", "CNN-GP-V")
        assert "CNN-GP-V at depth 3: the likeliest ridge is the largest tried: to this kernel the" in text
        given = succeed("posterior", run, "--column", "CNN-GP-V", "--ridge", "10000")
        assert "largest tried" not in given

    def test_prints_tables_and_draws(self, run, saved):
        text = succeed("posterior", run, "--column", "CNN-GP-V")
        assert "probability of the likeliest class" in text and "NLL" in text and "95 %" in text
        facts = json.loads((run / "posterior" / "CNN-GP-V-3.json").read_text())
        left, right = saved[0].axes
        (points,) = [c for c in left.containers if c.get_label() == "CNN-GP-V at depth 3"]
        assert points[0].get_xydata().tolist() == [
            [one["confidence"], one["accuracy"]] for one in facts["reliability"]
        ]
        expected = [[one["level"], one["observed"]] for one in facts["coverage"]]
        assert right.lines[0].get_xydata().tolist() == expected

    def test_a_column_that_is_no_gaussian_process_is_refused(self, run):
        said = fail("posterior", run, "--column", "CNTK-V")
        others = ", ".join(COLUMNS[1:])
        assert f"`posterior` needs an NNGP column, which CNTK-V is not: use --column {others}" in said

    @pytest.mark.parametrize("command", ["flow", "curve"])
    def test_a_column_without_a_matrix_is_refused(self, run, command):
        said = fail(command, run, "--column", "LINEAR")
        assert f"`{command}` needs a kernel column, which LINEAR is not: use --column CNTK-V, " in said

    def test_a_run_that_has_none_says_what_to_compute(self, tmp_path):
        sizes = ("--set", "dataset.train=20", "--set", "dataset.test=10", "--set", "kernel.depths=[1]")
        for columns, words in (
            (
                "[FC-NTK]",
                "`posterior` needs an NNGP column, and .* has only FC-NTK: compute CNN-GP-V or another",
            ),
            ("[LINEAR]", "columns of .* need no Gram matrix: compute one that does, such as CNTK-V"),
        ):
            run = tmp_path / columns
            succeed("run", QUICKSTART, *sizes, "--set", f"kernel.columns={columns}", "--output", run)
            assert re.search(words, fail("posterior", run))
        # Depth 1 is the least for fully connected kernels.
        flow = as_json("flow", tmp_path / "[FC-NTK]", "--depth", "1")
        (curve,) = as_json("curve", tmp_path / "[FC-NTK]", "--depth", "1", "--sizes", "20")
        assert flow[0]["depth"] == 1 and curve["points"][0]["train"] == 20

    def test_other_images_are_refused(self, run):
        opened = cntk_bench.open_run(run)
        with pytest.raises(
            UserError, match="holds another computation: its training images are others .seed"
        ):
            posteriors.own_kernels(opened, opened.run.config(("dataset.seed=1",)), [("CNN-GP-V", 3)])
        # digits are not read from a file.
        assert "remove it" in fail("posterior", run, "--path", "elsewhere.npz")
