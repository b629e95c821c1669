"""Make text from outside (names, paths, messages) safe to print; format quantities."""

import re
import reprlib

MOST = 300  # characters of a message


class _Repr(reprlib.Repr):
    """A `reprlib.Repr` for integers of any size: Python refuses to write more than some thousand digits."""

    def repr_int(self, x: int, level: int) -> str:
        bits = x.bit_length()
        return super().repr_int(x, level) if bits < 2**10 else f"an integer of {bits} bits"


_REPR = _Repr()


def visible(text: object) -> str:
    """Escape every character of a text that a terminal would act on, or cannot show.

    These are control characters (a line feed becomes ``\\n``), marks that change the direction of
    writing, lone surrogates (bytes of a file name that are not UTF-8) and unassigned characters.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def short(value: object, most: int = 80) -> str:
    """Format a value in at most `most` visible characters, leaving out the middle of a longer one.

    Strings are shown as they are, anything else by its repr. This is never built in full, since a
    value may be huge or contain itself.
    """
    return _cut(visible(value if isinstance(value, str) else _REPR.repr(value)), most)


def one_line(text: object, most: int = MOST) -> str:
    """Format a message as one visible line of at most `most` characters, collapsing white space.

    A longer message loses its middle: the beginning names the value, the end the remedy.
    """
    return _cut(visible(" ".join(str(text).split())), most)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    tail = (most - 5) * 2 // 5
    return f"{text[: most - 5 - tail]} ... {text[len(text) - tail :]}"


_NAMES = "access.?key|api.?key|secret|token|passw|credential|authorization|signature"
_SECRET = re.compile(
    rf"(?i)((?:{_NAMES})\w*[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|(?:(?:bearer|basic)\s+)?[^\s&]+)"
)


def redacted(text: str) -> str:
    """Replace possible secrets: what stands before the @ of a URL, and values of keys such as `token`."""
    return _SECRET.sub(r"\1...", re.sub(r"//\S*@", "//...@", text))


def exact(value: float) -> str:
    """Format a number in six significant digits if these are exact, as 0.1 or 1e+09, else in full."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)


def size(count: float) -> str:
    """Format a number of bytes, such as 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.1f} {unit}" if unit != "B" else f"{count} B"


def duration(seconds: float) -> str:
    """Format a time in seconds, minutes, hours or days, such as 14 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds <= 48 * 3600 else f"{seconds / 86400:.1f} days"
