"""Exceptions whose messages are shown to the user."""


class UserError(Exception):
    """An error that the user can fix; its one-line message names the value and the remedy.

    The command line catches it once, prints the message without a traceback and exits
    with `exit_code`.
    """

    exit_code = 2


class Mistakes(UserError):
    """Several errors of the user at once: a line with their number, then a line for each."""


class VerificationError(UserError):
    """Raised when stored numbers fail a check."""

    exit_code = 1
