"""Readouts and Specs: what is accepted, what is refused, and which displacements are computed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cntk_bench.errors import UserError
from cntk_bench.kernels.pool import Pool
from cntk_bench.kernels.spec import Readout, Spec


@pytest.mark.parametrize(
    "arguments, named",
    [
        (("cntk", "v", 3), "kernel 'cntk'"),
        (("ntk", "max", 3), "pool 'max'"),
        (("ntk", "lap", 3), "pool 'lap'"),
        (("ntk", "lap:-1", 3), "pool 'lap:-1'"),
        (("ntk", "lap:1.5", 3), "pool 'lap:1.5'"),
        (("ntk", "lap:01", 3), "pool 'lap:01'"),  # each pool has only one name
        (("ntk", None, 3), "pool None"),
        (("ntk", "v", 3, "first"), "train 'first'"),
        (("ntk", "v", 1), "depth 1"),
        (("ntk", "gap", 2), "depth 2"),  # trains "hidden" by default, so it would be identically zero
        (("ntk", "v", 2, "hidden"), "depth 2"),
        (("nngp", "v", 1), "depth 1"),
        (("ntk", "v", 3.0), "depth 3.0"),
        (("ntk", "v", True), "depth True"),
        (("ntk", "v", "3"), "depth '3'"),
    ],
)
def test_impossible_readout_is_named(arguments, named):
    with pytest.raises(UserError) as error:
        Readout(*arguments)
    assert named in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments, train, name",
    [
        (("ntk", "v", 2), "all", "ntk-v-2-all"),
        (("ntk", "gap", 3), "hidden", "ntk-gap-3-hidden"),
        (("ntk", "gap", 2, "all"), "all", "ntk-gap-2-all"),
        (("ntk", "lap:4", 11), "all", "ntk-lap4-11-all"),
        (("ntk", "lap:0", 3, "hidden"), "hidden", "ntk-lap0-3-hidden"),
        (("nngp", "gap", 2), "all", "nngp-gap-2"),
        (("nngp", "gap", 2, None, 0, 0, True), "all", "nngp-gap-2-flip"),
        (("ntk", "lap:4", 11, "hidden", 0, 0, True), "hidden", "ntk-lap4-11-hidden-flip"),
        (("fc-ntk", "", 1), "all", "fc-ntk-1"),
        (("fc-ntk", None, 3, None, 0.1, 2, True), "all", "fc-ntk-3-b0.1-f2-flip"),
        (("fc-nngp", "", 3, None, 1000, 2), "all", "fc-nngp-3-b1000"),
    ],
)
def test_defaults(arguments, train, name):
    readout = Readout(*arguments)
    assert (readout.train, str(readout)) == (train, name)


def test_nngp_has_one_training():
    readouts = {Readout("nngp", "gap", 2, train) for train in (None, "all", "hidden")}
    assert len(readouts) == 1
    assert Readout("ntk", "v", 3, "all") != Readout("ntk", "v", 3, "hidden")


def test_spec_lists_depths_and_pools():
    spec = Spec((Readout("nngp", "lap:2", 6), Readout("ntk", "v", 3), Readout("ntk", "lap:2", 3)), 3, 8)
    assert spec.depths == (3, 6) and spec.layers == 5 and spec.pools == (Pool("lap", 2), Pool("v"))


def test_impossible_spec():
    v = Readout("nngp", "v", 3)
    with pytest.raises(UserError, match="no readouts"):
        Spec((), 3, 8)
    with pytest.raises(UserError, match="nngp-v-3 is listed twice"):
        Spec((v, Readout("nngp", "v", 3, "hidden")), 3, 8)
    for channels, size in ((0, 8), (3, 0)):
        with pytest.raises(UserError, match=rf"\({channels}, {size}, {size}\)"):
            Spec((v,), channels, size)


def test_work_counts_mirrored_images_twice_and_what_is_shared_once():
    gap, flip = Readout("ntk", "gap", 6), Readout("ntk", "gap", 6, flip=True)
    v, dense = Readout("nngp", "v", 21), Readout("fc-ntk", "", 3, bias=0.1)
    one = Spec((gap,), 3, 8).work
    assert one == 5 * 8**4 and Spec((flip,), 3, 8).work == Spec((gap, flip), 3, 8).work == 2 * one
    assert Spec((v, Readout("nngp", "v", 3, flip=True)), 3, 8).work == (20 + 2) * 8**2
    assert Spec((gap, dense), 3, 8).work == one + Spec((dense,), 3, 8).work
    assert 1000 < Spec((dense,), 3, 32).work < 2 * Spec((dense,), 3, 32).features


def test_parts_of_a_spec():
    gap, flip = Readout("ntk", "gap", 6), Readout("nngp", "v", 3, flip=True)
    dense = Readout("fc-ntk", "", 3, flip=True)
    spec = Spec((gap, dense, flip), 3, 8)
    assert spec.part("convolutional").readouts == (gap, flip.plain)
    assert spec.part("convolutional", flip=True).readouts == (flip.plain,)
    assert (
        spec.part("fully connected") == spec.part("fully connected", flip=True) == Spec((dense.plain,), 3, 8)
    )
    assert spec.pools == (Pool("gap"), Pool("v")) and spec.features == 192
    assert Spec((gap,), 3, 8).part("fully connected") is Spec((dense,), 3, 8).part("convolutional") is None


def any_readout():
    pools = st.sampled_from(["v", "gap"]) | st.integers(0, 9999).map(lambda c: f"lap:{c}")
    convolutional = st.builds(
        Readout,
        kernel=st.sampled_from(["ntk", "nngp"]),
        pool=pools,
        depth=st.integers(3, 10**6),
        train=st.sampled_from([None, "all", "hidden"]),
        flip=st.booleans(),
    )
    biases = st.just(0) | st.tuples(st.integers(1, 999_999), st.integers(-6, 0)).map(
        lambda digits: min(max(float(f"{digits[0]}e{digits[1]}"), 1e-3), 1e3)
    )
    fully_connected = st.builds(
        Readout,
        kernel=st.sampled_from(["fc-ntk", "fc-nngp"]),
        pool=st.just(""),
        depth=st.integers(10, 10**6),
        bias=biases,
        fixed=st.integers(0, 9),
        flip=st.booleans(),
    )
    return convolutional | fully_connected


@given(any_readout())
def test_a_readout_parses_its_own_name(readout):
    assert Readout.parse(str(readout)) == readout


@given(
    st.text(max_size=30)
    | st.from_regex(r"(ntk|nngp)-(v|gap|lap\d*)-\d+(-all|-hidden)?(-flip)?\n?", fullmatch=True)
    | st.from_regex(r"fc-(ntk|nngp)-\d{1,4}(-b[0-9.]*)?(-f\d*)?(-flip)?\n?", fullmatch=True)
)
def test_any_other_name_is_refused(name):
    try:
        readout = Readout.parse(name)
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) <= 300
    else:
        assert str(readout) == name


@pytest.mark.parametrize(
    "name",
    [
        "ntk-v-21",
        "nngp-v-21-all",
        "ntk-gap-021-hidden",
        "ntk-lap-3-all",
        "ntk-lap04-3-all",
        "ntk-v-2-all-",
        "ntk-v-21-flip-all",
        "fc-ntk-3-b0",
        "fc-ntk-3-b0.10",
        "fc-ntk-3-b.1",
        "fc-ntk-3-b1.",
        "fc-ntk-3-f0",
        "fc-nngp-3-f1",
        "fc-ntk-03",
        "fc-ntk-3-b0.1.2",
        "fc-ntk-3-b.",
        "fc-ntk-3-flip-b0.1",
        "fc-ntk-v-3",
    ],
)
def test_names_that_nearly_are(name):
    with pytest.raises(UserError, match="a name is such as|use an integer of at least|such as .lap:4"):
        Readout.parse(name)
