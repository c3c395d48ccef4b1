"""Output for a terminal that may be closed: text that cannot be written never ends a program."""

import contextlib
from typing import Any, TextIO, cast


class _LenientStream:
    """A text stream whose errors are ignored; nothing is written where the process has none."""

    def __init__(self, stream: TextIO | None):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text, or nothing if that fails; returns its length."""
        if self._stream is not None:
            # ValueError: the stream is closed, or its encoding lacks a character.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes, if that succeeds."""
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal that is still there."""
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def lenient(stream: TextIO | None) -> TextIO:
    """The stream without its errors: a closed terminal, a full disk, a pipe without a reader.

    What cannot be written is lost, and the next text is tried again.
    """
    return stream if isinstance(stream, _LenientStream) else cast(TextIO, _LenientStream(stream))
