"""Mirror images: whole images, half of them, the same wherever an image stands."""

import jax
import jax.numpy as jnp
import numpy as np

from thermo_ebm.data.flips import flip

KEY = jax.random.key(0)
NUM = 400


def images(numbers):
    """Images that differ from each other and from their mirror images, uint8 [..., 2, 3, 1]."""
    numbers = np.asarray(numbers)
    first = np.stack([numbers % 256, numbers // 256], axis=-1)[..., None]  # the left column
    rest = np.broadcast_to([[7, 9]] * 2, (*numbers.shape, 2, 2))
    return np.concatenate([first, rest], axis=-1)[..., None].astype(np.uint8)


def test_about_half_of_the_images_are_mirrored_and_the_others_unchanged():
    numbers = np.arange(NUM)
    originals, flipped = images(numbers), np.asarray(flip(images(numbers), numbers, KEY))
    is_same = (flipped == originals).all(axis=(1, 2, 3))
    is_mirrored = (flipped == originals[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (is_same != is_mirrored).all()
    assert abs(is_mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(NUM)


def test_a_flip_depends_on_the_number_of_the_image_and_the_key_alone():
    """As one batch, as shares of devices in batches, and in another order."""
    numbers = np.arange(24)
    together = np.asarray(flip(images(numbers), numbers, KEY))
    shares = numbers.reshape(2, 4, 3)
    in_shares = np.asarray(jax.jit(flip)(jnp.asarray(images(shares)), shares, KEY))
    np.testing.assert_array_equal(in_shares.reshape(together.shape), together)
    order = np.random.default_rng(0).permutation(24)
    np.testing.assert_array_equal(flip(images(order), order, KEY), together[order])
    assert (np.asarray(flip(images(numbers), numbers, jax.random.key(1))) != together).any()
