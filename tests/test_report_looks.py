"""How columns look: always the same, and distinguishable to any eyes."""

from itertools import combinations

import numpy as np
import pytest

from cntk_bench import columns
from cntk_bench.columns import baseline, network
from cntk_bench.report import looks

CONVOLUTIONAL = [f"{kernel}-{pool}" for kernel in ("CNTK", "CNN-GP") for pool in ("V", "GAP")]
WINDOWS = [f"{kernel}-LAP{c}" for kernel in ("CNTK", "CNN-GP") for c in range(36)]
NAMED = [*CONVOLUTIONAL, *network.NAMES, "FC-NTK", "FC-NNGP"]

# How dichromats see linear RGB: Machado, Oliveira, Fernandes 2009, severity 1.
EYES = {
    "common": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def lab(colour, eyes):
    """A colour in CIELAB (D65), as these eyes see it."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(EYES[eyes]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_every_column_that_can_be_asked_for_has_a_look_of_its_own():
    named = [*NAMED, *WINDOWS, *baseline.NAMES]
    for name in named:
        columns.find(name)  # such a column exists
    assert set(looks.COLUMNS) == {*NAMED, *baseline.NAMES}
    flipped = [f"{name}-FLIP" for name in (*CONVOLUTIONAL, *WINDOWS, "FC-NTK", "FC-NNGP")]
    assert len({looks.of(name) for name in [*named, *flipped]}) == len(named) + len(flipped)


def test_markers_and_dashes_differ_whatever_the_colours():
    assert len({looks.of(name).marker for name in NAMED}) == len(NAMED)
    assert len({looks.of(name).line for name in baseline.NAMES}) == len(baseline.NAMES)
    assert {looks.of(name).line for name in NAMED} == {"-"}
    assert {looks.of(f"{name}-FLIP").line for name in CONVOLUTIONAL} == {looks.FLIPPED}


@pytest.mark.parametrize("eyes", EYES)
def test_colours_of_one_kind_are_told_apart(eyes):
    for kind in (CONVOLUTIONAL, list(network.NAMES), ["FC-NTK", "FC-NNGP", "FC-NN"], list(baseline.NAMES)):
        for one, other in combinations(kind, 2):
            distance = np.linalg.norm(lab(looks.of(one).colour, eyes) - lab(looks.of(other).colour, eyes))
            assert distance > 11, (one, other)
    white = lab("#FFFFFF", eyes)
    for name in (*NAMED, *baseline.NAMES):
        assert np.linalg.norm(lab(looks.of(name).colour, eyes) - white) > 30, name


def test_a_flip_is_the_darker_plain_one():
    for name in (*CONVOLUTIONAL, *WINDOWS, "FC-NTK", "FC-NTK-B0.1"):
        plain, flip = looks.of(name), looks.of(f"{name}-FLIP")
        assert flip.marker == plain.marker and flip.line != plain.line
        assert lab(flip.colour, "common")[0] < lab(plain.colour, "common")[0] - 4


def test_biases_keep_the_colour_of_their_kernel():
    biased = [looks.of(f"FC-NTK-B{b}") for b in ("0.1", "0.5", "1", "2")]
    assert {one.colour for one in biased} == {looks.of("FC-NTK").colour}
    assert len({*biased, looks.of("FC-NTK")}) > 3


def test_what_is_not_known_has_a_look_that_its_name_decides():
    strange = ["", "x", "MINE", "MINE-FLIP", "CNTK-LAP", "CNTK-LAP4x", "CNTK-LAP99999", "\ud800", "FC-NTK-B"]
    found = [looks.of(name) for name in strange]
    assert found == [looks.of(name) for name in strange] and len(set(found)) == len(strange)
    assert not set(found) & {looks.of(name) for name in (*NAMED, *WINDOWS, *baseline.NAMES)}
    # The same in every process and on every machine.
    assert looks.of("MINE") == looks.Look("#AA4499", "H", (0, (3, 1)))
