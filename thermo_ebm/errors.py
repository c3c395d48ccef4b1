"""The one exception for what a user can get wrong, and others told on one line."""


class UserError(Exception):
    """A mistake in a config, a file or a folder: one line that names it and says what to do.

    The programs in `launch/` print the line and exit with code 2.
    """


def one_line(error: BaseException) -> str:
    """What an exception says, its line breaks made spaces."""
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, for those that go on for pages."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else repr(error)
