"""The exception for mistakes of a user, and messages of other exceptions on one line."""


class UserError(Exception):
    """A mistake in a config, a file or a folder: one line that names it and says what to do.

    A message with a table has several lines, one per argument. The programs in `launch/` print the
    message and exit with code 2.
    """

    def __str__(self) -> str:
        """The message; line breaks and what cannot be printed, as in names of files, escaped."""
        return "\n".join(printable(str(line)) for line in self.args)


def printable(text: str) -> str:
    r"""Escapes line breaks, control characters and bytes that are not UTF-8.

    >>> printable("a\nb.png")
    'a\\nb.png'
    """
    if text.isprintable():
        return text
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "image"), counted(1500, "image"), counted(0, "image")
    ('1 image', '1,500 images', '0 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def one_line(error: BaseException) -> str:
    """The message of an exception, with spaces in place of line breaks."""
    return " ".join(str(error).split())


def reason_of(error: Exception) -> str:
    r"""The kind and the message, cut off where it is long, of what a user's code raised.

    >>> reason_of(ZeroDivisionError("no\nnumbers"))
    'ZeroDivisionError: no numbers'
    """
    return f"{type(error).__name__}: {one_line(error)[:200]}"


def first_line(error: BaseException) -> str:
    """The first line of the message of an exception, for messages of many lines."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else repr(error)
