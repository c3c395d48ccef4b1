"""Training images read as they are needed, ahead of the steps that need them, by Grain's threads.

Which images a step needs is known beforehand (`TrainState.order` and `step`), so the stream has no
state of its own that a checkpoint would have to hold: it starts at any step.
"""

import os
from collections.abc import Iterator

import numpy as np

from thermo_ebm.data.source import Images, read


def stream(images: Images, numbers: np.ndarray, first: int, ahead: int) -> "Iterator[np.ndarray]":
    """Yields the images of each batch from `first` on, while those of later ones are being read.

    Args:
      images: the chosen images.
      numbers: int [num_batches, count], the numbers of the images of each batch.
      first: the first batch wanted, in [0, num_batches].
      ahead: batches that are read before they are asked for, at least 1.

    Returns:
      An iterator over uint8 [count, size, size, channels]; its `close()` ends the threads.

    Raises:
      UserError: where the iterator arrives at a batch of which an image cannot be read.
    """
    import grain  # three seconds of imports, for streamed runs alone

    batches = grain.MapDataset.range(first, len(numbers)).map(
        lambda batch: read(images, numbers[batch])
    )
    threads = min(ahead, os.cpu_count() or 1, 16)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(batches.to_iter_dataset(options))
