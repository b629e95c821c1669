"""Comparing solves: what differs, what is common, and differences only between comparable solves."""

import csv
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from solved_runs import M, right, solved, truth

from cntk_bench.cli import program
from cntk_bench.regression import paired
from cntk_bench.report import paired as report_of_pairs
from cntk_bench.report.listing import written

RESULTS = Path(__file__).parents[1] / "results"
CELL = ("CNTK-V", 3)


@pytest.fixture
def called(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = program.call([*map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def rows(called):
    def found(*arguments):
        code, out, err = called("compare", *arguments, "--format", "json")
        assert code == 0, err
        return json.loads(out)

    return found


def test_what_differs_is_a_column_and_what_all_share_is_told_once(called, tmp_path):
    solved(tmp_path / "a", {CELL: right(0.8)}, commit="1234567890abcdef")
    solved(tmp_path / "b", {CELL: right(0.9)}, settings={"solve": {"ridge": 0.5}, "dataset": {"seed": 7}})
    code, out, _ = called("compare", "a", "b")
    above, table = out.split("\n\n")[:2]
    heads = table.splitlines()[0].split("  ")
    assert code == 0 and "normalize none" in above and "test 60" in above and "1234567890" in above
    assert "dataset.seed" in table and "seed" not in above
    assert "solve.ridge" in table  # the ridge that was asked for, not those in the solutions
    assert not any("normalize" in head for head in heads) and table.count("CNTK-V") == 2


def test_a_mapping_by_column_counts_as_the_value_of_the_cells_column(called, tmp_path):
    """One network may be asked for by a number or by a mapping; what is another column's is no difference."""
    cell = ("CNN-V", 3)
    for name, kappa in (("a", 0.002), ("b", {"CNN-GAP": 1.0, "CNN-V": 0.002}), ("c", {"CNN-V": 0.05})):
        solved(tmp_path / name, {cell: right(0.8)}, settings={"network": {"kappa": kappa}})
    code, out, _ = called("compare", "a", "b")
    assert code == 0 and "network: kappa 0.002" in out and "CNN-GAP" not in out
    assert "Solves with the same settings share a row" in out
    code, out, _ = called("compare", "b", "c")
    above, (heads, *_) = lines_of(out)
    assert code == 0 and "network.kappa" in heads and "kappa" not in above


def lines_of(out):
    above, table = out.split("\n\n")[:2]
    return above, table.splitlines()


def test_values_that_read_alike_in_six_digits_are_told_apart(called, tmp_path):
    for name, ridge in (("a", 0.01), ("b", 0.010000001)):
        cells = {CELL: (right(0.8), {"ridge": ridge})}
        solved(tmp_path / name, cells, settings={"solve": {"ridge": ridge, "tolerance": 1e-8}}, solver="cg")
    above, table = lines_of(called("compare", "a", "b")[1])
    assert "ridge" not in above and "tolerance 1e-08" in above
    assert "solve.ridge" in table[0] and "  0.01  " in table[1] and "  0.010000001  " in table[2]
    assert called("compare", "a", "b", "--output", "page")[0] == 0
    text = (tmp_path / "page" / "index.html").read_text()
    assert "0.010000001" in text and "ridge 0.01<" not in text
    _, out, _ = called("compare", "a", "b", "--paired")
    assert "CNTK-V solve.ridge=0.01 " in out and "CNTK-V solve.ridge=0.010000001" in out


def test_long_values_that_differ_in_the_middle_are_told_apart(called, tmp_path):
    numbers = [125.306918046875, 122.950394140625, 113.86538318359375, 62.99321928, 62.08870764, 66.70489964]
    for name, middle in (("a", 0.0), ("b", 1e-9)):
        other = [value + middle * (place == 2) for place, value in enumerate(numbers)]
        solved(tmp_path / name, {CELL: right(0.8)}, data={"statistics": other})
    above, table = lines_of(called("compare", "a", "b")[1])
    assert "statistics" not in above and "preprocess.statistics" in table[0]
    assert "122.950394140625, 113.86538318359375, " in table[1] and "113.86538318459375, " in table[2]


def test_one_value_in_two_spellings_is_shared(called, tmp_path):
    for name, ridge in (("a", 1), ("b", 1.0)):
        solved(tmp_path / name, {CELL: right(0.8)}, settings={"solve": {"ridge": ridge}})
    above, table = lines_of(called("compare", "a", "b")[1])
    assert "ridge 1" in above and "solve.ridge" not in table[0]


def test_solves_that_are_alike_share_a_row(rows, tmp_path):
    for name in ("a", "b"):
        solved(tmp_path / name, {CELL: right(0.8)}, machine={"cpu": name, "cores": 2})
    solved(tmp_path / "c", {CELL: right(0.8)}, settings={"solve": {"normalize": "unit_diagonal"}})
    one, other = rows("a", "b", "c")
    assert one["runs"] == ["a@1", "b@1"] and other["runs"] == ["c@1"]
    assert one["machine"] == ["2 cores of a", "2 cores of b"]
    assert one["settings"]["solve.normalize"] == "none"


def test_alike_solves_of_different_accuracy_are_told(called, tmp_path):
    solved(tmp_path / "a", {CELL: right(0.8)})
    solved(tmp_path / "b", {CELL: right(0.5)})
    _, out, _ = called("compare", "a", "b")
    assert "a@1, b@1, have accuracies from" in out


def test_memory_and_device_are_no_settings_and_a_baseline_knows_no_ridge(rows, tmp_path):
    cells = {("RBF", None): right(0.8), CELL: right(0.7)}
    solved(tmp_path / "a", cells, settings={"solve": {"ridge": 0.0, "memory": 1.0, "device": "cpu"}})
    solved(tmp_path / "b", cells, settings={"solve": {"ridge": 0.1, "memory": 2.0, "device": "cuda"}})
    found = [(row["column"], len(row["runs"])) for row in rows("a", "b")]
    assert found == [("CNTK-V", 1), ("CNTK-V", 1), ("RBF", 2)]


def test_keys_that_decide_nothing_of_a_column_are_no_settings_of_it(rows, tmp_path):
    cells = {("LINEAR", None): right(0.8), ("GPYTORCH-GP", None): right(0.7)}
    for name, steps in ("a", 10), ("b", 20):
        solved(tmp_path / name, cells, settings={"baseline": {"adam_steps": steps}})
    found = [(row["column"], len(row["runs"])) for row in rows("a", "b")]
    assert found == [("LINEAR", 2), ("GPYTORCH-GP", 1), ("GPYTORCH-GP", 1)]


def test_images_are_matched_by_their_places_in_the_data_set(rows, tmp_path):
    """The runs list the same test images in different orders; predictions are paired image by image."""
    first, second = right(0.9), right(0.6, seed=2)
    solved(tmp_path / "a", {CELL: first})
    order = np.random.default_rng(3).permutation(M)
    solved(tmp_path / "b", {CELL: second}, index=order, settings={"solve": {"ridge": 1.0}})
    expected = paired.mcnemar(first == truth(), second == truth())
    (found,) = rows("a", "b", "--paired")
    assert (found["only_first"], found["only_second"]) == (expected.only_first, expected.only_second)
    assert found["p"] == pytest.approx(expected.p) and found["difference"] == pytest.approx(
        expected.difference
    )
    _, other = rows("a", "b")
    assert other["difference"] == pytest.approx(-expected.difference)
    assert other["difference_error"] == pytest.approx(expected.error)


def test_images_in_common_are_compared_and_sums_of_other_images_are_not(rows, tmp_path):
    first, second = right(0.9), right(0.6, seed=2)
    solved(tmp_path / "a", {CELL: first}, index=range(40))
    solved(tmp_path / "b", {CELL: second}, index=range(M - 1, 19, -1), settings={"solve": {"ridge": 1.0}})
    (found,) = rows("a", "b", "--paired")
    both = slice(20, 40)
    expected = paired.mcnemar((first == truth())[both], (second == truth())[both])
    assert found["images"] == 20 and found["p"] == expected.p and found["difference"] == expected.difference
    assert [row["difference"] for row in rows("a", "b")] == [None, None]


@pytest.mark.parametrize(
    ("one", "other", "like"),
    [
        ({"name": "npz"}, {"name": "npz"}, False),  # these may be two different files
        ({"name": "npz", "test_images": "ab"}, {"name": "npz", "test_images": "ab"}, True),
        ({"name": "npz", "test_images": "ab"}, {"name": "npz", "test_images": "cd"}, False),
        ({"name": "digits"}, {"name": "digits"}, True),
        ({"name": "digits"}, {"name": "mnist"}, False),
        ({"name": "mnist"}, {"name": "mnist"}, False),  # files with MNIST's names may hold anything
        ({"name": "mnist", "test_images": "ab"}, {"name": "mnist", "test_images": "ab"}, True),
        ({"name": "mnist", "test_images": "ab"}, {"name": "mnist", "test_images": "cd"}, False),
        ({"name": "cifar10", "test_images": "ab"}, {"name": "cifar10", "test_images": "cd"}, False),
        ({"classes_used": [3, 5]}, {"classes_used": [5, 3]}, False),
    ],
)
def test_differences_only_where_the_images_are_known_to_be_the_same(rows, called, tmp_path, one, other, like):
    solved(tmp_path / "a", {CELL: right(0.9)}, data=one | {"n_train": 20})
    solved(tmp_path / "b", {CELL: right(0.6)}, data=other)
    assert (rows("a", "b")[1]["difference"] is not None) == like
    code, out, err = called("compare", "a", "b", "--paired")
    assert (code == 0) == like and (like or "can be paired" in err)
    assert ("none: not tested, as the two are not known to have the same training images" in out) == like


def test_labels_that_disagree_are_never_paired(called, tmp_path):
    solved(tmp_path / "a", {CELL: right(0.9)})
    solved(tmp_path / "b", {CELL: right(0.6)}, settings={"solve": {"ridge": 1.0}})
    file = tmp_path / "b" / "solves" / "1" / "CNTK-V-3.npz"
    kept = dict(np.load(file))
    np.savez(file, **kept | {"y_test": (kept["y_test"] + 1) % 10})
    code, _, err = called("compare", "a", "b", "--paired")
    assert code == 2 and "can be paired" in err


def in_directory(place, value):
    """Set a byte in the first entry of an .npz file's central directory, which no checksum covers."""

    def damage(content):
        at = content.index(b"PK\x01\x02") + place
        return content[:at] + bytes([value]) + content[at + 1 :]

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"junk",
        None,
        in_directory(8, 1),  # marked as encrypted
        in_directory(10, 99),  # unknown compression method
    ],
)
def test_predictions_that_are_gone_or_damaged(called, tmp_path, damage):
    solved(tmp_path / "a", {CELL: right(0.9), ("CNTK-GAP", 3): right(0.5), ("FC-NTK", 3): right(0.4)})
    file = tmp_path / "a" / "solves" / "1" / "FC-NTK-3.npz"
    file.unlink() if damage is None else file.write_bytes(damage(file.read_bytes()))
    code, out, _ = called("compare", "a", "--paired")
    assert code == 0 and "Paired comparisons: 1" in out and "2 more could not be paired" in out
    assert called("compare", "a")[0] == 0


def test_doubtful_cells_are_marked_and_never_significant(called, rows, tmp_path):
    doubted = right(0.1, seed=4), {"trusted": False, "doubt": "not solved"}
    chosen = right(0.1, seed=5), {"chosen_by": "test"}
    cells = {
        CELL: right(0.95),
        ("CNTK-GAP", 3): doubted,
        ("FC-NTK", 3): chosen,
        ("FC-NNGP", 3): right(0.1, seed=6),
    }
    solved(tmp_path / "a", cells)
    found = rows("a", "--paired")
    sound = [
        one for one in found if {one[side]["column"] for side in ("first", "second")} == {"CNTK-V", "FC-NNGP"}
    ]
    assert len(found) == 6 and [one for one in found if one["p"] is not None] == sound
    # The correction is for this one test.
    assert sound[0]["significant"] and sound[0]["p_holm"] == sound[0]["p"]
    assert not any(one["significant"] for one in found if one not in sound)
    _, out, _ = called("compare", "a", "--paired")
    assert "? Not tested: CNTK-GAP at depth 3: not solved" in out and "test accuracy" in out
    (line,) = [line for line in out.splitlines() if line.split()[1:3] == ["CNTK-V", "CNTK-GAP"]]
    assert "?" in line and "yes" not in line
    _, out, _ = called("compare", "a")
    assert "?" in out and "Not to be trusted: a@1, CNTK-GAP at depth 3: not solved" in out


def test_a_rate_that_test_images_chose_in_one_draw_leaves_its_cell_untested(rows, tmp_path):
    draw = {"draw": np.array([1, 2, 3])}
    of_draws = {"draws": [{"chosen_by": "test"}, {}, {}]}  # other rates failed in draws 2 and 3
    first, second = (
        np.stack([right(share, seed=s) for s in range(n, n + 3)]) for share, n in ((0.95, 1), (0.1, 7))
    )
    cells = {CELL: (first, draw), ("CNN-V", 3): (second, draw | of_draws)}
    solved(tmp_path / "a", cells, data={"draws": 3, "images_of_draws": list("abc")})
    (found,) = rows("a", "--paired")
    assert found["p"] is None and not found["significant"]
    assert "CNN-V at depth 3: its rate was chosen by test accuracy" in found["doubt"]


def test_a_p_that_is_too_small_for_a_number_is_not_told_as_0(rows, tmp_path):
    solved(tmp_path / "a", {CELL: right(0.95), ("FC-NNGP", 3): right(0.1, seed=6)})
    (pair,) = rows("a", "--paired")
    assert 1e-300 < pair["p"] < 1e-6
    for p, words in ((pair["p"], f"{pair['p']:.2g}"), (0.0, "<1e-300"), (1e-310, "<1e-300")):
        listing = report_of_pairs.listing([pair | {"p": p, "p_holm": p}], 1)
        assert dict(zip(listing.forms, listing.cells()[0], strict=True))["p"] == words
        assert listing.cells()[0].count(words) == 2
        assert (words if p < 1e-300 else str(p)) in written(listing, "csv")


def test_a_standard_error_of_0_leaves_at_most_all_others_wrong(called, tmp_path):
    solved(tmp_path / "a", {CELL: right(1.0)})
    assert (
        "if n images have no error, up to min(1, 3 / n) of others may be wrong" in called("compare", "a")[1]
    )


def test_a_difference_from_what_is_in_doubt_is_not_shown(rows, tmp_path):
    solved(tmp_path / "a", {CELL: (right(0.9), {"trusted": False})})
    solved(tmp_path / "b", {CELL: right(0.6)}, settings={"solve": {"ridge": 1.0}})
    assert [row["difference"] for row in rows("a", "b")] == [None, None]


def test_draws_are_paired_draw_by_draw(rows, tmp_path):
    """Draw 2 failed for the second column, whose predictions are stored in another order."""
    first = np.stack([right(0.9, seed=seed) for seed in range(4)])
    second = np.stack([right(0.7, seed=seed) for seed in (13, 10, 12)])  # of draws 4, 1 and 3
    data = {"draws": 4, "images_of_draws": list("abcd")}
    cells = {
        CELL: (first, {"draw": np.array([1, 2, 3, 4])}),
        ("CNTK-GAP", 3): (second, {"draw": np.array([4, 1, 3])}),
    }
    solved(tmp_path / "a", cells, data=data)
    (found,) = rows("a", "--paired")
    y = truth()
    expected = paired.over_draws(first[[0, 2, 3]] == y, second[[1, 2, 0]] == y)
    assert found["draws"] == 3 and found["test"] == "t, draws"
    for key in ("p", "difference", "low", "high", "error_images"):
        assert found[key] == pytest.approx(getattr(expected, key))


def test_repetitions_count_alike_however_many_predictions_each_has(rows, tmp_path):
    """Networks may have different numbers of predictions, here with one draw and with two."""
    y, lines = truth(), np.stack([right(0.9, seed=seed) for seed in range(5)])
    repeat, other = np.array([1, 1, 1, 2, 2]), right(0.6, seed=9)
    cells = {("CNN-V", 3): (lines, {"repeat": repeat}), CELL: other}
    solved(tmp_path / "a", cells)
    (found,) = rows("a", "--paired")
    shares = [(lines[repeat == one] == y).mean(0) for one in (1, 2)]
    expected = paired.over_images(np.mean(shares, 0), (other == y).astype(float))
    assert abs(found["difference"]) == pytest.approx(abs(expected.difference))
    assert found["p"] == pytest.approx(expected.p)
    draw = np.array([1, 1, 1, 2, 2])
    cells = {
        ("CNN-V", 3): (lines, {"repeat": np.array([1, 1, 2, 1, 1]), "draw": draw}),
        CELL: (np.stack([other, right(0.7, seed=8)]), {"draw": np.array([1, 2])}),
    }
    solved(tmp_path / "b", cells, data={"draws": 2, "images_of_draws": list("ab")})
    (found,) = rows("b", "--paired")
    first = ((lines[:2] == y).mean(0) + (lines[2] == y)) / 2, (lines[3:] == y).mean(0)
    expected = paired.over_draws(np.stack(first), np.stack([other, right(0.7, seed=8)]) == y)
    assert abs(found["difference"]) == pytest.approx(abs(expected.difference))


def test_draws_of_other_training_images_are_not_tested(rows, tmp_path):
    cells = {CELL: (np.stack([right(0.9), right(0.8)]), {"draw": np.array([1, 2])})}
    solved(tmp_path / "a", cells, data={"draws": 2})
    cells = {CELL: (np.stack([right(0.9), right(0.8)]), {"draw": np.array([1, 2])})}
    solved(tmp_path / "b", cells, data={"draws": 2, "n_train": 20})
    (found,) = rows("a", "b", "--paired")
    assert (found["test"], found["p"], found["difference"]) == ("none", None, 0)


@pytest.mark.parametrize("repeats", [1, 3])
def test_other_training_images_are_not_tested(rows, called, tmp_path, repeats):
    """Of two training sets by chance, one is better; that says nothing of either way of classifying."""
    for name, share, seed in (("a", 0.95, 0), ("b", 0.3, 1)):
        predicted = np.squeeze(np.stack([right(share, seed=10 * seed + one) for one in range(repeats)]))
        index = " ".join(map(str, range(100 * seed, 100 * seed + 30)))
        solved(
            tmp_path / name,
            {CELL: predicted},
            data={"train_index": index},
            settings={"dataset": {"seed": seed}},
        )
    (found,) = rows("a", "b", "--paired")
    assert (found["test"], found["p"], found["p_holm"], found["low"]) == ("none", None, None, None)
    assert not found["significant"] and found["difference"] > 50 and found["error"] > 1
    _, other = rows("a", "b")
    assert other["difference_error"] == pytest.approx(found["error_images"])
    _, out, _ = called("compare", "a", "b", "--paired")
    assert "on the choice of images is unknown" in out and "Holm's" not in out and "McNemar:" not in out
    solved(tmp_path / "a", {CELL: right(0.3)}, settings={"solve": {"ridge": 1.0}},
           data={"train_index": " ".join(map(str, range(30)))})  # fmt: skip
    for test in rows("a@all", "--paired"):
        assert test["p"] < 1e-6
    _, out, _ = called("compare", "a@all", "--paired")
    assert "these training images, which both share, not about others" in out
    code, _, _ = called("compare", "a@1", "b", "--output", "page")
    assert code == 0 and "not tested, as the two are not" in (tmp_path / "page" / "index.html").read_text()


def test_draws_cut_otherwise_from_one_list_are_other_training_images(rows, tmp_path):
    for name, draws, n_train in (("a", 2, 15), ("b", 3, 10)):
        predicted = np.stack([right(0.9, seed=seed) for seed in range(draws)])
        data = {"draws": draws, "n_train": n_train, "images": "the same list"}
        solved(tmp_path / name, {CELL: (predicted, {"draw": np.arange(1, draws + 1)})}, data=data)
    (found,) = rows("a", "b", "--paired")
    assert found["test"] == "none" and found["p"] is None


def test_a_p_beside_the_level_has_the_digits_that_tell_it_from_it(rows, tmp_path):
    solved(tmp_path / "a", {CELL: right(0.95), ("FC-NNGP", 3): right(0.1, seed=6)})
    (pair,) = rows("a", "--paired")
    some = [pair | {"p": p, "p_holm": p, "significant": p < 0.05} for p in (0.0496, 0.0504, 0.05, 1.0)]
    listing = report_of_pairs.listing(some, 4)
    lines = [dict(zip(listing.forms, line, strict=True)) for line in listing.cells()]
    assert (
        [line["p"] for line in lines]
        == [line["p, Holm"] for line in lines]
        == ["0.0496", "0.0504", "0.05", "1"]
    )
    assert [line["significant"] for line in lines] == ["yes", "no", "no", "no"]
    near = report_of_pairs.listing([pair | {"p": 0.04999999, "p_holm": 0.0123}], 1)
    line = dict(zip(near.forms, near.cells()[0], strict=True))
    assert (line["p"], line["p, Holm"]) == ("0.04999999", "0.012")


def test_what_does_not_vary_has_no_error_and_one_sentence_why(rows, called, tmp_path):
    first, second = np.tile(right(0.9), (3, 1)), np.tile(right(0.5), (3, 1))
    draw = {"draw": np.array([1, 2, 3])}
    cells = {CELL: (first, draw.copy()), ("CNTK-GAP", 3): (second, draw)}
    solved(tmp_path / "a", cells, data={"draws": 3, "images_of_draws": list("abc")})
    (found,) = rows("a", "--paired")
    assert (found["test"], found["error"], found["p"]) == ("t, draws", None, None)
    assert found["error_images"] > 0
    _, out, _ = called("compare", "a", "--paired")
    assert out.count("No s.e.: ") == 1 and "0.00" not in out.splitlines()[4]
    solved(tmp_path / "b", {CELL: right(0.9), ("CNTK-GAP", 3): right(0.5)})
    assert "No s.e.: " not in called("compare", "b", "--paired")[1]


def test_repetitions_are_averaged(rows, tmp_path):
    networks = np.stack([right(0.9, seed=seed) for seed in range(3)])
    solved(tmp_path / "a", {("CNN-GAP", 3): networks, CELL: right(0.5)})
    (found,) = rows("a", "--paired")
    y = truth()
    expected = paired.over_images((networks == y).mean(0), (right(0.5) == y).astype(float))
    assert found["test"] == "t, images" and found["p"] == pytest.approx(expected.p)


def test_which_pairs_there_are(rows, tmp_path):
    """Columns at equal depths or without depths; several solves pair only where they differ in one thing."""
    cells = {("CNTK-V", 3): right(0.9), ("CNTK-V", 4): right(0.8), ("CNTK-GAP", 3): right(0.7)}
    for ridge in (0.0, 0.5):
        for normalize in ("none", "unit_diagonal"):
            solved(tmp_path / "a", cells | {("RBF", None): right(0.6)},
                   settings={"solve": {"ridge": ridge, "normalize": normalize}})  # fmt: skip

    def named(one):
        return tuple((one[side]["column"], one[side]["depth"]) for side in ("first", "second"))

    inside = rows("a@1", "--paired")
    assert {named(one) for one in inside} == {
        (("CNTK-V", 3), ("CNTK-GAP", 3)), (("CNTK-V", 3), ("RBF", None)),
        (("CNTK-V", 4), ("RBF", None)), (("CNTK-GAP", 3), ("RBF", None)),
    }  # fmt: skip
    found = [one for one in rows("a@all", "--paired") if one["first"]["column"] == one["second"]["column"]]
    assert len(found) == 3 * 4 and all(len(one["first"]["settings"]) == 1 for one in found)
    both = [one for one in rows("a@1", "a@4", "--paired") if named(one)[0] == named(one)[1]]
    assert len(both) == 3 and all(len(one["first"]["settings"]) == 2 for one in both)
    against = rows("a@1", "--paired", "--against", "CNTK-GAP")
    assert len(against) == 2 and all("CNTK-GAP" in (named(one)[0][0], named(one)[1][0]) for one in against)
    assert [one["p_holm"] for one in against] == paired.holm([one["p"] for one in against])


def test_the_last_solve_a_certain_one_all_of_them_and_a_record_alone(rows, tmp_path):
    for ridge in (0.0, 0.5):
        solved(tmp_path / "a", {CELL: right(0.9)}, settings={"solve": {"ridge": ridge}})
    shutil.copy(tmp_path / "a" / "record.json", tmp_path / "copy.json")

    def names(*given):
        return [row["runs"] for row in rows(*given)]

    assert names("a") == names("a/record.json") == names("a@2") == [["a@2"]]
    assert names("a@all") == names("a@1", "a") == [["a@1"], ["a@2"]]
    assert names("copy.json", "a@1") == [["copy"], ["a@1"]]
    assert names("a", "a@2", "./a") == [["a@2"]]  # each solve appears once
    solved(tmp_path / "other" / "a", {CELL: right(0.9)}, settings={"solve": {"ridge": 2.0}})
    assert names("a@1", "other/a") == [["a@1"], ["other/a@1"]]  # both would be labelled a@1


def test_published_records(called, rows):
    """Published records, for which there are no run directories; some have older formats."""
    files = [
        RESULTS / f"{name}.json"
        for name in ("cifar10-cntk-v-2k", "cifar10-small", "cifar10-four-columns-small")
    ]
    found = rows(*files)
    assert len(found) == 5 + 10 + 22 and all(row["difference"] is None for row in found)
    (one,) = [r for r in found if r["runs"] == ["cifar10-cntk-v-2k"] and r["depth"] == 11]
    assert (one["accuracy"], one["published"]) == (43.69, 43.42)
    for form in ("text", "markdown", "csv", "latex"):
        code, out, _ = called("compare", *files, "--format", form)
        assert code == 0 and out.count("four-columns-small") >= 22
    table = list(csv.DictReader(io.StringIO(called("compare", *files, "--format", "csv")[1])))
    assert [line["accuracy"] for line in table[:1]] == ["40.58"] and {line["trusted"] for line in table} == {
        "True"
    }
    code, _, err = called("compare", *files, "--paired")
    assert code == 2 and "run directories" in err


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["nowhere"], "no record at nowhere"),
        (["a@9"], "has no solve 9: its solves are 1"),
        (["a@x"], "no record at a@x"),
        (["empty"], "no solves yet"),
        (["empty@all"], "no solves yet"),
        (["junk.json"], "is not the record of a run"),
        ([RESULTS / "converge-digits.json"], "is not the record of a run"),
        (["a", "--against", "CNTK-V"], "--against needs --paired"),
        (["a", "--output", "page", "--format", "csv"], "--format csv is of what is printed, --output of a"),
        (["a", "--paired"], "nothing to pair"),
        (["a", "--paired", "--against", "X"], "--against X: no such column here: use one of CNTK-V"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_line(called, tmp_path, given, reason):
    from cntk_bench.records import record

    solved(tmp_path / "a", {CELL: right(0.9)})
    past = json.loads((tmp_path / "a" / "record.json").read_text())
    (tmp_path / "empty").mkdir()
    record.save(record.start("empty", past["data"]), tmp_path / "empty" / "record.json")
    (tmp_path / "junk.json").write_text("[]")
    code, out, err = called("compare", *given)
    assert code == 2 and out == "" and reason in err and len(err.splitlines()) == 1


def test_text_from_outside_is_shown_and_not_obeyed(called, tmp_path):
    solved(tmp_path / "a", {CELL: (right(0.9), {"trusted": False, "doubt": "\x1b[31m|x"})}, commit="\x1b[2J")
    for form in ("text", "markdown", "csv", "latex", "json"):
        code, out, _ = called("compare", "a", "--format", form)
        assert code == 0 and "\x1b" not in out


class _Text(HTMLParser):
    """The text of a page, its elements, and the addresses it refers to."""

    def __init__(self):
        super().__init__()
        self.text, self.tags, self.addresses = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action")]

    def handle_data(self, data):
        self.text.append(data)


def test_a_page_that_needs_nothing_else(called, tmp_path):
    hostile = "<script>alert(1)</script>\x1b"
    doubted = right(0.5, seed=2), {"trusted": False, "doubt": hostile}
    cells = {CELL: right(0.9), ("CNTK-GAP", 3): right(0.6, seed=3), ("FC-NTK", 3): doubted}
    solved(tmp_path / "a", cells, commit=hostile)
    solved(tmp_path / "b", cells, settings={"solve": {"ridge": 1.0}})
    code, out, _ = called("compare", "a", "b", "--output", "page")
    assert code == 0 and out == "written: page/index.html\n"
    content = (tmp_path / "page" / "index.html").read_text()
    page = _Text()
    page.feed(content)
    text = " ".join(page.text)
    assert page.tags.count("script") == 1 and hostile[:-1] in text and "\x1b" not in content
    assert all(one.startswith(("#", "data:")) for one in page.addresses) and "://" not in content
    assert page.tags.count("table") == 2 and "cntk-bench compare a b --output page" in text
    _, shown, _ = called("compare", "a", "b")
    (line,) = [line for line in shown.splitlines() if line.split()[:2] == ["a@1", "CNTK-V"]]
    assert all(word in text for word in line.split() if word != "-")  # the page has the numbers of the table
    _, tests, _ = called("compare", "a", "b", "--paired", "--format", "json")
    assert f"Holm's correction for the {sum(one['p'] is not None for one in json.loads(tests))} tests" in text
    # A record alone has no predictions, and therefore no tests.
    shutil.copy(tmp_path / "a" / "record.json", tmp_path / "copy.json")
    assert called("compare", "copy.json", "--output", "page")[0] == 0
    assert "Paired tests" not in (tmp_path / "page" / "index.html").read_text()
