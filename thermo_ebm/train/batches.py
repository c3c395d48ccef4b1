"""The data set spread over devices as uint8, and the batches gathered from it on the device.

Each device keeps a contiguous part of the images, so that each host loads only its share. For a
batch, every device contributes the images that it holds, and a sum over devices gives each device
its share of the batch: the same images in the same positions on any number of devices.

If training images are streamed, a device instead holds its share of the batches of one dispatch,
and the order of the epoch is rewritten to the positions of the images there.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from thermo_ebm.data import to_unit
from thermo_ebm.types import Array, Batch


class Layout(NamedTuple):
    """Which device holds which image."""

    num_images: int
    num_processes: int
    local_devices: int  # devices of each process

    @property
    def per_process(self) -> int:
        """Images per process, with padding in the last ones."""
        return -(-self.num_images // self.num_processes)

    @property
    def per_device(self) -> int:
        """Images per device, with padding in the last ones."""
        return -(-self.per_process // self.local_devices)

    @property
    def num_devices(self) -> int:
        """Number of devices of all processes."""
        return self.num_processes * self.local_devices


def make_layout(num_images: int) -> Layout:
    """The layout over all devices of all processes that JAX knows of."""
    return Layout(num_images, jax.process_count(), jax.local_device_count())


def batch_share(batch_size: int, layout: Layout) -> int:
    """Images of a batch per device, with padding in the last ones."""
    return -(-batch_size // layout.num_devices)


def make_dispatch_layout(batch_size: int, num_batches: int) -> Layout:
    """The layout of the images of some batches, with each device holding its share of each."""
    whole = make_layout(0)
    held = num_batches * batch_share(batch_size, whole)
    return whole._replace(num_images=held * whole.num_devices)


def dispatch_order(num_train: int, first: Array, batch_size: int, layout: Layout) -> Array:
    """The positions, among the images of a dispatch, of the images of an epoch's batches.

    Args:
      num_train: training images.
      first: the dispatch's first batch, counted from the epoch's beginning.
      batch_size: images of a batch.
      layout: of the dispatch's images (`make_dispatch_layout`).

    Returns:
      int32 [num_train], to be used in place of the epoch's order; meaningless for batches outside
      the dispatch.
    """
    batch, slot = jnp.divmod(jnp.arange(num_train, dtype=jnp.int32), batch_size)
    share = batch_share(batch_size, layout)
    return slot // share * layout.per_device + (batch - first) * share + slot % share


def split_over_devices(images: np.ndarray, layout: Layout) -> np.ndarray:
    """This process's images [per_process, ...] as [local_devices, per_device, ...], zero-padded."""
    chex.assert_equal(images.shape[0], layout.per_process)
    missing = layout.per_device * layout.local_devices - layout.per_process
    if missing:  # np.pad copies even where nothing is missing
        images = np.pad(images, [(0, missing)] + [(0, 0)] * (images.ndim - 1))
    return images.reshape(layout.local_devices, layout.per_device, *images.shape[1:])


def gather(part: Array, indices: Array, mask: Array, layout: Layout, axis_name: str) -> Batch:
    """This device's share of a batch, inside a pmapped function.

    Args:
      part: this device's images, uint8 [per_device, *image_shape].
      indices: indices in the data set of the images of the complete batch, int32 [batch_size].
      mask: [batch_size] float, 0 for padding.
      layout: which device holds which image.
      axis_name: the pmapped axis.

    Returns:
      A batch of ceil(batch_size / num_devices) images in [-1, 1]. Padding repeats the last
      example with mask 0, so that chains of padding diverge only if those of that example do.
    """
    chex.assert_equal_shape([indices, mask])
    batch_size = indices.shape[0]
    share = batch_share(batch_size, layout)
    fill = share * layout.num_devices - batch_size
    indices, mask = jnp.pad(indices, (0, fill), mode="edge"), jnp.pad(mask, (0, fill))
    device = jax.lax.axis_index(axis_name)
    within = indices % layout.per_process
    owner = indices // layout.per_process * layout.local_devices + within // layout.per_device
    rows = part[within % layout.per_device]
    if layout.num_devices > 1:
        mine = (owner == device).reshape(-1, *[1] * (rows.ndim - 1))
        # Exactly one device contributes to each pixel, so that uint8 cannot overflow.
        rows = jax.lax.psum_scatter(jnp.where(mine, rows, 0), axis_name, tiled=True)
    slots = device * share + jnp.arange(share)
    return Batch(to_unit(rows), jnp.minimum(slots, batch_size - 1), mask[slots])
