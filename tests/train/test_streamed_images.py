"""Images read ahead of the steps that need them: in order, from any step, and no further."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from thermo_ebm.data.images import Images, Unreadable
from thermo_ebm.errors import UserError
from thermo_ebm.train.feed import stream

pytest.importorskip("grain")


def numbered(num=60, unreadable=()):
    """Constant images of their number, and the list of those that were read."""
    seen, lock = [], threading.Lock()

    def decode(indices):
        with lock:
            seen.extend(indices)
        return [
            Unreadable(f"image {i}", "torn") if i in unreadable else Image.new("L", (4, 4), i)
            for i in indices
        ]

    return Images("a test", decode, np.arange(num), 4, 1), seen


def levels(images):
    return images[:, 0, 0, 0].tolist()


def numbers(steps=10, count=6, seed=0):
    return np.random.default_rng(seed).permutation(steps * count).reshape(steps, count)


def test_stream_yields_the_images_of_each_step_in_order():
    for first in [0, 3, 9, 10]:
        for ahead in [1, 4, 50]:
            images, _ = numbered()
            wanted = numbers()
            got = [levels(step) for step in stream(images, wanted, first, ahead)]
            assert got == wanted[first:].tolist()


def test_stream_numbers_the_selected_images():
    images, _ = numbered()
    images = images._replace(indices=np.arange(60)[::-1])
    got = next(stream(images, np.array([[0, 5]]), 0, 1))
    assert levels(got) == [59, 54]


def test_stream_reads_no_further_ahead_than_asked():
    images, seen = numbered()
    wanted = numbers()
    steps = stream(images, wanted, 2, 3)
    next(steps)
    end = time.monotonic() + 60
    while len(seen) < 4 * 6 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)  # time enough to read too much
    assert sorted(seen) == sorted(wanted[2:6].ravel().tolist())
    steps.close()


def test_an_unreadable_image_is_named_when_its_step_comes():
    wanted = numbers()
    images, _ = numbered(unreadable=wanted[4, 1:3].tolist())
    steps = stream(images, wanted, 0, 3)
    for _ in range(4):
        next(steps)
    with pytest.raises(UserError, match="cannot read 2 images"):
        next(steps)
