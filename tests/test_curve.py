"""`curve` on a small run of several draws, and `curve --extrapolate`, as users meet them."""

import json
import shutil
from dataclasses import replace

import figures
import numpy as np
import pytest
import yaml
from figures import as_json
from test_cli import QUICKSTART, call, fail, succeed

import cntk_bench
from cntk_bench.analyses import extrapolation
from cntk_bench.data import order
from cntk_bench.regression import prediction, ridge
from cntk_bench.report import curve as report_of_curve
from cntk_bench.report import published
from cntk_bench.report.published import ALL, Table

DRAWS, N, M = 3, 40, 150
SIZES = (8, 12, 20, 28, 40)
LISTED = ("--sizes", ",".join(map(str, SIZES)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three draws of 40 training images of digits, 150 test images, two columns."""
    output = tmp_path_factory.mktemp("runs") / "drawn"
    changed = (f"dataset.train={N}", f"dataset.test={M}", f"dataset.draws={DRAWS}", "compute.tile=20",
               "kernel.columns=[CNTK-V, CNN-GP-V]", "kernel.depths=[3]")  # fmt: skip
    succeed("compute", QUICKSTART, *(word for one in changed for word in ("--set", one)), "--output", output)
    return output


@pytest.fixture(autouse=True)
def saved(request, monkeypatch):
    return figures.watched(request, monkeypatch)


def with_ridge(run, folder, ridge):
    """A copy of the run, with this solve.ridge."""
    copy = folder / "run"
    shutil.copytree(run, copy)
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    settings["solve"]["ridge"] = ridge
    (copy / "config.yaml").write_text(yaml.safe_dump(settings))
    return copy


def of_digits(train, test, accuracy, source="Somebody 2020", **more):
    return Table(source, ("digits", ALL), train, test, {"CNTK-V": {3: accuracy}}, **more)


class TestDraws:
    def test_mean_and_deviation_are_those_of_solves_of_each(self, run):
        found = as_json("curve", run, *LISTED)
        assert [facts["column"] for facts in found] == ["CNTK-V", "CNN-GP-V"]
        opened = cntk_bench.open_run(run)
        for facts in found:
            assert facts["data"]["draws"] == DRAWS and facts["data"]["n_train"] == N
            for point, m in zip(facts["points"], SIZES, strict=True):
                expected = []
                for draw in range(1, DRAWS + 1):
                    gram = opened.gram(facts["column"], 3, draw)
                    alone = ridge.solve(gram.train[:m, :m], gram.y_train[:m], classes=10)
                    classes = prediction.predict(alone.alpha, [gram.test[:, :m]]).classes
                    expected.append(100 * float((classes == gram.y_test).mean()))
                assert point["train"] == m and point["accuracies"] == pytest.approx(expected)
                assert point["accuracy"] == pytest.approx(np.mean(expected))
                assert point["spread"] == pytest.approx(np.std(expected, ddof=1))
                share = np.mean(expected) / 100
                assert point["standard_error"] == pytest.approx(100 * (share * (1 - share) / M) ** 0.5)
                assert [one["accuracy"] for one in point["draws"]] == point["accuracies"]

    def test_the_whole_of_each_draw_is_the_table(self, run):
        succeed("solve", run)
        table = {row["column"]: row for row in as_json("table", run)}
        for facts in as_json("curve", run, "--sizes", f"20,{N}"):
            last, row = facts["points"][-1], table[facts["column"]]
            assert (last["accuracy"], last["spread"]) == (row["accuracy"], row["spread"])

    def test_one_draw_is_told_as_it_was(self, run):
        """With --train, only the first draw is analysed, and nothing about draws is shown."""
        said = call("curve", run, "--sizes", "10,20", "--train", "30").stderr
        assert "only the first of 3 draws of training images is analysed" in said
        found = as_json("curve", run, "--sizes", "10,20", "--train", "30")
        every = as_json("curve", run, "--sizes", "10,20")
        keys = {"train", "accuracy", "standard_error", "ridge", "largest_residual", "undecided", "doubt",
                "published", "source"}  # fmt: skip
        for facts, whole in zip(found, every, strict=True):
            assert "draws" not in facts["data"] and "extrapolation" not in facts
            for point, of_all in zip(facts["points"], whole["points"], strict=True):
                assert set(point) == keys and point["accuracy"] == pytest.approx(of_all["accuracies"][0])

    @pytest.mark.parametrize("given", [[0.1], [0.1, 0.1]])
    def test_a_list_of_one_ridge_is_one_ridge(self, run, tmp_path, given):
        of = ("--sizes", "20", "--column", "CNTK-V")
        (expected,) = as_json("curve", run, *of, "--ridge", "0.1")
        (facts,) = as_json("curve", with_ridge(run, tmp_path, given), *of)
        assert (facts["ridge"], facts["points"]) == (0.1, expected["points"])

    @pytest.mark.parametrize("given", [[0.1, 0.2], "loo"])
    def test_of_several_ridges_one_has_to_be_given(self, run, tmp_path, given):
        said = fail("curve", with_ridge(run, tmp_path, given), "--sizes", "20")
        told = f"solve.ridge of the run is {given}, not one number, as a learning curve needs: give --ridge"
        assert told in said

    def test_says_of_what_it_is(self, run, saved):
        text = succeed("curve", run, *LISTED, "--column", "CNTK-V", "--ridge", "0.1")
        assert "on the first n of each of 3 draws of 40 training images, digits, 150 test images" in text
        assert "means over 3 draws" in text and "dividing by one less than their number" in text
        assert "The first n images of a draw are as balanced over the classes as the data allow" in text
        (facts,) = as_json("curve", run, *LISTED, "--column", "CNTK-V", "--ridge", "0.1")
        (bars,) = saved[0].axes[0].containers
        lengths = [segment[1][1] - segment[0][1] for segment in bars[2][0].get_segments()]
        assert lengths == pytest.approx([2 * point["spread"] for point in facts["points"]])
        head = next(line for line in text.splitlines() if "accuracy" in line)
        assert head.split() == ["column", "depth", "n", "accuracy", "s.e.", "spread", "ridge"]

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"order": "random"}, "The first n images of a draw are taken at random, not by classes"),
            ({"n_train": 45}, "may have two more of one class than of another, and more if"),
            ({"n_train": 45}, "since 45 is no multiple of 10"),
        ],
    )
    def test_balance_is_not_claimed_where_there_is_none(self, run, changed, words):
        found = as_json("curve", run, "--sizes", "20")
        for facts in found:
            facts["data"] |= changed
        assert words in " ".join(report_of_curve.notes(found))

    @pytest.mark.parametrize(("n", "most"), [(20, 1), (15, 2), (7, 2)])
    def test_beginnings_of_draws_are_balanced(self, n, most):
        """Class counts differ by at most 1 if draws are whole rounds of all classes, otherwise by 2."""
        labels = np.repeat(np.arange(10), 60)
        seen = set()
        for seed in range(5):
            drawn = labels[order.balanced_order(labels, seed, 0)]
            for draw in range(12):
                some = drawn[draw * n : (draw + 1) * n]
                for m in range(1, n + 1):
                    seen.add(int(np.ptp(np.bincount(some[:m], minlength=10))))
        assert max(seen) == most

    def test_published_of_as_many_draws_stands_beside(self, run, monkeypatch, saved):
        deviations = {"CNTK-V": {3: 2.5}}
        tables = (
            of_digits(20, M, 55.5, "Ours 2020", deviations=deviations),
            of_digits(40, 10_000, 77.7, "Far 2021", deviations=deviations),
            of_digits(12, 10_000, 44.4, "One set"),
        )
        monkeypatch.setattr(published, "TABLES", tables)
        (facts,) = as_json("curve", run, *LISTED, "--column", "CNTK-V")
        told = {p["train"]: (p["published"], p["published_spread"], p["elsewhere"]) for p in facts["points"]}
        assert told[20] == (55.5, 2.5, None) and told[28] == (None, None, None)
        assert told[40][:2] == (None, None) and told[40][2]["accuracy"] == 77.7
        assert told[12][2]["spread"] is None  # published for one training set only
        text = succeed("curve", run, *LISTED, "--column", "CNTK-V")
        rows = {
            line.split()[2]: line.split()[6:] for line in text.splitlines() if line.strip().startswith("CNTK")
        }
        assert rows == {"8": ["-"] * 3, "12": ["-", "44.40", "-"], "20": ["55.50", "-", "2.50"],
                        "28": ["-"] * 3, "40": ["-", "77.70", "2.50"]}  # fmt: skip
        assert (
            "for as many training images but 10,000 test images, here 150, so no difference is shown" in text
        )
        assert "a spread is larger with fewer test images: Far 2021." in text
        rings = {line.get_label(): c for c in saved[0].axes[0].containers for line in [c]}
        ring = rings["CNTK-V, depth 3, published at other sizes"][0]
        assert ring.get_xydata().tolist() == [[12, 44.4], [40, 77.7]]

    def test_one_draw_is_not_beside_means_over_draws(self, run, monkeypatch):
        many = of_digits(20, M, 55.5, deviations={"CNTK-V": {3: 2.5}})
        monkeypatch.setattr(published, "TABLES", (many, replace(many, n_test=10_000)))
        (facts,) = as_json("curve", run, "--sizes", "20", "--train", "40", "--column", "CNTK-V")
        assert facts["points"][0]["published"] is None and "elsewhere" not in str(facts)

    @pytest.mark.parametrize("ridge, told", [("0.1", True), ("0", False)])
    def test_published_kernels_have_no_ridge(self, run, monkeypatch, ridge, told):
        monkeypatch.setattr(published, "TABLES", (of_digits(20, M, 55.5), of_digits(40, 10_000, 77.7)))
        for size in ("20", "40"):  # beside the same test images, and beside others
            found = as_json("curve", run, "--sizes", size, "--column", "CNTK-V", "--ridge", ridge)
            assert (published.RIDGELESS in report_of_curve.notes(found)) == told
        found = as_json("curve", run, "--sizes", "12", "--column", "CNTK-V", "--ridge", ridge)
        assert published.RIDGELESS not in report_of_curve.notes(found)


class TestExtrapolation:
    CELL = ("--column", "CNTK-V", *LISTED, "--extrapolate", "1000")

    def test_is_what_the_law_says_of_the_curve(self, run, monkeypatch):
        monkeypatch.setattr(published, "TABLES", (of_digits(1000, M, 95.5), of_digits(1000, 99, 11.1, "No")))
        (facts,) = as_json("curve", run, *self.CELL)
        opened, rights = cntk_bench.open_run(run), []
        for draw in range(1, DRAWS + 1):
            gram = opened.gram("CNTK-V", 3, draw)
            alphas = [ridge.solve(gram.train[:m, :m], gram.y_train[:m], classes=10).alpha for m in SIZES]
            rights.append(
                [(gram.test[:, :m] @ a).argmax(1) == gram.y_test for m, a in zip(SIZES, alphas, strict=True)]
            )
        expected = extrapolation.extrapolated(facts["points"], np.array(rights), 1000)
        found = facts["extrapolation"]
        assert {key: found[key] for key in expected} == json.loads(json.dumps(expected))
        assert (found["published"], found["source"]) == (95.5, "Somebody 2020")
        assert found["refused"] is None and found["over"] == "test images and draws"

    def test_is_a_row_of_its_own_and_a_broken_line(self, run, monkeypatch, saved):
        monkeypatch.setattr(published, "TABLES", (of_digits(1000, M, 95.5),))
        text = succeed("curve", run, *self.CELL)
        rows = [line.split() for line in text.splitlines() if line.strip().startswith("CNTK-V  ")]
        assert [row[3] for row in rows] == ["measured"] * 5 + ["extrapolated"]
        (facts,) = (json.loads((run / "curve" / "CNTK-V-3.json").read_text()),)
        found = facts["extrapolation"]
        numbers = [f"{found[key]:.2f}" for key in ("accuracy", "standard_error")]
        assert rows[-1][2:] == ["1000", "extrapolated", *numbers, "-", f"{found['lowest']:.2f}",
                                f"{found['highest']:.2f}", "95.50"]  # fmt: skip
        assert "Extrapolated, not measured" in text and "from the smaller n the law predicts" in text
        lines = {line.get_label(): line for line in saved[0].axes[0].lines}
        broken = lines["CNTK-V, depth 3, extrapolated"]
        assert broken.get_linestyle() == "--" and broken.get_xdata()[-1] == pytest.approx(1000)
        assert broken.get_ydata()[-1] == pytest.approx(found["accuracy"])
        (band,) = [
            c
            for c in saved[0].axes[0].collections
            if "FillBetween" in type(c).__name__ or "Poly" in type(c).__name__
        ]
        assert np.ptp(band.get_paths()[0].vertices[:, 1]) > 2 * found["standard_error"] * 0.99
        (rings,) = [c for c in saved[0].axes[0].containers if "published" in str(c.get_label())]
        assert rings[0].get_xydata().tolist() == [[1000, 95.5]]

    def test_a_doubt_is_marked_and_is_the_exit_code(self, run, monkeypatch):
        check = {"train": 40, "predicted": 10.0, "measured": 50.0, "standard_error": 13.0}
        monkeypatch.setattr(extrapolation, "_check", lambda *_: check)
        found = call("curve", run, *self.CELL)
        assert (
            found.returncode == 2
            and "1 of 1 results are not to be trusted: CNTK-V at depth 3" in found.stderr
        )
        row = next(line for line in found.stdout.splitlines() if "extrapolated" in line)
        # The mark is on the accuracy, not on the published one.
        assert row.split()[4].endswith("?") and row.count("?") == 1

    def test_a_curve_without_a_law_keeps_what_was_measured(self, run, monkeypatch):
        monkeypatch.setattr(extrapolation, "UNPOSED", -1.0)
        found = call("curve", run, *self.CELL)
        assert found.returncode == 2
        assert "CNTK-V at depth 3 is not extrapolated: in 0 % of the resamples" in found.stderr
        assert found.stdout.count(" measured ") == 5 and " extrapolated  " not in found.stdout
        kept = json.loads((run / "curve" / "CNTK-V-3.json").read_text())
        assert len(kept["points"]) == 5 and "does not fall" in kept["extrapolation"]["refused"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--sizes", "10,20,40", "--extrapolate", "100"), "and there are 3: give more with --sizes"),
            ((*LISTED, "--extrapolate", "40"), "give more images than the largest size, 40"),
            ((*LISTED, "--extrapolate", "1"), "1 is not in the range 2<=x<=1000000000"),
        ],
    )
    def test_bad_input_is_one_line(self, run, arguments, words):
        assert words in fail("curve", run, *arguments)
