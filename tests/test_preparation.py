"""Prepared images against closed forms, a literal formula and scikit-learn; how images are told apart."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from cntk_bench import data
from cntk_bench.data import preparation, whitening
from cntk_bench.data.preparation import Recipe
from cntk_bench.data.scaling import CHUNK
from cntk_bench.errors import UserError


def images(n, channels, side, kind, seed=0):
    """Images whose neighbouring pixels are alike, so that their covariance is far from a multiple of I."""
    raw = np.random.default_rng(seed).standard_normal((n, channels, side, side)).cumsum(2).cumsum(3)
    raw = 128 + 30 * raw
    return raw.clip(0, 255).astype(np.uint8) if kind == "uint8" else raw.astype(kind)


def prepare(x, steps, fit=None, **parameters):
    return preparation.fitted(x if fit is None else fit, Recipe(tuple(steps), **parameters))(x)


def flat(x):
    return x.reshape(len(x), -1)


@pytest.fixture
def load(tmp_path):
    """A function that loads x_train and x_test, of two classes, from a file."""

    def load(x_train, x_test=None, **asked):
        x_test = x_train if x_test is None else x_test
        np.savez(
            tmp_path / "data.npz",
            x_train=x_train, y_train=np.arange(len(x_train)) % 2,
            x_test=x_test, y_test=np.arange(len(x_test)) % 2,
        )  # fmt: skip
        return data.load("npz", path=tmp_path / "data.npz", **asked)

    return load


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("regularizer", [1e-4, 0.1, 3.0])
def test_whitened_spectrum(channels, kind, regularizer):
    """An eigenvalue l of the covariance becomes l / (l + r) with the same eigenvector; r = reg trace / d."""
    x = images(400, channels, 4, kind)
    out = flat(prepare(x, ["zca"], zca_regularizer=regularizer))
    plain = flat(x.astype(np.float64) / (255 if kind == "uint8" else 1))
    values, vectors = np.linalg.eigh(np.cov(plain.T, bias=True))
    ridge = regularizer * values.sum() / plain.shape[1]
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-10)
    covariance = np.cov(out.T, bias=True)
    np.testing.assert_allclose(
        vectors.T @ covariance @ vectors, np.diag(values / (values + ridge)), atol=1e-9
    )


def test_whitening_is_the_literal_formula_and_scikit_learns():
    x, new = images(300, 3, 4, "float64"), images(700, 3, 4, "float64", seed=1)
    prepared = preparation.fitted(x, Recipe(("zca",), zca_regularizer=0.1))
    found = flat(np.concatenate([prepared(new[:CHUNK]), prepared(new[CHUNK:])]))
    mean = flat(x).mean(0)
    covariance = (flat(x) - mean).T @ (flat(x) - mean) / len(x)
    ridge = 0.1 * np.trace(covariance) / len(covariance)
    u, s, _ = np.linalg.svd(covariance + ridge * np.eye(len(covariance)))
    np.testing.assert_allclose(found, (flat(new) - mean) @ (u / np.sqrt(s)) @ u.T, rtol=1e-9, atol=1e-9)
    # PCA whitens components to variance 1 (dividing by n - 1); turned back, they are shrunk by the ridge.
    pca = PCA(whiten=True, svd_solver="full").fit(flat(x))
    values = pca.explained_variance_ * (len(x) - 1) / len(x)
    unit = pca.transform(flat(new)) * np.sqrt(pca.explained_variance_ / values)
    again = (unit * np.sqrt(values / (values + ridge))) @ pca.components_
    np.testing.assert_allclose(found, again, rtol=1e-9, atol=1e-9)


def test_pixels_that_no_training_image_changes():
    """They are exactly 0 in the training images, even where the mean of their value is rounded."""
    x = images(90, 1, 4, "float64")
    x[:, 0, 0, :2], x[:, 0, 3, 3] = 0.1, 1 / 3
    new = x[:5].copy()
    new[:, 0, 3, 3] += 2.0
    prepared = preparation.fitted(x, Recipe(("zca",), zca_regularizer=0.5))
    assert not prepared(x)[:, 0, [0, 0, 3], [0, 1, 3]].any()
    ridge = 0.5 * flat(x).var(0).sum() / 16
    np.testing.assert_allclose(prepared(new)[:, 0, 3, 3], 2.0 / np.sqrt(ridge), rtol=1e-12)
    np.testing.assert_array_equal(prepared(new)[:, 0, :3], prepared(x[:5])[:, 0, :3])


def test_fewer_images_than_pixels_and_images_that_cannot_be_whitened():
    few = images(5, 3, 4, "uint8")
    assert np.isfinite(prepare(few, ["zca"])).all()
    for x in (few[:1], np.repeat(few[:1], 7, axis=0)):
        with pytest.raises(UserError, match="all equal, so they cannot be whitened"):
            prepare(x, ["zca"])


def by_singular_values(x, new, regularizer):
    """`new` whitened by singular values of the training images x; even the smallest are accurate."""
    x, mean = flat(x), flat(x).mean(0)
    _, s, vt = np.linalg.svd(x - mean)
    values = np.zeros(x.shape[1])
    values[: min(x.shape)] = s**2 / len(x)
    values[len(x) - 1 :] = 0
    ridge = regularizer * values.sum() / x.shape[1]
    return (flat(new) - mean) @ vt.T / np.sqrt(values + ridge) @ vt


@pytest.mark.parametrize("scale", [1.0, 3e-161, 1e-200, 1e150])
@pytest.mark.parametrize("regularizer", [0.1, 1e-8, 1e-15])
def test_whitening_whatever_the_regularizer_and_the_scale_of_the_pixels(regularizer, scale):
    """30 images of 64 pixels: directions absent from training images are divided by the root of the ridge."""
    x, new = images(30, 1, 8, "float64"), images(7, 1, 8, "float64", seed=1)
    whitener = whitening.fitted(lambda: [x * scale], regularizer)
    right = by_singular_values(x, new, regularizer)
    assert abs(flat(whitener(new * scale)) - right).max() <= 1e-10 * abs(right).max()


def test_whitening_is_refused_where_rounding_would_decide():
    grey = np.repeat(images(200, 1, 6, "float64"), 3, axis=1)  # three equal channels
    with pytest.raises(UserError, match=r"zca_regularizer 1e-13 is too small .* use 3e-09$"):
        whitening.fitted(lambda: [grey], 1e-13)
    with pytest.raises(UserError, match=r"zca_regularizer 4\.9\d*e-324 is too small"):
        whitening.fitted(lambda: [images(30, 1, 8, "float64")], 5e-324)
    right, whitener = (
        by_singular_values(grey, grey, 1e-8),
        whitening.fitted(lambda: [grey[:100], grey[100:]], 1e-8),
    )
    assert abs(flat(whitener(grey[:CHUNK])) - right[:CHUNK]).max() <= 1e-6 * abs(right).max()


def test_whitening_says_so_before_memory_runs_out(monkeypatch):
    monkeypatch.setattr(whitening.memory, "available", lambda: 100)
    with pytest.raises(UserError, match="48 pixels needs .* leave zca out of dataset.preprocess"):
        prepare(images(50, 3, 4, "uint8"), ["zca"])


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_contrast(kind, channels):
    x = images(40, channels, 5, kind)
    plain = x.astype(np.float64) / (255 if kind == "uint8" else 1)
    whole = plain.reshape(40, -1)
    centred = whole - whole.mean(1, keepdims=True)
    for steps, scale, expected in [
        (["center"], "deviation", centred),
        (["unit_norm"], "deviation", whole / np.linalg.norm(whole, axis=1)[:, None]),
        (["contrast"], "deviation", centred / whole.std(1)[:, None]),
        (["contrast"], "norm", centred / np.linalg.norm(centred, axis=1)[:, None]),
        (["center", "unit_norm"], "deviation", centred / np.linalg.norm(centred, axis=1)[:, None]),
    ]:
        found = prepare(x, steps, contrast_scale=scale)
        assert found.shape == x.shape
        np.testing.assert_allclose(flat(found), expected, rtol=1e-11, atol=1e-13)


def test_constant_and_nearly_constant_images():
    x = np.full((3, 1, 7, 7), 0.1)  # the mean of 49 equal pixels is rounded
    x[1] = 0
    x[2, 0, 0, 0] += 1e-6
    found = prepare(x, ["contrast"])
    assert not found[:2].any() and found[2].std() == pytest.approx(1)
    floor = 1.0  # far above the third image's deviation of 1.4e-7
    np.testing.assert_allclose(
        prepare(x, ["contrast"], contrast_floor=floor)[2], x[2] - x[2].mean(), atol=1e-15
    )
    assert not prepare(x * 0, ["unit_norm"]).any()


def test_steps_are_taken_in_order_and_later_ones_fitted_on_what_earlier_ones_made(load):
    x, new = images(600, 3, 4, "uint8"), images(30, 3, 4, "uint8", seed=1)
    loaded = load(x, new, preprocess=["contrast", "zca", "standardize"], train=20)
    contrasted = prepare(x, ["contrast"])
    whitener = preparation.fitted(contrasted, Recipe(("zca",)))
    whitened = np.concatenate([whitener(contrasted[:CHUNK]), whitener(contrasted[CHUNK:])])
    mean, deviation = whitened.mean((0, 2, 3)), whitened.std((0, 2, 3))
    last = (whitener(prepare(new, ["contrast"])) - mean[:, None, None]) / deviation[:, None, None]
    np.testing.assert_allclose(loaded.x_test, last[loaded.test_index], rtol=2e-6, atol=2e-6)
    assert loaded.x_train.shape == (20, 3, 4, 4) and loaded.fitted_on == 600
    assert not np.allclose(load(x, new, preprocess=["zca", "contrast"], train=20).x_train, loaded.x_train)


def test_statistics_of_the_subset_are_of_those_used_alone(load):
    x = images(60, 1, 4, "uint8")
    subset = load(x, preprocess="zca", train=20, statistics="subset")
    used = x[subset.train_index]
    np.testing.assert_allclose(subset.x_train, prepare(used, ["zca"]), rtol=1e-5, atol=1e-6)
    assert subset.fitted_on == 20 and load(x, preprocess="zca", train=20).fitted_on == 60
    assert load(x, preprocess="contrast").fitted_on is None and load(x).fitted_on is None


def test_test_images_decide_nothing(load):
    x, new = images(60, 1, 4, "uint8"), images(30, 1, 4, "uint8", seed=3)
    one = load(x, preprocess=["contrast", "zca"])
    other = load(x, new, preprocess=["contrast", "zca"])
    np.testing.assert_array_equal(one.x_train, other.x_train)
    assert one.recipe == other.recipe


def test_a_list_of_one_step_is_that_step(load):
    x = images(20, 3, 4, "uint8")
    for step in ("standardize", "zca"):
        assert load(x, preprocess=[step]).fingerprint == load(x, preprocess=step).fingerprint
    assert load(x, preprocess="none").originals is None is load(x).originals


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"preprocess": ["zca", "none"]}, "preprocess none is unknown"),
        ({"preprocess": []}, "lists 0 steps"),
        ({"preprocess": ["contrast"] * 11}, "lists 11 steps"),
        ({"preprocess": [["zca"]]}, "is unknown: did you mean zca"),
        ({"preprocess": "contrats"}, "did you mean contrast"),
        ({"preprocess": "zca", "statistics": (0.0, 1.0)}, "standardize as the first step and without zca"),
        (
            {"preprocess": ["center", "standardize"], "statistics": (0.0, 1.0)},
            "standardize as the first step",
        ),
        ({"preprocess": "none", "statistics": (0.0, 1.0)}, "standardize as the first step"),
        ({"preprocess": ["contrast", "center"], "statistics": (0.0, 1.0)}, "standardize as the first step"),
        ({"preprocess": "zca", "zca_regularizer": 0}, "zca_regularizer is 0: use a number above 0"),
        ({"preprocess": "zca", "zca_regularizer": float("nan")}, "zca_regularizer is nan"),
        ({"preprocess": "contrast", "contrast_floor": -1.0}, "contrast_floor is -1.0"),
        (
            {"preprocess": "contrast", "contrast_scale": "std"},
            "contrast_scale std is unknown: use one of dev",
        ),
    ],
)
def test_what_is_not_possible(load, asked, words):
    with pytest.raises(UserError, match=words) as error:
        load(images(20, 1, 4, "uint8"), **asked)
    assert "\n" not in str(error.value)


def test_statistics_in_words_are_for_any_steps_and_numbers_for_the_first(load):
    x = images(20, 1, 4, "uint8")
    for steps in ("none", ["contrast", "center"], "zca"):
        for word in ("full", "subset"):
            load(x, preprocess=steps, statistics=word)
    assert load(x, preprocess=["standardize", "contrast"], statistics=(0.0, 255.0)).fitted_on is None


# How images are told apart


def test_bits_do_not_depend_on_threads_or_on_how_many_images_there_are(load):
    x, new = images(700, 3, 6, "uint8"), images(40, 3, 6, "uint8", seed=1)
    steps = ["contrast", "zca"]
    with threadpool_limits(1):
        one = load(x, new, preprocess=steps, train=600)
    with threadpool_limits(4):
        four = load(x, new, preprocess=steps, train=600)
        few = load(x, new, preprocess=steps, train=3, test=1)
    np.testing.assert_array_equal(one.x_train, four.x_train)
    np.testing.assert_array_equal(one.x_train[:3], few.x_train)
    np.testing.assert_array_equal(one.x_test[:1], few.x_test)


@pytest.fixture
def rounding(monkeypatch):
    """Simulates another machine: eigenvalues and eigenvectors just as good, but with other last bits."""
    exact = whitening.eigh

    def perturbed(covariance, **more):
        values, vectors = exact(covariance, **more)
        noise = np.random.default_rng(0)
        values *= 1 + 1e-15 * noise.standard_normal(values.shape)
        vectors += 1e-15 * noise.standard_normal(vectors.shape)
        return values, vectors

    monkeypatch.setattr(whitening, "eigh", perturbed)


def test_images_are_the_same_where_eigenvectors_are_rounded_otherwise(load, request):
    x = images(600, 3, 8, "uint8")
    here = load(x, preprocess=["contrast", "zca"])
    request.getfixturevalue("rounding")
    there = load(x, preprocess=["contrast", "zca"])
    assert (here.x_train != there.x_train).any()  # so digests of these images would differ
    np.testing.assert_allclose(here.x_train, there.x_train, rtol=1e-5, atol=1e-6)
    assert here.fingerprint == there.fingerprint and here.recipe == there.recipe


def test_images_are_others_where_anything_that_matters_is(load):
    x = images(60, 3, 4, "uint8")
    base = {"preprocess": ["contrast", "zca"]}
    other = x.copy()
    other[-1, 0, 0, 0] ^= 1
    same = load(x, **base)
    recipes = [
        load(x, **base | change).recipe
        for change in (
            {},
            {"zca_regularizer": 0.2},
            {"contrast_scale": "norm"},
            {"contrast_floor": 1e-3},
            {"preprocess": ["zca", "contrast"]},
            {"preprocess": ["contrast"]},
            {"statistics": "subset", "train": 30},
        )
    ]
    assert recipes[0] == same.recipe and len(set(recipes)) == len(recipes)
    assert load(other, x, **base).recipe != same.recipe  # fitted on other images
    turned = load(x[::-1], **base)
    assert turned.recipe == same.recipe  # fitted on the same images in another order
    # A parameter that no step uses changes nothing.
    assert load(x, **base, contrast_floor=1e-8).fingerprint == same.fingerprint
    assert load(x, preprocess="zca", contrast_floor=1.0).recipe == load(x, preprocess="zca").recipe
