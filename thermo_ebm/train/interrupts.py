"""Catches SIGTERM and SIGINT, so that the training loop can check for them between dispatches."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def catch_interrupts() -> Iterator[Callable[[], bool]]:
    """While open, the first SIGTERM or SIGINT only makes the yielded function return True.

    A second signal kills the program, as without this function.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def handler(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    for number in _SIGNALS:
        signal.signal(number, handler)
    try:
        yield lambda: bool(received)
    finally:
        for number, old in before.items():
            signal.signal(number, old)
