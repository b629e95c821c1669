"""Text from outside is made safe for terminals, and is not changed where it is safe already."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cntk_bench.text import exact, one_line, short, visible


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


@given(st.floats(allow_nan=False))
def test_an_exact_number_is_that_number_and_short_where_it_can_be(value):
    assert float(exact(value)) == value


def test_ordinary_numbers_are_as_people_write_them():
    values = (0.1, 1.0, 20.0, 3e-5, 1e9, 0.125, 20.0000001, 1234567.0)
    expected = ["0.1", "1", "20", "3e-05", "1e+09", "0.125", "20.0000001", "1234567.0"]
    assert [exact(value) for value in values] == expected


def test_a_long_message_keeps_its_beginning_and_its_remedy():
    line = one_line("dataset.path is " + "x" * 5000 + ": give another path")
    assert line.startswith("dataset.path is x") and line.endswith("x: give another path") and len(line) == 300


def test_a_value_without_end_is_never_printed_whole():
    value = []
    for _ in range(60):
        value = [value, value]
    assert len(short(value)) <= 80


@pytest.mark.parametrize("shorten", [short, one_line])
def test_what_fits_is_shown_as_it_is(shorten):
    for text in ("", "a path", "größe 数", "x" * 20):
        assert shorten(text, 20) == text
    assert shorten(0, 20) == "0"


def test_a_value_that_is_no_string_is_shown_by_its_repr():
    assert short(["a", None]) == "['a', None]"


@pytest.mark.parametrize("shorten", [short, one_line])
@pytest.mark.parametrize(
    ("most", "shown"),
    [(19, "abcdefghi ... vwxyz"), (20, "abcdefghi ... uvwxyz"), (25, "abcdefghijkl ... stuvwxyz")],
)
def test_of_what_is_too_long_the_middle_is_left_out(shorten, most, shown):
    """Three fifths of the shown characters are from the beginning, two fifths from the end."""
    assert shorten("abcdefghijklmnopqrstuvwxyz", most) == shown


def test_a_value_and_a_message_have_their_usual_lengths():
    assert (len(short("x" * 999)), len(one_line("x" * 999))) == (80, 300)


def test_white_space_of_a_message_is_folded_and_that_of_a_value_is_shown():
    assert one_line("  two\n\t words ") == "two words"
    assert short("two\n words ") == r"two\n words "
