"""The error type that is meant for the user's eyes."""


class UserError(Exception):
    """Something the user can mend; the message names the value and the remedy, in one line.

    The command line catches it once, prints the message without a traceback and exits
    with `exit_code`.
    """

    exit_code = 2


class Mistakes(UserError):
    """Several things to mend at once: a line that says how many, and a line for each."""


class VerificationError(UserError):
    """Stored numbers are not what they should be."""

    exit_code = 1
