"""The exception for mistakes of a user, and messages of other exceptions on one line."""


class UserError(Exception):
    """A mistake in a config, a file or a folder: one line that names it and says what to do.

    The programs in `launch/` print the line and exit with code 2.
    """


def one_line(error: BaseException) -> str:
    """The message of an exception, with spaces in place of line breaks."""
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """The first line of the message of an exception, for messages of many lines."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else repr(error)
