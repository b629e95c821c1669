"""Readouts and Specs: what is accepted, what is refused, which displacements are run."""

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
        (("ntk", "lap:01", 3), "pool 'lap:01'"),  # one name for one pool
        (("ntk", None, 3), "pool None"),
        (("ntk", "v", 3, "first"), "train 'first'"),
        (("ntk", "v", 1), "depth 1"),
        (("ntk", "gap", 2), "depth 2"),  # "hidden" by default: identically zero
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


def any_readout():
    pools = st.sampled_from(["v", "gap"]) | st.integers(0, 9999).map(lambda c: f"lap:{c}")
    return st.builds(
        Readout,
        kernel=st.sampled_from(["ntk", "nngp"]),
        pool=pools,
        depth=st.integers(3, 10**6),
        train=st.sampled_from([None, "all", "hidden"]),
    )


@given(any_readout())
def test_a_readout_parses_its_own_name(readout):
    assert Readout.parse(str(readout)) == readout


@given(
    st.text(max_size=30) | st.from_regex(r"(ntk|nngp)-(v|gap|lap\d*)-\d+(-all|-hidden)?\n?", fullmatch=True)
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
    ["ntk-v-21", "nngp-v-21-all", "ntk-gap-021-hidden", "ntk-lap-3-all", "ntk-lap04-3-all", "ntk-v-2-all-"],
)
def test_names_that_nearly_are(name):
    with pytest.raises(UserError, match="a name is such as|use an integer of at least|such as .lap:4"):
        Readout.parse(name)
