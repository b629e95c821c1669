"""What is predicted beyond a learning curve's largest size, for synthetic curves that follow a known law."""

import numpy as np
import pytest
from learning_curves import SIZES, hits

from cntk_bench.analyses import extrapolation
from cntk_bench.errors import UserError
from cntk_bench.report import extrapolation as told
from cntk_bench.runs import scoring

TRUTH = (30.0, 0.3, 10.0)
AT_50000 = 100 - (30 * 2.5**-0.3 + 10)


def curve(right, sizes=SIZES, doubts=()):
    """The points that `analyses.curve.follow` gives for these right images (draws, k, m)."""
    points = []
    for place, size in enumerate(sizes):
        accuracy, error = scoring.accuracy(right[:, place].mean(axis=0))
        between = (
            {"spread": scoring.spread(list(100 * right[:, place].mean(axis=1)))} if len(right) > 1 else {}
        )
        doubt = "not solved" if place in doubts else None
        points.append(
            {"train": int(size), "accuracy": accuracy, "standard_error": error, "doubt": doubt} | between
        )
    return points


def one(seed=0, images=10_000, truth=TRUTH, **more):
    return hits(np.random.default_rng(seed), truth, images, **more)[None]


def test_recovers_the_law_within_its_error():
    right = one()
    found = extrapolation.extrapolated(curve(right), right, 50_000)
    assert (found["law"], found["refused"], found["doubt"]) == ("a n^-b + c", None, None)
    assert abs(found["accuracy"] - AT_50000) < 3 * found["standard_error"] < 3
    low, high = found["interval"]
    assert low < found["accuracy"] < high and high - low < 5 * found["standard_error"]
    at = found["a"] * 50_000 ** -found["b"] + found["c"]  # `a` is the law's coefficient at one image
    assert found["accuracy"] == pytest.approx(100 - at)
    assert found["sizes"] == SIZES.tolist() and found["residual"] < 0.5
    assert found["path"][0]["train"] == pytest.approx(20_000)
    assert found["path"][-1]["accuracy"] == pytest.approx(found["accuracy"])
    assert found["path"][-1]["standard_error"] == pytest.approx(found["standard_error"])


@pytest.mark.filterwarnings("error")
def test_standard_errors_of_0_allow_no_fit():
    """With one test image every binomial standard error is 0, and no size weighs more than another."""
    right = np.array([[[False], [False], [False], [True], [True], [True]]])
    found = extrapolation.extrapolated(curve(right), right, 50_000)
    assert found["refused"] == "standard errors of 0 allow no fit: use more test images"
    line = {"column": "CNTK-V", "depth": 3, "extrapolation": found}
    assert told.notes([line]) == [f"CNTK-V at depth 3 is not extrapolated: {found['refused']}."]


def test_tells_how_much_hangs_on_what_is_fitted():
    """Both laws, fitted from every first size that leaves four, give what these sizes alone would give."""
    right = one()
    found = extrapolation.extrapolated(curve(right), right, 50_000)
    chosen = {(choice["from"], choice["law"]): choice["accuracy"] for choice in found["choices"]}
    assert set(chosen) == {(n, law) for n in (625, 1250, 2500) for law in ("a n^-b", "a n^-b + c")}
    assert chosen[625, "a n^-b + c"] == found["accuracy"]
    assert (found["lowest"], found["highest"]) == (min(chosen.values()), max(chosen.values()))
    # With four sizes the law has no floor.
    last = extrapolation.extrapolated(curve(right)[2:], right[:, 2:], 50_000)
    assert last["law"] == "a n^-b" and last["c"] == 0
    assert last["accuracy"] == pytest.approx(chosen[2500, "a n^-b"], abs=1e-9)


def test_an_error_that_falls_ever_faster_widens_the_range():
    """On logarithmic axes the error is a parabola that bends down, which a law with a floor cannot follow."""

    def error(n):
        far = np.log(n / SIZES[-1])
        return 40 * np.exp(-0.02 * far**2 - 0.2 * far)

    right = (np.arange(10_000) >= 100 * error(SIZES)[:, None])[None]
    found = extrapolation.extrapolated(curve(right), right, 80_000)
    bent = found["choices"][-1]
    assert (bent["law"], bent["from"]) == ("exp(parabola in ln n)", 625)
    assert bent["accuracy"] == pytest.approx(100 - error(80_000), abs=0.1)
    assert found["highest"] == bent["accuracy"] > found["accuracy"] + 1 and found["c"] == 0


def test_of_four_sizes_too():
    """Also from four sizes; the note on the range then does not speak of leaving sizes out."""
    sizes = SIZES[-4:]
    right = hits(np.random.default_rng(0), TRUTH, 10_000)[None, -4:].copy()
    n = np.log(sizes / sizes[0])
    for place, error in enumerate(np.exp(-0.6 - 0.05 * n - 0.05 * n**2)):
        right[0, place] = np.arange(10_000) >= 10_000 * error
    found = extrapolation.extrapolated(curve(right, sizes), right, 50_000)
    assert [choice["law"] for choice in found["choices"]][2:] == ["exp(parabola in ln n)"]
    assert found["highest"] == found["choices"][-1]["accuracy"] > found["accuracy"] + 1

    def said(one):
        facts = {"column": "CNTK-V", "depth": 3, "points": [], "extrapolation": one | {"published": None}}
        return " ".join(told.notes([facts]))

    assert "without the smallest n" not in said(found)
    assert "without the smallest n" in said(extrapolation.extrapolated(curve(one()), one(), 50_000))


def test_the_largest_size_is_predicted_from_the_others():
    right = one(1)
    found = extrapolation.extrapolated(curve(right), right, 50_000)["check"]
    alone = extrapolation.extrapolated(curve(right)[:-1], right[:, :-1], 20_000)
    assert found["predicted"] == pytest.approx(alone["accuracy"], abs=1e-9)
    assert found["measured"] == 100 * right[0, -1].mean() and found["train"] == 20_000
    assert abs(found["predicted"] - found["measured"]) < 3 * found["standard_error"]


def test_a_law_that_misses_the_largest_size_is_in_doubt():
    right = one()
    right[:, -1] = one(shift=-3)[:, -1]
    found = extrapolation.extrapolated(curve(right), right, 50_000)
    assert found["refused"] is None
    measured = f"{100 * right[0, -1].mean():.2f}"
    assert "from the smaller sizes the law predicts" in found["doubt"]
    assert f"instead of the {measured} measured for n = 20,000" in found["doubt"]


def test_a_law_below_what_was_measured_is_in_doubt():
    """An almost level curve that falls at its end: the law's floor lies above the last error."""
    errors = np.array([20, 8, 7, 6, 5, 3])
    right = (np.arange(100) >= errors[:, None])[None]
    found = extrapolation.extrapolated(curve(right), right, 50_000)
    assert found["c"] > 3 and found["accuracy"] < 97
    assert "for n = 50,000, less than the 97.00 measured for n = 20,000" in found["doubt"]


def test_far_smaller_sizes_and_doubted_ones_are_not_fitted():
    sizes = np.array([20, 80, 320, *SIZES])
    right = one(sizes=sizes)
    found = extrapolation.extrapolated(curve(right, sizes, doubts=(4,)), right, 50_000)
    assert found["sizes"] == [625, 2500, 5000, 10_000, 20_000]
    few = extrapolation.extrapolated(
        curve(right[:, [0, 1, 2, 8]], sizes[[0, 1, 2, 8]]), right[:, [0, 1, 2, 8]], 50_000
    )
    assert few["sizes"] == [20, 80, 320, 20_000]  # sizes far apart are kept if there are only four


def test_error_bars_know_that_draws_differ():
    """Draws differ by 3 points: the mean of ten errs by 1 point, which test images alone cannot show."""
    rng = np.random.default_rng(5)
    right = np.stack([hits(rng, TRUTH, 10_000, shift=shift) for shift in rng.normal(0, 3, 10)])
    found = extrapolation.extrapolated(curve(right), right, 50_000)
    assert found["over"] == "test images and draws" and found["doubt"] is None
    alone = extrapolation.extrapolated(curve(right[:1]), right[:1], 50_000)
    assert alone["over"] == "test images"
    alike = np.stack([hits(rng, TRUTH, 10_000) for _ in range(10)])
    least = extrapolation.extrapolated(curve(alike), alike, 50_000)["standard_error"]
    assert found["standard_error"] > max(0.6, 2 * least)
    assert abs(found["accuracy"] - AT_50000) < 3 * found["standard_error"]


@pytest.mark.parametrize(
    ("right", "doubts", "words"),
    [
        (
            one(truth=(0.0, 0.3, 40.0)),
            (),
            "the error does not fall as a power of n|of the resamples of test images",
        ),
        (one(truth=(2.0, 0.3, 40.0), images=40), (), "does not fall as a power of n"),
        (one(), (1, 2, 3), "3 sizes can be trusted, and a law needs 4"),
        (np.ones((1, 6, 50), bool), (), "the error does not fall as a power of n from n = 625 to 20,000"),
    ],
)
def test_what_has_no_law_is_refused(right, doubts, words):
    found = extrapolation.extrapolated(curve(right, doubts=doubts), right, 50_000)
    assert any(word in found["refused"] for word in words.split("|")) and "accuracy" not in found


@pytest.mark.parametrize(
    ("sizes", "to", "words"),
    [
        ([10, 20, 20, 40], 100, "fits a law to 4 sizes or more, and there are 3: give more with --sizes"),
        ([10, 20, 40, 80], 80, "--extrapolate 80: give more images than the largest size, 80"),
    ],
)
def test_impossible_requests_are_refused_before_anything_is_solved(sizes, to, words):
    with pytest.raises(UserError, match=words):
        extrapolation.require(sizes, to)
