"""The one error type that is meant for the user's eyes."""

from contextlib import contextmanager


class UserError(Exception):
    """Something the user can mend; the message names the value and the remedy, in one line.

    The command line catches it once, prints the message without a traceback and exits
    with `exit_code`.
    """

    exit_code = 2


class VerificationError(UserError):
    """Stored numbers are not what they should be."""

    exit_code = 1


@contextmanager
def writing(path):
    """Turn what the operating system says against writing to a path into one line with its remedy."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space there, or choose another folder"
        ) from None
