"""Trained networks in a table, beside published ones."""

from records import record

from cntk_bench import report
from cntk_bench.report import depth

NETWORK = {
    "depth": 3,
    "accuracy": 60.5,
    "standard_error": 0.5,
    "accuracies": [60.0, 61.0],
    "spread": 0.71,
    "train_accuracy": 99.5,
    "rate": 10.0,
    "width": 1024,
    "epochs_after": 10,
}


def with_networks(*columns, **changes):
    solutions = record()["solutions"] + [{"column": column, **NETWORK, **changes} for column in columns]
    return record(solutions=solutions)


def test_a_trained_network_stands_beside_what_was_published():
    shown = report.table(with_networks("CNN-V", "CNN-GAP"))
    head, line = shown.splitlines()[3:5]
    names = ["accuracy", "s.e.", "spread", "repeats", "train", "rate", "published", "difference"]
    assert head.split()[-16:] == names * 2
    assert line.split()[-16:] == [
        *("60.50", "0.50", "0.71", "2", "99.50", "10", "59.97", "+0.53"),
        *("60.50", "0.50", "0.71", "2", "99.50", "10", "63.81", "-3.31"),
    ]
    assert "published only" not in shown and "ridge 0" in shown.splitlines()[0]
    assert "CNN-V and CNN-GAP: trained networks of width 1024; each accuracy is the mean" in shown


def test_how_many_epochs_an_accuracy_is_the_mean_of():
    for changes, words in (
        ({}, "over 10 epochs each"),
        ({"epochs": [400, 12]}, "over 10 epochs each"),
        ({"epochs": [3, 3]}, "over 3 epochs each"),
        ({"epochs": [1]}, "over 1 epoch each"),
        ({"epochs": [3, 14]}, "over 3 and 10 epochs each"),  # one of them learned all images
        ({"epochs": [3], "epochs_after": 1}, "over 1 epoch each"),
        ({"draws": [NETWORK | {"epochs": [4]}, NETWORK | {"epochs": [12]}]}, "over 4 and 10 epochs each"),
        ({"epochs": ["x", None, 3.5]}, "over 10 epochs each"),
        ({"epochs_after": "x"}, "over some epochs each"),
    ):
        assert words in report.table(with_networks("CNN-V", **changes)), changes
    failed = {"column": "CNN-GAP", **NETWORK, "accuracy": None, "trusted": False, "doubt": "all failed"}
    past = with_networks("CNN-V", epochs=[3])
    past["solutions"].append(failed)
    assert "over 3 epochs each" in report.table(past)


def test_which_epochs_are_averaged_is_what_the_networks_reached():
    """`train` is a mean over networks at the last epoch: it may be below 100 though all reached 100."""
    for changes, words in (
        ({"reached": [5, 9], "train_accuracy": 99.99}, "those after full training accuracy.\n"),
        ({"reached": [None, None], "train_accuracy": 100.0}, "the last ones, as no network reached full"),
        ({"reached": [5, None, 7]}, "or the last ones of the 1 of 3 networks that did not reach it.\n"),
        ({"draws": [NETWORK | {"reached": [5]}, NETWORK | {"reached": [None]}]}, "the 1 of 2 networks that"),
        ({}, "or the last ones of a network that does not reach it.\n"),  # not recorded
        ({"reached": "x"}, "of a network that does not reach it"),
        ({"reached": [5, "x"]}, "of a network that does not reach it"),
        ({"reached": []}, "of a network that does not reach it"),
    ):
        text = report.table(with_networks("CNN-V", **changes))
        assert words in text and "if train is below" not in text, changes


def test_what_is_below_100_is_not_rounded_to_it():
    text = report.table(with_networks("CNN-V", train_accuracy=99.998))
    assert "99.99" in text and "100.00" not in text
    assert "100.00" in report.table(with_networks("CNN-V", train_accuracy=100.0))


def test_networks_of_another_width_stand_beside_none_that_were_published():
    shown = report.table(with_networks("CNN-V", width=32))
    assert "59.97" not in shown and "60.50" in shown
    assert "CNN-V: published networks have width 1024, so none are shown beside these." in shown
    assert "published networks have" not in report.table(with_networks("CNN-V"))
    unlike = with_networks("CNN-V", width=32)
    unlike["data"]["name"] = "npz"  # for which nothing was published
    assert "published networks have" not in report.table(unlike)


def test_only_what_is_not_computed_is_published_only():
    shown = report.table(with_networks("CNN-GAP"))
    assert shown.splitlines()[2].endswith("published only") and shown.splitlines()[3].endswith("CNN-V")
    assert "CNN-V: a trained finite network, published only, not computed here." in shown
    assert "CNN-GAP: trained networks of width 1024" in shown
    shown = report.table(record())
    assert "CNN-V and CNN-GAP: trained finite networks, published only, not computed here." in shown


def test_what_has_chosen_the_rate_is_said():
    candidates = [{"accuracy": 1.0}, {"accuracy": 2.0}]
    for way, words in (
        ("test", "rate: of 2 learning rates, the one that is best on the test images, as in the paper"),
        ("validation", "best on training images that were held out"),
        ("train", "best on the training images."),
    ):
        past = with_networks("CNN-V", chosen_by=way, candidates=candidates)
        assert words in report.table(past)
        favoured = "Learning rates of CNN-V: those that are best on the test images." in depth.note(past)
        assert favoured == (way == "test")  # a figure's caption must say this
    assert "learning rates" not in report.table(with_networks("CNN-V"))


def test_a_rate_that_test_images_chose_in_some_draw_is_said():
    """In the second draw only one rate did not fail, so that there was nothing to choose."""
    draws = [NETWORK | {"chosen_by": "test", "candidates": [{}, {}]}, NETWORK]
    past = with_networks("CNN-V", draws=draws)
    assert "rate: of 2 learning rates, the one that is best on the test images" in report.table(past)
    assert "Learning rates of CNN-V: those that are best on the test images." in depth.note(past)
    past = with_networks("CNN-V", draws=[NETWORK, NETWORK])
    assert "learning rates" not in report.table(past) and "rates" not in depth.note(past)


def test_images_that_are_held_out_are_told_by_column():
    mixed = with_networks("CNN-V", "CNN-GAP", held_out=5)
    shown = report.table(mixed)
    assert "CNN-V and CNN-GAP: 5 of the training images are held out" in shown
    for odd in ("5", None, [], 5.0):
        assert "held out" not in report.table(with_networks("CNN-V", held_out=odd))


def test_published_networks_were_trained_on_as_many_images():
    found = report.rows(with_networks("CNN-V", held_out=5000))
    assert [row["published"] for row in found] == [64.47, 64.09, 70.47, 77.08, None]
    past = with_networks("CNN-V", held_out=5000)
    past["solutions"] = past["solutions"][-1:]
    text = report.table(past)
    assert "59.97" not in text and "training / test images, not comparable: 50,000 / 10,000." in text
    past["data"]["n_train"] = 55_000  # of which as many are trained on as there are in CIFAR-10
    assert [row["published"] for row in report.rows(past)] == [59.97]
    for odd in ("5000", None, True, 10**400):
        assert len(report.rows(with_networks("CNN-V", held_out=odd))) == 5


def test_published_networks_stand_beside_convolutional_depths_only():
    """The depth of a fully connected kernel counts other layers."""

    def solution(column, depth):
        return {"column": column, "depth": depth, "accuracy": 50.0, "standard_error": 0.5, "ridge": 0.0}

    dense = [solution("FC-NTK", 3), solution("FC-NNGP", 21)]
    assert "published only" not in report.table(record(solutions=dense))
    for column in ("CNTK-V", "CNN-GP-GAP"):
        ((*_, finite),) = report.grids.grids(record(solutions=[*dense, solution(column, 21)]))
        assert finite == ("published only", {"CNN-V": ["-", "75.57"], "CNN-GAP": ["-", "83.30"]})


def test_failures_are_listed_whatever_they_are():
    failure = {"rate": 10.0, "trial": 1, "step": 37, "reason": "its mean squared error was nan"}
    shown = report.table(with_networks("CNN-V", failures=[failure]))
    assert (
        "left out of all accuracies: CNN-V at depth 3, rate 10, trial 1 (step 37: its mean squared" in shown
    )
    shown = report.table(with_networks("CNN-V", failures=[failure] * 7))
    assert "and 2 more." in shown
    for odd in ("x", [None], [{}], [{"rate": "<b>" * 100}], [{"rate": 10**400}], {"rate": 1}):
        shown = report.table(with_networks("CNN-V", failures=odd, candidates=3, chosen_by="test", width="w"))
        assert all(len(line) < 1000 for line in shown.splitlines())


def test_a_cell_without_accuracy_is_shown_as_such(tmp_path):
    past = with_networks("CNN-V", accuracy=None, trusted=False, doubt="every network failed", spread=None)
    shown = report.table(past)
    assert "- No accuracy: CNN-V at depth 3: every network failed." in shown and "?" not in shown
    assert report.rows(past)[-1]["accuracy"] is None and report.rows(past)[-1]["difference"] is None
    report.write(past, tmp_path)
    assert (tmp_path / "accuracy.svg").exists()


def test_large_initial_outputs_are_told():
    """Targets of different classes differ by 1; outputs far beyond this are told, by column."""
    words = "before training, the root-mean-square difference of outputs and targets was "
    assert words not in report.table(with_networks("CNN-V", "CNN-GAP", initial_loss=2.25))
    for wrong in ("9", None, True, [9.0], float("nan")):
        assert words not in report.table(with_networks("CNN-V", initial_loss=wrong))
    told = with_networks("CNN-V", initial_loss=7.29)
    told["solutions"].append({"column": "CNN-GAP", **NETWORK, "initial_loss": 0.09})
    assert f"CNN-V: {words}2.7, while" in report.table(told)
    told["solutions"].append({"column": "CNN-V", **NETWORK, "depth": 4, "initial_loss": 22500.0})
    assert f"CNN-V: {words}2.7 to 150.0, while" in report.table(told)
    draws = [NETWORK | {"initial_loss": loss} for loss in (0.5, 4.0)]
    assert f"CNN-V: {words}2.0, while" in report.table(with_networks("CNN-V", draws=draws))
