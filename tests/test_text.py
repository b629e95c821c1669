import pytest
from hypothesis import given
from hypothesis import strategies as st

from cntk_bench.text import one_line, short, visible


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("größe 数", "größe 数"),
        ("a\x1b]0;title\x07b", r"a\x1b]0;title\x07b"),
        ("line\nfeed", r"line\nfeed"),
        ("abc\u202edcba", r"abc\u202edcba"),
        ("m\udcfcll", r"m\udcfcll"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(raw, shown):
    assert visible(raw) == shown


@given(st.text(), st.integers(20, 300))
def test_any_text_becomes_printable_and_bounded(text, most):
    for shown in (short(text, most), one_line(text, most)):
        assert shown.isprintable() and len(shown) <= most
        shown.encode("utf-8")


def test_a_long_message_keeps_its_beginning_and_its_remedy():
    line = one_line("dataset.path is " + "x" * 5000 + ": give another path")
    assert line.startswith("dataset.path is x") and line.endswith("x: give another path") and len(line) == 300


def test_a_value_without_end_is_never_printed_whole():
    value = []
    for _ in range(60):
        value = [value, value]
    assert len(short(value)) <= 80
