"""The one exception for what a user can get wrong."""


class UserError(Exception):
    """A mistake in a config, a file or a folder: one line that names it and says what to do.

    The programs in `launch/` print the line and exit with code 2.
    """
